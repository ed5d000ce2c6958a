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

from proxy.app.listeners import ListenerSet, ServeTls, without_tls
from proxy.errors import KeyrelayError
from proxy.forwarding.handler import ActiveConfig, RequestHandler
from proxy.http.address import ListenAddress
from proxy.server.acceptor import Acceptor, Pass
from proxy.server.connection import ClientConnection
from proxy.server.listener import Accept, Listener, ServeSocket, open_at


@dataclass(frozen=True, slots=True)
class ListenerOffer:
    """A listener that the supervisor has opened.

    text, owner  the address as configured, and the route it belongs to; None for all routes
    address      the actual address, with the port that was assigned
    """

    text: str
    owner: str | None
    address: ListenAddress


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
        acceptor = Acceptor(opened.address, opened.sock, self._pass_on)
        return Listener(opened.address, owner, acceptor, opened.remove)

    def accept(self, wanted: bool) -> None:
        """Accept connections if ``wanted``, else pause: there is no worker to pass them to."""
        for listener in self.listeners:
            acceptor = listener.server
            assert isinstance(acceptor, Acceptor)
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
        if isinstance(accept, ServeSocket):
            accept.serve(connection)
            return
        loop = asyncio.get_running_loop()
        # Cancelling within ``connect_accepted_socket`` leaves a transport of uvloop's that never
        # calls ``connection_lost``, so the connection is always handed over to the end.
        task = loop.create_task(_hand_over(loop, accept, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _hand_over(
    loop: asyncio.AbstractEventLoop,
    accept: Callable[[], asyncio.Protocol],
    connection: socket.socket,
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
        serve_tls: ServeTls = without_tls,
    ) -> None:
        super().__init__(make_handler, accept, serve_tls)
        self._arrivals = arrivals

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        return self._arrivals.serve(text, owner, accept)
