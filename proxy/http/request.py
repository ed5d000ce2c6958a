"""The client's request as parsed: raw bytes, nothing decoded."""

from __future__ import annotations

from multidict import CIMultiDict, CIMultiDictProxy

RawHeaders = tuple[tuple[bytes, bytes], ...]


_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Request:
    """Request line and header section of one request.

    method       as received; methods are case-sensitive (RFC 9110 section 9.1)
    target       the request target, byte for byte
    path, query  the parts of an origin-form target; ``query`` is None without a ``?``
    raw_headers  field lines in order, names and values as bytes
    headers      the same as a case-insensitive mapping, values decoded
    version      (major, minor)
    chunked      whether the body uses the chunked transfer coding
    websocket    whether the request is a WebSocket handshake
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
        """Set an origin-form target, also in place of an absolute-form one (RFC 9112 3.2.2)."""
        self.target = target
        path, mark, query = target.partition(b"?")
        self.path = path
        self.query = query if mark else None

    @property
    def has_body(self) -> bool:
        """Whether the header section announces a body (RFC 9112 section 6.3)."""
        return self.chunked or self.headers.get("Content-Length", "0").strip("0") != ""

    @property
    def idempotent(self) -> bool:
        """Whether repeating the request has no further effect (RFC 9110 section 9.2.2)."""
        return self.method in _IDEMPOTENT or "Idempotency-Key" in self.headers

    @classmethod
    def of(
        cls, method: str, target: str, fields: list[tuple[str, str]], *, websocket: bool = False
    ) -> Request:
        """A request from strings instead of parsed bytes."""
        raw = tuple((name.encode("latin-1"), value.encode("utf-8")) for name, value in fields)
        return cls(
            method,
            target.encode("latin-1"),
            raw,
            CIMultiDictProxy(CIMultiDict(fields)),
            websocket=websocket,
        )
