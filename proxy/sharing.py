"""Places at which several processes accept: the supervisor opens sockets and gives them to workers.

All of them accept from one queue. So whoever is free takes the next connection, what waits is not
lost when a worker ends, and no other program can join, as it could with SO_REUSEPORT.
"""

from __future__ import annotations

import asyncio
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .door import ClientConnection
from .errors import KeyrelayError
from .gateway import Gateway, InForce
from .listening import Listener, Opened, open_at, serve_at
from .origins import ListenAddress
from .places import Place, Places, _nothing_in_force

Accept = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Offer:
    """A socket that listens; its descriptor goes along.

    text, owner  the address as it is written, and the route that it is for; None for all
    address      where it really is
    """

    text: str
    owner: str | None
    address: ListenAddress


class _PartedPlaces(Places):
    """Places whose listeners are had in another way."""

    @abstractmethod
    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        """Raises KeyrelayError."""

    async def _open(self, text: str, owner: str | None) -> Place:
        gateway = self._make_gateway(_nothing_in_force())
        listener = await self._listen(text, lambda: self._accept(gateway), owner)
        return Place(listener, gateway)


class OpenPlaces(_PartedPlaces):
    """The supervisor's: sockets that listen, from which it accepts nothing itself."""

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        opened = open_at(text)
        return Listener(opened.address, owner, opened.sock, opened.remove)

    def offers(self) -> Iterator[tuple[Offer, int]]:
        """Each socket with its descriptor, which stays the listener's."""
        for (text, _, _), place in self._in_force.items():
            listener = place.listener
            assert isinstance(listener.server, socket.socket)
            offer = Offer(text, listener.route, listener.address)
            yield offer, listener.server.fileno()


class Offered:
    """Sockets that were offered to a worker, until they are taken or closed."""

    def __init__(self) -> None:
        self._offered: list[tuple[Offer, int]] = []

    def put(self, offers: Sequence[Offer], descriptors: Sequence[int]) -> None:
        """Those of one configuration, which are this object's from now on."""
        self.close()
        self._offered = list(zip(offers, descriptors, strict=True))

    def take(self, text: str, owner: str | None, but: set[ListenAddress]) -> Opened:
        """The one for that place, at none of the addresses ``but``. Raises KeyrelayError."""
        for one in self._offered:
            offer, descriptor = one
            if (offer.text, offer.owner) == (text, owner) and offer.address not in but:
                self._offered.remove(one)
                return Opened(offer.address, socket.socket(fileno=descriptor))
        raise KeyrelayError(f"the supervisor has opened no socket at {text}")

    def close(self) -> None:
        """Close those that were not taken."""
        for _, descriptor in self._offered:
            os.close(descriptor)
        self._offered = []


class GivenPlaces(_PartedPlaces):
    """A worker's: it accepts at what it was offered."""

    def __init__(
        self,
        make_gateway: Callable[[InForce], Gateway],
        accept: Callable[[Gateway], ClientConnection],
        offered: Offered,
    ) -> None:
        super().__init__(make_gateway, accept)
        self._offered = offered

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        # Where the system takes the port, one place's text is another's too.
        mine = {listener.address for listener in self.listeners}
        return await serve_at(self._offered.take(text, owner, mine), accept, owner)
