"""A provider that responds before it has read a request's body, and closes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds; no wait of a test comes near it.
_PATIENCE = 30.0


class EarlyProvider:
    """Reads a header section and ``reads`` further bytes, sends ``response``, and closes.

    What arrived unread, or arrives later, makes the kernel reset the connection. Each connection
    has a thread of its own, so that response and reset come at any point of the proxy's work.
    """

    def __init__(self, response: bytes, *, reads: int, tls: ssl.SSLContext | None) -> None:
        self._response = response
        self._reads = reads
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self.connections = 0

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.getsockname()[1]}"

    def close(self) -> None:
        # Closing alone would leave ``accept`` waiting.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._server.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        accepted.settimeout(_PATIENCE)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            sock = accepted
        else:
            sock = self._tls.wrap_socket(accepted, server_side=True)
        with sock:
            received = b""
            while b"\r\n\r\n" not in received:
                received += sock.recv(65_536)
            body = len(received.partition(b"\r\n\r\n")[2])
            while body < self._reads:
                body += len(sock.recv(65_536))
            sock.sendall(self._response)


@contextmanager
def early_provider(
    response: bytes, *, reads: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[EarlyProvider]:
    """Run an ``EarlyProvider`` until the block ends."""
    provider = EarlyProvider(response, reads=reads, tls=tls)
    try:
        yield provider
    finally:
        provider.close()
