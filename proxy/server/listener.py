"""Sockets on which requests come in: loopback addresses and unix sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress, parse_listen
from proxy.server.socket_activation import passed_socket

# Clients that connect at the same moment and wait to be accepted.
_BACKLOG = 512


class Closable(Protocol):
    """What accepts: a server, or a socket that other processes accept from."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where requests come in.

    route   set if it belongs to one route alone
    remove  takes away what a closed socket leaves behind
    """

    address: ListenAddress
    route: str | None
    server: Closable
    remove: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """What clients write before a path; for a unix socket, what names it."""
        return str(self.address) if self.address.unix_path else f"http://{self.address}"

    def stop(self) -> None:
        """Accept no more; connections that are open stay."""
        self.server.close()

    def close(self) -> None:
        """Stop, and leave nothing behind."""
        self.stop()
        if self.remove is not None:
            self.remove()


@dataclass(frozen=True, slots=True)
class Opened:
    """A socket that listens already: whoever connects waits until somebody accepts.

    address  where, with the port that was taken
    remove   as of ``Listener``
    """

    address: ListenAddress
    sock: socket.socket
    remove: Callable[[], None] | None = None


class AddressUnavailable(KeyrelayError):
    """An address cannot be listened at.

    text    the address as it is written
    route   the route that it belongs to, None for all
    in_use  another program listens there
    """

    def __init__(self, message: str, text: str, *, in_use: bool, route: str | None = None) -> None:
        super().__init__(message)
        self.text = text
        self.in_use = in_use
        self.route = route


async def listen(text: str, accept: Callable[[], asyncio.Protocol], route: str | None) -> Listener:
    """Listen at the address ``text``; ``accept`` makes the protocol of each connection.

    A socket that a service manager has passed for it is used. Raises KeyrelayError, with what to
    do, if that is not possible.
    """
    return await serve_at(open_at(text, route), accept, route)


def open_at(text: str, route: str | None = None) -> Opened:
    """Begin to listen at the address ``text``. Raises KeyrelayError, as ``listen``."""
    address = parse_listen(text)
    passed = passed_socket(address)
    try:
        if passed is not None:
            # Its file, if it has one, is the service manager's.
            return Opened(address, passed)
        if address.unix_path is not None:
            path = Path(address.unix_path)
            return Opened(address, _on_path(path), _remover(path))
        assert address.host is not None
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _unavailable(error, address, text, route) from None
    return Opened(ListenAddress(address.host, sock.getsockname()[1], None), sock)


async def serve_at(
    opened: Opened, accept: Callable[[], asyncio.Protocol], route: str | None
) -> Listener:
    """Accept what connects. Raises KeyrelayError, with the socket closed, if that fails."""
    loop = asyncio.get_running_loop()
    sock = opened.sock
    try:
        if sock.family != socket.AF_UNIX:
            server = await loop.create_server(accept, sock=sock, backlog=_BACKLOG)
        else:
            # From Python 3.13 on asyncio and uvloop would remove the file, also one of a service
            # manager's. Before that only uvloop has the parameter.
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
    """A unix socket that only its owner can connect to. Raises OSError."""
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
    """Remove a socket file that a killed process left behind; raise OSError if it is in use."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, "in use")
        path.unlink()


def _remover(path: Path) -> Callable[[], None]:
    """Removes the socket file that is there now, unless another is in its place by then."""
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
        message = f"{address} is in use by another program"
    elif error.errno == errno.EACCES:
        message = f"listening on {address} is not permitted; ports below 1024 need privileges"
    else:
        message = f"cannot listen on {address}: {os.strerror(error.errno or 0)}"
    return AddressUnavailable(message, text, in_use=in_use, route=route)
