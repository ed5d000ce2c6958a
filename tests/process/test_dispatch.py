"""Which worker gets a connection: the workers' ends of their channels are in this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.http.address import ListenAddress
from proxy.process.dispatch import Dispatcher
from proxy.process.ipc import Channel, Message
from proxy.process.worker_process import WorkerProcess
from tests.support.keyrelay import both_loops, until

pytestmark = both_loops

HERE = ListenAddress("127.0.0.1", 4711, None)


class Worker:
    """A worker's end. ``full``: it refuses connections; ``silent``: it does not reply to them."""

    def __init__(self, index: int, process: asyncio.subprocess.Process) -> None:
        ours, theirs = socket.socketpair()
        self.seen = WorkerProcess(index, 2, process, Channel(ours, self._nothing))
        self.channel = Channel(theirs, self._answer)
        self.got: list[int] = []
        self.full = self.silent = False

    async def _nothing(self, _kind: str, _message: Message, _descriptors: list[int]) -> Message:
        return {}

    async def _answer(self, kind: str, message: Message, descriptors: list[int]) -> Message:
        assert (kind, ListenAddress(*message["at"])) == ("connection", HERE)
        if self.silent:
            self.got += descriptors
            await asyncio.Event().wait()
        if self.full:
            os.close(descriptors[0])
            return {"owned": False}
        self.got += descriptors
        return {"owned": True}


class Stage:
    """A dispatcher with two workers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.workers = [Worker(0, process), Worker(1, process)]
        self.warnings: list[str] = []
        self.waits: list[bool] = []
        self.clients: list[socket.socket] = []
        self.dispatcher = Dispatcher(
            lambda: [one.seen for one in self.workers],
            holding=lambda: self.waits.append(bool(self.dispatcher.held)),
            warn=self.warnings.append,
        )

    def connect(self, count: int) -> None:
        for _ in range(count):
            client, accepted = socket.socketpair()
            client.setblocking(False)
            self.clients.append(client)
            self.dispatcher.pass_on(HERE, accepted)

    @property
    def got(self) -> list[int]:
        return [len(one.got) for one in self.workers]


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    one = Stage(process)
    try:
        yield one
    finally:
        one.dispatcher.close()
        process.kill()
        for worker in one.workers:
            await worker.seen.ended()
            worker.channel.close()
            for descriptor in worker.got:
                os.close(descriptor)
        for client in one.clients:
            client.close()
        await asyncio.sleep(0)


async def test_connections_are_spread_evenly() -> None:
    """One after another and many at once, in turn; none waits without need."""
    async with stage() as there:
        for _ in range(4):
            there.connect(1)
            await until(lambda: sum(there.got) == len(there.clients))
        assert there.got == [2, 2]
        there.connect(12)
        await until(lambda: there.got == [8, 8])
        assert there.waits == []


async def test_a_full_worker_refuses() -> None:
    """Another one gets the connection; if all are full it waits until one is not."""
    async with stage() as there:
        first, second = there.workers
        first.full = True
        there.connect(5)
        await until(lambda: there.got == [0, 5])
        second.full = True
        there.connect(1)
        await until(lambda: there.waits)
        assert there.waits == [True]
        first.full = False
        await until(lambda: there.got == [1, 5])
        await until(lambda: there.waits == [True, False])
        assert all("Workers may open no more descriptors" in one for one in there.warnings)


async def test_a_worker_that_does_not_confirm() -> None:
    """It gets eight connections of a burst; the other one gets all others, and later ones."""
    async with stage() as there:
        there.workers[0].silent = True
        there.connect(40)
        await until(lambda: there.got == [8, 32])
        there.connect(3)
        await until(lambda: there.got == [8, 35])
        assert there.warnings == []


async def test_a_worker_that_ends_before_it_confirms() -> None:
    """Its connections go to the other one, and their clients notice nothing."""
    async with stage() as there:
        first, _ = there.workers
        first.silent = True
        there.connect(4)
        await until(lambda: there.got == [2, 2])
        first.channel.close()
        await until(lambda: there.got == [2, 4])
        assert there.warnings == []


async def test_the_end_closes_what_waits() -> None:
    """A connection that no worker takes is closed at the end, and so are later ones."""
    async with stage() as there:
        there.workers[0].full = there.workers[1].full = True
        there.connect(1)
        await until(lambda: there.waits)
        there.dispatcher.close()
        there.dispatcher.close()
        there.connect(1)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            assert [await loop.sock_recv(one, 1) for one in there.clients] == [b"", b""]
