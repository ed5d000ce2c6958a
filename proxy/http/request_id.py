"""X-Request-Id: the client's if it is valid, else a new one."""

from __future__ import annotations

import itertools
import re
import secrets

FIELD = b"x-request-id"
"""Name of the request ID field, lower case. The client's lines are replaced by a single one."""

# Formats of clients and tracing tools: UUIDs, ULIDs, trace IDs, paths of hops.
_VALID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")

# Random per process, so that two processes do not generate the same ID.
_process = secrets.token_hex(4)
_numbers = itertools.count(1)


def request_id(given: str | None) -> str:
    """The client's request ID if it is valid, else a new one."""
    if given is not None and _VALID.fullmatch(given):
        return given
    return f"{_process}-{next(_numbers):x}"
