"""Names for requests, by which a line of this log is found again in another's.

Not a standard but a custom that most servers know: ``X-Request-Id``.
"""

from __future__ import annotations

import itertools
import re
import secrets

FIELD = b"x-request-id"
"""Lower case. The client's does not cross as it is: one line is made of it here."""

# What clients and tracing tools make: UUIDs, ULIDs, trace ids, paths of hops.
_VALID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")

# Of this process, so that two of them do not name two requests alike.
_ours = secrets.token_hex(4)
_numbers = itertools.count(1)


def request_id(given: str | None) -> str:
    """The name that the client gave, if it is one; else a new one."""
    if given is not None and _VALID.fullmatch(given):
        return given
    return f"{_ours}-{next(_numbers):x}"
