"""Listeners of several processes: the supervisor accepts, and passes connections to workers.

Round robin, so that workers have equally many connections. If all workers accepted from one socket,
a client's whole pool of connections would often go to one of them; and a port that each of them
binds (SO_REUSEPORT) could be joined by any other program of the same user.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.app.listeners import Accept, ListenerSet
from proxy.errors import KeyrelayError
from proxy.forwarding.handler import ActiveConfig, RequestHandler
from proxy.http.address import ListenAddress
from proxy.server.connection import ClientConnection
from proxy.server.listener import Listener, open_at

# Connections accepted in one turn of the loop.
_AT_ONCE = 64
# Delay after a failed accept, for lack of descriptors or memory (seconds).
_PAUSE_SECONDS = 1.0

Pass = Callable[[ListenAddress, socket.socket], None]
"""Receives a connection accepted at an address, and owns its socket."""


@dataclass(frozen=True, slots=True)
class ListenerOffer:
    """A listener that the supervisor has opened.

    text, owner  the address as configured, and the route it belongs to; None for all routes
    address      the actual address, with the port that was assigned
    """

    text: str
    owner: str | None
    address: ListenAddress


class _Acceptor:
    """A listening socket whose connections are passed to workers, unless paused."""

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


class OpenPlaces(ListenerSet):
    """The supervisor's listeners. Paused until ``accept(True)``."""

    def __init__(
        self,
        make_handler: Callable[[ActiveConfig], RequestHandler],
        accept: Callable[[RequestHandler], ClientConnection],
        pass_on: Pass,
    ) -> None:
        super().__init__(make_handler, accept)
        self._pass_on = pass_on

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        opened = open_at(text, owner)
        acceptor = _Acceptor(opened.address, opened.sock, self._pass_on)
        return Listener(opened.address, owner, acceptor, opened.remove)

    def accept(self, wanted: bool) -> None:
        """Accept connections if ``wanted``, else pause: there is no worker to pass them to."""
        for listener in self.listeners:
            acceptor = listener.server
            assert isinstance(acceptor, _Acceptor)
            if wanted:
                acceptor.begin()
            else:
                acceptor.rest()

    def offers(self) -> tuple[ListenerOffer, ...]:
        """Return an offer for each listener in force."""
        return tuple(
            ListenerOffer(text, place.listener.route, place.listener.address)
            for (text, _, _), place in self._in_force.items()
        )


class PassedConnections:
    """Dispatches the connections that a worker receives to their listeners."""

    def __init__(self) -> None:
        self._served: dict[ListenAddress, Accept] = {}
        self.offers: Sequence[ListenerOffer] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, text: str, owner: str | None, accept: Accept) -> Listener:
        """Serve one of the offered listeners that is still unserved. Raises KeyrelayError."""
        for offer in self.offers:
            # With port 0 several listeners may have the same text.
            if (offer.text, offer.owner) == (text, owner) and offer.address not in self._served:
                self._served[offer.address] = accept
                return Listener(offer.address, owner, _Served(self._served, offer.address))
        raise KeyrelayError(f"the supervisor does not listen at {text}")

    def arrived(self, address: ListenAddress, connection: socket.socket) -> None:
        """Serve a connection, from the next iteration of the event loop on.

        Closes it if its listener has been removed.
        """
        accept = self._served.get(address)
        if accept is None:
            connection.close()
            return
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        # Cancelling within ``connect_accepted_socket`` leaves a transport of uvloop's that never
        # calls ``connection_lost``, so the connection is always handed over to the end.
        task = loop.create_task(_hand_over(loop, accept, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _hand_over(
    loop: asyncio.AbstractEventLoop, accept: Accept, connection: socket.socket
) -> None:
    await loop.connect_accepted_socket(accept, connection)


@dataclass(frozen=True, slots=True)
class _Served:
    """Removes the entry that ``PassedConnections.serve`` added, on ``close``."""

    served: dict[ListenAddress, Accept]
    address: ListenAddress

    def close(self) -> None:
        self.served.pop(self.address, None)


class GivenPlaces(ListenerSet):
    """A worker's listeners."""

    def __init__(
        self,
        make_handler: Callable[[ActiveConfig], RequestHandler],
        accept: Callable[[RequestHandler], ClientConnection],
        arrivals: PassedConnections,
    ) -> None:
        super().__init__(make_handler, accept)
        self._arrivals = arrivals

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        return self._arrivals.serve(text, owner, accept)
