"""TLS with clients: the context of a certificate, and handshakes before a connection is served.

The first byte of a connection is examined without reading it: a client that does not begin with a
TLS handshake is served without TLS, by a ``ClientConnection`` that refuses it. A handshake has the
time of a header section, and counts against ``max_connections``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from proxy.errors import Refusal
from proxy.server import wrong_protocol
from proxy.server.client_transport import OPEN, Timeouts
from proxy.server.connection import ClientConnection, Handle
from proxy.server.connection_limit import MAX_REFUSED, ConnectionLimit
from proxy.upstream.unread import TlsContext

_HANDSHAKE = 0x16  # ContentType of RFC 8446 section 5.1
# How long a connection that ends may take to send what is written, and the client to reply with its
# own closing alert (seconds).
_SHUTDOWN_SECONDS = 60.0
# A handshake that began late still gets this long (seconds).
_LEAST_SECONDS = 0.5
# Alerts by which a client rejects the certificate (RFC 8446 section 6.2), as OpenSSL names them.
_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED")
DISTRUSTED = (
    "A client does not trust the certificate of keyrelay's TLS listener; "
    "keyrelay ca shows how to make it."
)


def server_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """The context for connections of clients, by a certificate chain and its key, both in PEM.

    TLS 1.2 or newer, HTTP/1.1 by ALPN. Raises ValueError, without the values, if they do not go
    together.
    """
    context = TlsContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load(context, certificate.rstrip() + b"\n" + key.rstrip() + b"\n")
    except (ssl.SSLError, OSError, ValueError):
        raise ValueError("no certificate in PEM with its unencrypted key") from None
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """``load_cert_chain`` takes paths only: a file in memory, else one that is gone afterwards."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("keyrelay-tls", os.MFD_CLOEXEC), "wb") as file:  # noqa: PTH123
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/dev/fd/{file.fileno()}", password=_no_password)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(pem)
        context.load_cert_chain(path, password=_no_password)


def _no_password() -> str:
    """Without this OpenSSL asks on the terminal for the password of an encrypted key."""
    raise ValueError("no password can be given")


class TlsClientConnection(ClientConnection):
    """A connection to a TLS listener. Refuses one that does not begin with a handshake."""

    __slots__ = ("_handshakes",)

    def __init__(
        self,
        handle: Handle,
        registry: set[ClientConnection],
        times: Timeouts,
        loop: asyncio.AbstractEventLoop,
        limit: ConnectionLimit,
        on_malformed: Callable[[Refusal, str], None],
    ) -> None:
        super().__init__(handle, registry, times, loop, limit, on_malformed)
        self._handshakes = limit.handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshakes.discard(self)
        self.secure = transport.get_extra_info("ssl_object") is not None
        super().connection_made(transport)
        if not self.secure and self._state is OPEN:
            self._malformed(wrong_protocol.without_tls())

    def eof_received(self) -> bool:
        # Of the closing alert the event loop makes the end of both directions.
        return False if self.secure else super().eof_received()


class Handshakes:
    """The handshakes of all TLS listeners of a process.

    context  of new connections; None before the first configuration, or without TLS listeners
    notice   called if a client rejects the certificate
    """

    def __init__(
        self,
        limit: ConnectionLimit,
        clients: set[ClientConnection],
        times: Timeouts,
        notice: Callable[[], object] = lambda: None,
    ) -> None:
        self._limit = limit
        self._clients = clients
        self._times = times
        self._notice = notice
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self.context: ssl.SSLContext | None = None

    def begin(self, client: ClientConnection, connection: socket.socket) -> None:
        """Serve an accepted connection by ``client``, once its handshake is complete.

        Closes it if so many handshakes are pending that no response can be promised.
        """
        pending = self._limit.handshakes
        full = len(pending) + len(self._clients) >= self._limit.max_connections + MAX_REFUSED
        if full or self.context is None:
            connection.close()
            return
        pending.add(client)
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(client, connection, self.context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, client: ClientConnection, connection: socket.socket, context: ssl.SSLContext
    ) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._times.head_seconds
        try:
            first = await self._first_byte(loop, connection)
            if not first:
                connection.close()
            elif first[0] != _HANDSHAKE:
                await loop.connect_accepted_socket(lambda: client, connection)
            else:
                await loop.connect_accepted_socket(
                    lambda: client,
                    connection,
                    ssl=context,
                    ssl_handshake_timeout=max(until - loop.time(), _LEAST_SECONDS),
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
                )
        except ssl.SSLError as error:
            if any(name in (error.reason or "") for name in _DISTRUST):
                self._notice()
        except OSError:
            pass  # the client is gone, or too slow: the event loop has closed the connection
        finally:
            self._limit.handshakes.discard(client)

    async def _first_byte(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket
    ) -> bytes:
        """The first byte, which stays unread; empty if there is none in time, or at ``close``."""
        arrived: asyncio.Future[None] = loop.create_future()
        self._waiting.add(arrived)
        loop.add_reader(connection, _resolve, arrived)
        timer = loop.call_later(self._times.head_seconds, _resolve, arrived)
        try:
            await arrived
        finally:
            timer.cancel()
            loop.remove_reader(connection)
            self._waiting.discard(arrived)
        with suppress(BlockingIOError, InterruptedError):
            return connection.recv(1, socket.MSG_PEEK)
        return b""

    def close_silent(self) -> None:
        """Close the connections of which no byte has arrived, as at the end of keyrelay."""
        for arrived in self._waiting:
            _resolve(arrived)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
