"""A forward proxy for the life of one command: it ends TLS for the routes' providers only.

The command's clients reach it by ``HTTPS_PROXY``. CONNECT to the provider of a route is answered by
keyrelay itself, with a certificate of an authority that exists in this process's memory; every
other CONNECT is passed through untouched. A password in the proxy's URL keeps other programs out.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import socket
from collections.abc import Callable, Collection
from contextlib import suppress

from proxy.http.address import ListenAddress, bracketed
from proxy.server.acceptor import Acceptor

USER = "keyrelay"

_HEAD_BYTES = 16 * 1024
_HEAD_SECONDS = 15.0
_CONNECT_SECONDS = 30.0
# Connections at a time, those passed through included.
_MOST = 512
_READ = 65_536
_REQUEST = re.compile(rb"CONNECT (\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5}) HTTP/1\.[01]")
_AUTHORIZATION = re.compile(rb"proxy-authorization:[ \t]*basic[ \t]+([^ \t]+)[ \t]*", re.IGNORECASE)


class InterceptingProxy:
    """The proxy, on a free port of loopback. An async context manager.

    origins  host and port of the providers for which TLS ends here
    serve    serves such a connection, behind the response to CONNECT, and owns its socket
    """

    def __init__(
        self, origins: Collection[tuple[str, int]], serve: Callable[[socket.socket], None]
    ) -> None:
        self._origins = origins
        self._serve = serve
        self._password = secrets.token_urlsafe(24)
        self._expected = base64.b64encode(f"{USER}:{self._password}".encode())
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor: Acceptor
        self._port = 0

    @property
    def url(self) -> str:
        """The URL for ``HTTPS_PROXY``. A secret."""
        return f"http://{USER}:{self._password}@127.0.0.1:{self._port}"

    async def __aenter__(self) -> InterceptingProxy:
        sock = socket.create_server(("127.0.0.1", 0))
        self._port = sock.getsockname()[1]
        address = ListenAddress("127.0.0.1", self._port, None)
        self._acceptor = Acceptor(address, sock, lambda _, connection: self._accept(connection))
        self._acceptor.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._acceptor.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, connection: socket.socket) -> None:
        if len(self._tasks) >= _MOST:
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._handle(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, connection: socket.socket) -> None:
        """Serve one connection. Owns the socket until it is handed over."""
        loop = asyncio.get_running_loop()
        kept = True
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await _read_head(loop, connection)
            target = self._target(head)
            if isinstance(target, bytes):
                await loop.sock_sendall(connection, target)
            elif target in self._origins:
                await loop.sock_sendall(connection, _response("200 Connection established"))
                kept = False
                self._serve(connection)
            else:
                kept = False
                await _pass_through(connection, *target)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client is gone or slow, or the host cannot be reached: both see the end
        finally:
            if kept:
                connection.close()

    def _target(self, head: bytes) -> tuple[str, int] | bytes:
        """Host and port of a CONNECT, or the response that refuses the request."""
        line, *fields = head.split(b"\r\n")
        given = [found[1] for one in fields if (found := _AUTHORIZATION.fullmatch(one))]
        if len(given) != 1 or not hmac.compare_digest(given[0], self._expected):
            return _response(
                "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="keyrelay"'
            )
        request = _REQUEST.fullmatch(line)
        if request is None or not 0 < int(request[2]) < 65536:
            return _response("405 Method Not Allowed", "Allow: CONNECT")
        return request[1].decode("ascii").strip("[]").lower(), int(request[2])


def _response(status: str, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields]
    if not status.startswith("200"):
        lines += ["Content-Length: 0", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _read_head(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    """A header section without its blank line. Raises IncompleteReadError.

    A client sends nothing behind it before the response.
    """
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await loop.sock_recv(connection, _HEAD_BYTES)
        head += data
        if not data or len(head) > _HEAD_BYTES:
            raise asyncio.IncompleteReadError(head, None)
    return head[:-4]


async def _pass_through(connection: socket.socket, host: str, port: int) -> None:
    """Connect to the host and copy bytes both ways. Owns the socket."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        with connection, suppress(OSError):
            name = f"{bracketed(host)}:{port}"
            await loop.sock_sendall(connection, _response(f"502 {name} cannot be reached"))
        return
    near_reader, near_writer = await asyncio.open_connection(sock=connection)
    near_writer.write(_response("200 Connection established"))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(near_reader, writer))
            group.create_task(_copy(reader, near_writer))
    except* OSError:
        pass  # one side has broken off; the end of both follows
    finally:
        writer.close()
        near_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ):
        writer.write(data)
        await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
