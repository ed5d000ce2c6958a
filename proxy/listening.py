"""Sockets on which requests come in: loopback addresses and unix sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import KeyrelayError
from .origins import ListenAddress, parse_listen

# Clients that connect at the same moment and wait to be accepted.
_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where requests come in.

    route   set if it belongs to one route alone
    remove  takes away what a closed socket leaves behind
    """

    address: ListenAddress
    route: str | None
    server: asyncio.Server
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


async def listen(text: str, accept: Callable[[], asyncio.Protocol], route: str | None) -> Listener:
    """Listen at the address ``text``; ``accept`` makes the protocol of each connection.

    Raises KeyrelayError, with what to do, if that is not possible.
    """
    address = parse_listen(text)
    try:
        if address.unix_path is not None:
            path = Path(address.unix_path)
            return Listener(address, route, await _on_path(accept, path), _remover(path))
        server = await asyncio.get_running_loop().create_server(
            accept, address.host, address.port, backlog=_BACKLOG
        )
    except OSError as error:
        raise KeyrelayError(_why_not(error, address)) from None
    port = server.sockets[0].getsockname()[1]
    return Listener(ListenAddress(address.host, port, None), route, server)


async def _on_path(accept: Callable[[], asyncio.Protocol], path: Path) -> asyncio.Server:
    """A unix socket that only its owner can connect to. Raises OSError."""
    _clear_path(path)
    old = os.umask(0o177)
    try:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(accept, str(path), backlog=_BACKLOG)
    finally:
        os.umask(old)


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


def _why_not(error: OSError, address: ListenAddress) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another program; stop it or choose another with --listen"
    if error.errno == errno.EACCES:
        return f"listening on {address} is not permitted; ports below 1024 need privileges"
    return f"cannot listen on {address}: {os.strerror(error.errno or 0)}"
