"""The request as the client sent it: bytes and what the parser found in them, nothing decoded."""

from __future__ import annotations

import itertools
import re
import secrets

from multidict import CIMultiDict, CIMultiDictProxy

RawHeaders = tuple[tuple[bytes, bytes], ...]


class Request:
    """One request's head.

    method       as sent; methods are case-sensitive (RFC 9110 section 9.1)
    target       the request target, byte for byte
    path, query  the two halves of an origin-form target; ``query`` is None without a ``?``
    raw_headers  field lines in order, names and values as bytes
    headers      the same for look-ups, values decoded
    websocket    whether it opens a WebSocket
    """

    __slots__ = (
        "chunked",
        "headers",
        "method",
        "path",
        "query",
        "raw_headers",
        "target",
        "version",
        "websocket",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        raw_headers: RawHeaders,
        headers: CIMultiDictProxy[str],
        *,
        version: tuple[int, int] = (1, 1),
        chunked: bool = False,
        websocket: bool = False,
    ) -> None:
        self.method = method
        self.raw_headers = raw_headers
        self.headers = headers
        self.version = version
        self.chunked = chunked
        self.websocket = websocket
        self.set_target(target)

    def set_target(self, target: bytes) -> None:
        """Take an origin-form target; an absolute-form one is replaced by it (RFC 9112 3.2.2)."""
        self.target = target
        path, mark, query = target.partition(b"?")
        self.path = path
        self.query = query if mark else None

    @property
    def has_body(self) -> bool:
        """Whether the head announces a body (RFC 9112 section 6.3)."""
        return self.chunked or self.headers.get("Content-Length", "0").strip("0") != ""

    @classmethod
    def of(
        cls, method: str, target: str, fields: list[tuple[str, str]], *, websocket: bool = False
    ) -> Request:
        """The same from text, where no parser has read it."""
        raw = tuple((name.encode("latin-1"), value.encode("utf-8")) for name, value in fields)
        return cls(
            method,
            target.encode("latin-1"),
            raw,
            CIMultiDictProxy(CIMultiDict(fields)),
            websocket=websocket,
        )


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
