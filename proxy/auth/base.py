"""What every strategy is: one way a provider authenticates.

A strategy answers three questions, each on its own: does it serve this request, what goes onto the
request (an Injection), and is that ready now or does it have to be waited for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..outgoing import Injection
from ..patterns import PatternSet


class Strategy(ABC):
    """One way a provider authenticates, for the paths that it serves.

    name   as in the configuration; shown, logged
    paths  patterns of what follows the route's prefix; None for all
    """

    __slots__ = ("_paths", "name")

    def __init__(self, name: str, paths: PatternSet | None) -> None:
        self.name = name
        self._paths = paths

    def serves(self, method: str, path: str, *, websocket: bool) -> bool:
        """Whether a request is this strategy's. ``path`` is raw, from the route's prefix on."""
        return self._carries(websocket=websocket) and (
            self._paths is None or self._paths.matches(method, path)
        )

    @abstractmethod
    def _carries(self, *, websocket: bool) -> bool:
        """Whether there is a placement for this kind of request at all."""

    @abstractmethod
    def ready(self, *, websocket: bool) -> Injection | None:
        """The credential in its placements if it is at hand; None if ``obtain`` must be awaited."""

    @abstractmethod
    async def obtain(self, *, websocket: bool) -> Injection:
        """The credential in its placements, waited for.

        Raises Refusal if there is none to be had. Cancelling harms no other waiter.
        """
