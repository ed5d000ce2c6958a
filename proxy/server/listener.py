"""Listening sockets: IP addresses and unix sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress, parse_listen
from proxy.server.acceptor import Acceptor
from proxy.server.socket_activation import passed_socket

# Maximum number of connections that wait to be accepted.
_BACKLOG = 512


class Closable(Protocol):
    """A server, or a socket from which other processes accept."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ServeSocket:
    """How a TLS listener serves: ``serve`` gets each accepted connection, before any transport."""

    serve: Callable[[socket.socket], None]


Accept = Callable[[], asyncio.Protocol] | ServeSocket
"""Creates the protocol of each connection, or serves its socket."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listener.

    route   name of the route if the listener belongs to a single one, else None
    remove  removes the socket file after closing, None without one
    """

    address: ListenAddress
    route: str | None
    server: Closable
    remove: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """Base URL for clients; for a unix socket its address."""
        if self.address.unix_path:
            return str(self.address)
        return f"{'https' if self.address.tls else 'http'}://{self.address}"

    def stop(self) -> None:
        """Stop accepting; open connections are unaffected."""
        self.server.close()

    def close(self) -> None:
        """Stop accepting and remove the socket file."""
        self.stop()
        if self.remove is not None:
            self.remove()


@dataclass(frozen=True, slots=True)
class Opened:
    """A listening socket without a server: connections wait in its backlog.

    address  the address with the actual port
    remove   as in ``Listener``
    """

    address: ListenAddress
    sock: socket.socket
    remove: Callable[[], None] | None = None


class AddressUnavailable(KeyrelayError):
    """The address of a listener is unavailable.

    text    the address as configured
    route   name of the route that it belongs to, None for all routes
    in_use  whether another program listens there
    """

    def __init__(self, message: str, text: str, *, in_use: bool, route: str | None = None) -> None:
        super().__init__(message)
        self.text = text
        self.in_use = in_use
        self.route = route


async def listen(text: str, accept: Accept, route: str | None) -> Listener:
    """Listen at the address ``text``; ``accept`` serves each connection.

    Uses a socket that a service manager has passed for the address, if any. Raises KeyrelayError,
    with the correction, if the address is unavailable.
    """
    return await serve_at(open_at(text, route), accept, route)


def open_at(text: str, route: str | None = None) -> Opened:
    """Open a listening socket at the address ``text``. Raises AddressUnavailable."""
    address = parse_listen(text)
    passed = passed_socket(address)
    try:
        if passed is not None:
            # The service manager owns the socket file.
            return Opened(address, passed)
        if address.unix_path is not None:
            path = Path(address.unix_path)
            return Opened(address, _on_path(path), _remover(path))
        assert address.host is not None
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _unavailable(error, address, text, route) from None
    return Opened(replace(address, port=sock.getsockname()[1]), sock)


async def serve_at(opened: Opened, accept: Accept, route: str | None) -> Listener:
    """Start accepting. Raises KeyrelayError, with the socket closed, on failure."""
    loop = asyncio.get_running_loop()
    sock = opened.sock
    if isinstance(accept, ServeSocket):
        serve = accept.serve
        acceptor = Acceptor(opened.address, sock, lambda _, connection: serve(connection))
        acceptor.begin()
        return Listener(opened.address, route, acceptor, opened.remove)
    try:
        if sock.family != socket.AF_UNIX:
            server = await loop.create_server(accept, sock=sock, backlog=_BACKLOG)
        else:
            # asyncio from Python 3.13 on, and uvloop, would remove the file, even one of another
            # process or of the service manager. Before that only uvloop has the parameter.
            keep: dict[str, Any] = {}
            if sys.version_info >= (3, 13) or not isinstance(loop, asyncio.SelectorEventLoop):
                keep["cleanup_socket"] = False
            server = await loop.create_unix_server(accept, sock=sock, backlog=_BACKLOG, **keep)
    except OSError as error:
        sock.close()
        if opened.remove is not None:
            opened.remove()
        raise _unavailable(error, opened.address, str(opened.address), route) from None
    return Listener(opened.address, route, server, opened.remove)


def _on_path(path: Path) -> socket.socket:
    """A listening unix socket that only its owner can connect to. Raises OSError."""
    _clear_path(path)
    sock = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(old)
    return sock


def _clear_path(path: Path) -> None:
    """Remove the socket file of a killed process. Raises OSError if the socket is in use."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, "in use")
        path.unlink()


def _remover(path: Path) -> Callable[[], None]:
    """A function that removes the current socket file, unless it has been replaced."""
    inode = path.stat().st_ino

    def remove() -> None:
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()

    return remove


def _unavailable(
    error: OSError, address: ListenAddress, text: str, route: str | None = None
) -> AddressUnavailable:
    in_use = error.errno == errno.EADDRINUSE
    if in_use:
        message = f"{address} is in use"
    elif error.errno == errno.EACCES:
        message = f"listening on {address} is not permitted; ports below 1024 need privileges"
    else:
        message = f"cannot listen on {address}: {os.strerror(error.errno or 0)}"
    return AddressUnavailable(message, text, in_use=in_use, route=route)
