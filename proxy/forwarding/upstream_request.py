"""The request as the provider will see it, built from bytes and never decoded.

The target is the upstream's base path, what follows the route's prefix, and the client's query,
byte for byte. The authority comes from the configuration alone: whatever a client writes can only
land behind the ``/`` that ends it.
"""

from __future__ import annotations

from proxy.auth.injection import Injection
from proxy.http.headers import request_fields, split_subprotocols, strip_query
from proxy.http.request import Request
from proxy.routing.route import RewriteRules


class UpstreamRequest:
    """A request without its credential; ``render`` adds one. Can be rendered again for a replay."""

    __slots__ = ("_fields", "_host", "_method", "_path", "_query", "_tail", "kept_subprotocols")

    def __init__(
        self, request: Request, rest: bytes, rules: RewriteRules, added: bytes = b""
    ) -> None:
        """``rest`` is the raw path behind the route's prefix: empty or beginning with ``/``.

        ``added`` are field lines of keyrelay's own, each ended with CRLF.
        """
        self._method = request.method.encode("ascii")
        self._host = rules.host
        self._path = rules.base_path
        self._tail = rest
        query = request.query
        if query:
            query = strip_query(query, rules.dropped_query) or None
        self._query = query
        self.kept_subprotocols: list[bytes] = []
        if request.websocket:
            self._fields = self._handshake_fields(request, rules)
        else:
            self._fields = request_fields(request.raw_headers, rules.dropped_headers)
            if request.chunked:
                self._fields += b"Transfer-Encoding: chunked\r\n"
        self._fields += added

    def _handshake_fields(self, request: Request, rules: RewriteRules) -> bytes:
        """RFC 6455 section 4.1: key, version and extensions are the client's, end to end."""
        raw = request.raw_headers
        # Dropped elsewhere, where it could only be a carrier of keys.
        dropped = rules.dropped_headers - {b"sec-websocket-protocol"}
        offered, self.kept_subprotocols = split_subprotocols(raw, rules.subprotocols)
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        if not self.kept_subprotocols:
            return fields + request_fields(raw, dropped)
        fields += request_fields(raw, rules.dropped_headers)
        if offered:
            fields += b"Sec-WebSocket-Protocol: %b\r\n" % b", ".join(offered)
        return fields

    def render(self, injection: Injection) -> bytes:
        """The head as it goes on the wire, with exactly one credential, placed last."""
        path = self._path + injection.path + self._tail
        query = self._query
        if injection.query:
            query = b"%b&%b" % (query, injection.query) if query else injection.query
        return b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            self._method,
            path or b"/",
            b"" if query is None else b"?" + query,
            self._host,
            self._fields,
            injection.headers,
        )
