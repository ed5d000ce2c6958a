"""A network in between, on loopback: `-m benchmarks.distance ORIGIN_PORT ONE_WAY_SECONDS`.

Prints its port; what comes in on either side goes out on the other one after ONE_WAY_SECONDS, in
order. Loopback accepts a connection at once where a network takes a round trip, so a client's
first bytes are held for one more round trip: they arrive when they would have, had the client
waited for its connection. Serves until its input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast


class Lane:
    """One direction of a connection. None stands for its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._way: deque[tuple[float, bytes | None]] = deque()
        self._sink: asyncio.Transport | None = None

    def send(self, data: bytes | None, *, earliest: float = 0.0) -> None:
        """Put on the way; it arrives not before ``earliest`` (time of the loop)."""
        self._way.append((max(self._loop.time() + self._seconds, earliest), data))
        if len(self._way) == 1:
            self._loop.call_at(self._way[0][0], self._arrive)

    def lead_to(self, sink: asyncio.Transport) -> None:
        """Where what arrives is written; until then it waits."""
        self._sink = sink
        self._arrive()

    def _arrive(self) -> None:
        if self._sink is None:
            return
        while self._way:
            due, data = self._way[0]
            if due > self._loop.time():
                self._loop.call_at(due, self._arrive)
                return
            self._way.popleft()
            if data is None:
                self._sink.close()
            elif not self._sink.is_closing():
                self._sink.write(data)


class End(asyncio.Protocol):
    """One side of a connection: puts what it gets on its lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.earliest = 0.0

    def data_received(self, data: bytes) -> None:
        self.lane.send(data, earliest=self.earliest)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lane.send(None)


class Client(End):
    """The side that connects; the other side is dialled at once."""

    def __init__(self, port: int, one_way: float, tasks: set[asyncio.Task[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(Lane(self._loop, one_way))
        self._port = port
        self._one_way = one_way
        self._tasks = tasks
        self._back = Lane(self._loop, one_way)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A round trip for the connection, then the way there.
        self.earliest = self._loop.time() + 3 * self._one_way
        self._back.lead_to(cast(asyncio.Transport, transport))
        task = self._loop.create_task(self._dial())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self) -> None:
        far, _ = await self._loop.create_connection(
            lambda: End(self._back), "127.0.0.1", self._port
        )
        self.lane.lead_to(far)


async def main() -> None:
    port, one_way = int(sys.argv[1]), float(sys.argv[2])
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    server = await loop.create_server(lambda: Client(port, one_way, tasks), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Its end is the end of whoever started this.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
