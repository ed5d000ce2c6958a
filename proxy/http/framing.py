"""Body framing of HTTP/1.1 messages."""

from __future__ import annotations

import enum


class BodyFraming(enum.Enum):
    """How the end of a body is determined (RFC 9112 section 6.3)."""

    NONE = "none"
    """The message has no body."""
    LENGTH = "length"
    """Content-Length bytes."""
    CHUNKED = "chunked"
    """The last chunk ends the body."""
    UNTIL_CLOSE = "until-close"
    """The end of the connection ends the body; responses only."""


# Module constants, because attribute access on an enum class costs on every read of a body.
NONE = BodyFraming.NONE
LENGTH = BodyFraming.LENGTH
CHUNKED = BodyFraming.CHUNKED
UNTIL_CLOSE = BodyFraming.UNTIL_CLOSE
