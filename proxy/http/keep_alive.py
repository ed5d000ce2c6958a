"""The field ``Keep-Alive``: how long, and for how many requests, a server keeps a connection.

No standard has it any more (RFC 2068 section 19.7.1.1), but Apache, Node and many load balancers
send it and close the connection accordingly.
"""

from __future__ import annotations

import re

from proxy.http.response import ResponseHead

_NAME = b"\nkeep-alive:"
_PARAMETER = re.compile(rb'[ \t]*(timeout|max)[ \t]*=[ \t]*"?([0-9]{1,9})"?[ \t]*', re.IGNORECASE)
# Seconds before the server's timeout at which a connection is no longer used: a request must not
# meet a connection that is just being closed.
_MARGIN = 1.0
UNLIMITED = float("inf")


def limits(head: ResponseHead) -> tuple[float, float]:
    """Seconds for which the connection may be used again, and further requests on it.

    Each is ``UNLIMITED`` without a valid parameter; of several the smallest counts. The margin is a
    second, or half of a timeout below two seconds.
    """
    seconds = requests = UNLIMITED
    if _NAME not in head.fields.lower():
        return seconds, requests
    for value in head.values(b"keep-alive"):
        for part in value.split(b","):
            found = _PARAMETER.fullmatch(part)
            if found is None:
                continue
            number = int(found[2])
            if found[1].lower() == b"max":
                requests = min(requests, number)
            else:
                seconds = min(seconds, number - min(_MARGIN, number / 2))
    return seconds, requests
