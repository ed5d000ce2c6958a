"""Accept connections as plain sockets, for those that no transport may have yet.

Connections for other processes, and those whose first byte decides how they are served.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from proxy.http.address import ListenAddress

# Connections accepted in one turn of the loop.
_AT_ONCE = 64
# Delay after a failed accept, for lack of descriptors or memory (seconds).
_PAUSE_SECONDS = 1.0

Pass = Callable[[ListenAddress, socket.socket], None]
"""Receives a connection accepted at an address, and owns its socket."""


class Acceptor:
    """A listening socket whose connections are passed on, unless paused. Begins paused."""

    def __init__(self, address: ListenAddress, sock: socket.socket, pass_on: Pass) -> None:
        self._address = address
        self._sock = sock
        self._pass_on = pass_on
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._accepting = False
        sock.setblocking(False)

    def begin(self) -> None:
        """Start accepting. Idempotent."""
        self._again = None
        self._accepting = True
        self._loop.add_reader(self._sock, self._accept)

    def rest(self) -> None:
        """Pause: connections wait in the system's backlog."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._accepting = False
        self._loop.remove_reader(self._sock)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self._sock.fileno() >= 0:
            self.rest()
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.rest()
                self._again = self._loop.call_later(_PAUSE_SECONDS, self.begin)
                return
            self._pass_on(self._address, connection)
            if not self._accepting:
                return
