"""The request for the provider, built from raw bytes and never decoded.

The target is the upstream's base path, the path behind the route's prefix, and the client's query,
byte for byte. The authority comes from the configuration alone: bytes of the client can only follow
the ``/`` that ends it.
"""

from __future__ import annotations

from proxy.auth.injection import Injection
from proxy.http.headers import (
    USUAL_ENCODINGS,
    request_fields,
    split_subprotocols,
    strip_query,
    with_decodable_encodings,
)
from proxy.http.request import RawHeaders, Request
from proxy.routing.route import RewriteRules


class UpstreamRequest:
    """A request without its credential; ``render`` adds one and can be called again for a replay.

    ``withheld_subprotocols``: the client's offers that may contain a credential, not forwarded.
    """

    __slots__ = ("_fields", "_host", "_method", "_path", "_query", "_tail", "withheld_subprotocols")

    def __init__(
        self, request: Request, rest: bytes, rules: RewriteRules, added: bytes = b""
    ) -> None:
        """``rest`` is the raw path behind the route's prefix: empty or beginning with ``/``.

        ``added`` are field lines that keyrelay adds, each terminated by CRLF.
        """
        self._method = request.method.encode("ascii")
        self._host = rules.host
        self._path = rules.base_path
        self._tail = rest
        query = request.query
        if query:
            query = strip_query(query, rules.dropped_query) or None
        self._query = query
        self.withheld_subprotocols: list[bytes] = []
        raw = request.raw_headers
        accepted = request.headers.getall("Accept-Encoding", ())
        if accepted and (len(accepted) > 1 or accepted[0] not in USUAL_ENCODINGS):
            raw = with_decodable_encodings(raw)
        if request.websocket:
            self._fields = self._handshake_fields(raw, rules)
        else:
            self._fields = request_fields(raw, rules.dropped_headers)
            if request.chunked:
                self._fields += b"Transfer-Encoding: chunked\r\n"
        self._fields += added

    def _handshake_fields(self, raw: RawHeaders, rules: RewriteRules) -> bytes:
        """Field lines of a handshake: the client's key, version and extensions (RFC 6455 4.1)."""
        # Dropped from other requests, in which it could only contain a key.
        dropped = rules.dropped_headers - {b"sec-websocket-protocol"}
        offered, self.withheld_subprotocols = split_subprotocols(raw, rules.subprotocols)
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        if not self.withheld_subprotocols:
            return fields + request_fields(raw, dropped)
        fields += request_fields(raw, rules.dropped_headers)
        if offered:
            fields += b"Sec-WebSocket-Protocol: %b\r\n" % b", ".join(offered)
        return fields

    @property
    def forwarded(self) -> tuple[bytes, bytes | None, bytes]:
        """Path behind the upstream's base path, query and field lines, without the credential."""
        return self._tail, self._query, self._fields

    def render(self, injection: Injection) -> bytes:
        """The head as sent, with the fields of the injection last."""
        path = self._path + injection.path + self._tail
        query = self._query
        if injection.query:
            query = b"%b&%b" % (query, injection.query) if query else injection.query
        credential = injection.headers
        if injection.proof is not None:
            credential += injection.proof.fields(self._method, path or b"/")
        return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            self._method,
            path or b"/",
            b"" if query is None else b"?" + query,
            self._host,
            self._fields,
            credential,
        )
