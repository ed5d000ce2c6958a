"""Pass the connections that the supervisor accepts to workers.

The next worker in turn gets a connection, among those with the fewest unconfirmed ones. A worker
confirms when it owns the connection and before it reads from it; until then the supervisor keeps a
descriptor, so that a worker which dies, or may open no more descriptors, costs no connection. A
worker that does not confirm, because it is stopped or busy, gets no further ones.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from functools import partial

from proxy.http.address import ListenAddress
from proxy.process.ipc import ChannelClosed, Message
from proxy.process.worker_process import WorkerProcess

# Delay before connections that no worker has taken are offered again (seconds).
_AGAIN_SECONDS = 0.1
_FULL = (
    "Workers may open no more descriptors, so that new connections wait. Raise their limit: "
    "LimitNOFILE= for systemd, --ulimit nofile= for containers, ulimit -n in a shell."
)


@dataclass(slots=True, eq=False)
class _Accepted:
    """A connection that no worker has confirmed. ``refused``: those that could not take it."""

    address: ListenAddress
    connection: socket.socket
    refused: set[WorkerProcess] = field(default_factory=set)


class Dispatcher:
    """Passes connections to ``workers()``.

    holding  called when connections begin or cease to wait for a worker; see ``held``
    warn     receives messages for the operator
    """

    def __init__(
        self,
        workers: Callable[[], Iterable[WorkerProcess]],
        *,
        holding: Callable[[], object],
        warn: Callable[[str], object],
    ) -> None:
        self._workers = workers
        self._holding = holding
        self._warn = warn
        self._last = -1
        self._open = True
        self._timer: asyncio.TimerHandle | None = None
        self.held: list[_Accepted] = []

    def pass_on(self, address: ListenAddress, connection: socket.socket) -> None:
        """Pass a connection, accepted at ``address``, to a worker. Owns the socket."""
        self._offer(_Accepted(address, connection))

    def close(self) -> None:
        """Close the connections that no worker has taken, and those that follow. Idempotent."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        for accepted in self.held:
            accepted.connection.close()
        self.held.clear()

    def _offer(self, accepted: _Accepted) -> None:
        if not self._open:
            accepted.connection.close()
            return
        while (worker := self._next(accepted.refused)) is not None:
            message = {"at": astuple(accepted.address)}
            try:
                reply = worker.offer(message, accepted.connection.fileno())
            except (ChannelClosed, OSError):
                accepted.refused.add(worker)
                continue
            self._last = worker.index
            reply.add_done_callback(partial(self._replied, accepted, worker))
            return
        self._hold(accepted)

    def _next(self, refused: set[WorkerProcess]) -> WorkerProcess | None:
        """The next worker in turn with the fewest unconfirmed connections."""
        return min(
            (one for one in self._workers() if not (one in refused or one.gone or one.stuck)),
            key=lambda one: (one.unconfirmed, one.index <= self._last, one.index),
            default=None,
        )

    def _replied(
        self, accepted: _Accepted, worker: WorkerProcess, reply: asyncio.Future[Message]
    ) -> None:
        if reply.exception() is None and reply.result().get("owned"):
            accepted.connection.close()
            if self.held:
                self._again()
            return
        if not worker.gone:
            self._warn(_FULL)
        accepted.refused.add(worker)
        self._offer(accepted)

    def _hold(self, accepted: _Accepted) -> None:
        self.held.append(accepted)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._again)
            self._holding()

    def _again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self.held = self.held, []
        for accepted in held:
            accepted.refused.clear()
            self._offer(accepted)
        if not self.held:
            self._holding()
