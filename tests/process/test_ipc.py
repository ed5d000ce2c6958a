"""Messages between two processes: both ends are in this one."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.process.ipc import Answer, Channel, ChannelClosed, DescriptorsLost, Message
from tests.support.keyrelay import both_loops, until

pytestmark = both_loops


async def nothing(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
    return {}


async def echo(kind: str, message: Message, descriptors: list[int]) -> Message:
    for one in descriptors:
        os.close(one)
    return {"kind": kind, "descriptors": len(descriptors), **message}


@asynccontextmanager
async def pair(answer: Answer, other: Answer = nothing) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends; ``answer`` is what the second does with what the first sends."""
    here, there = socket.socketpair()
    first, second = Channel(here, other), Channel(there, answer)
    try:
        yield first, second
    finally:
        first.close()
        second.close()
        # Cancelled handlers get a turn to end.
        await asyncio.sleep(0)


async def test_questions_are_answered_in_any_order() -> None:
    """Each gets its own answer, though a later one may come first; both sides may ask."""
    gate = asyncio.Event()

    async def slow_first(_kind: str, message: Message, _descriptors: list[int]) -> Message:
        if message["number"] == 0:
            await gate.wait()
        else:
            gate.set()
        return message

    async with pair(slow_first, echo) as (first, second):
        asked = (first.ask("x", {"number": number}) for number in range(20))
        assert await asyncio.gather(*asked) == [{"number": number} for number in range(20)]
        assert await second.ask("y", {"a": "ü"}) == {"kind": "y", "descriptors": 0, "a": "ü"}


async def test_large_messages_go_both_ways_at_once() -> None:
    """More than the sockets hold, in both directions: neither side waits for the other for ever."""
    text = "x" * 3_000_000
    async with pair(echo, echo) as (first, second), asyncio.timeout(10):
        answers = await asyncio.gather(first.ask("a", {"t": text}), second.ask("b", {"t": text}))
        assert all(answer["t"] == text for answer in answers)


async def test_descriptors_go_along(tmp_path: Any) -> None:
    """They arrive in order, with their own message, and are nobody's by inheritance; the sender may
    close his at once.
    """
    got: list[bytes] = []

    async def read(_kind: str, message: Message, descriptors: list[int]) -> Message:
        for one in descriptors:
            assert not os.get_inheritable(one)
            got.append(os.read(one, 100))
            os.close(one)
        return message

    async with pair(read) as (first, _):
        for turn in range(3):
            descriptors = []
            for number in range(3):
                path = tmp_path / f"{turn}{number}"
                path.write_text(path.name)
                descriptors.append(os.open(path, os.O_RDONLY))
            first.send("files", {"fill": "x" * 300_000}, descriptors)
            for one in descriptors:
                os.close(one)
        await first.ask("end", {})
    assert got == [b"%d%d" % (turn, number) for turn in range(3) for number in range(3)]


async def test_the_end_is_noticed() -> None:
    """A waiting call gets an error, and so does a later one; descriptors are closed."""
    waiting = asyncio.Event()

    async def never(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
        waiting.set()
        await asyncio.Event().wait()
        return {}

    async with pair(never) as (first, second):
        question = asyncio.get_running_loop().create_task(first.ask("x", {}))
        await waiting.wait()
        second.close()
        second.close()
        with pytest.raises(ChannelClosed):
            await question
        assert first.closed.done()
        with pytest.raises(ChannelClosed):
            await first.ask("x", {})
        with pytest.raises(ChannelClosed):
            first.send("x", {})


async def test_what_is_not_read_any_more_is_given_up() -> None:
    """A message that is half on its way when the other side goes leaves no descriptor open."""
    ours, theirs = os.pipe()
    here, there = socket.socketpair()
    with there:
        channel = Channel(here, nothing)
        channel.send("x", {"fill": "x" * 3_000_000})
        channel.send("y", {}, [ours])
        os.close(ours)
        os.write(theirs, b"the copy is there to read it")
    await until(channel.closed.done)
    with pytest.raises(BrokenPipeError):
        os.write(theirs, b"x")
    os.close(theirs)


async def test_an_answer_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The caller does not wait for ever; the text of the message is not repeated."""

    async def fail(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
        raise RuntimeError("dummy-canary")

    with caplog.at_level(logging.ERROR, "asyncio"):
        async with pair(fail) as (first, _):
            with pytest.raises(ChannelClosed, match="could not answer"):
                await first.ask("token", {"value": "dummy-canary"})
    assert "a message of kind token failed (RuntimeError)" in caplog.text
    assert "dummy-canary" not in caplog.text


async def test_a_question_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """A late answer does no harm."""
    gate = asyncio.Event()

    async def late(_kind: str, message: Message, _descriptors: list[int]) -> Message:
        await gate.wait()
        return message

    async with pair(late) as (first, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await first.ask("x", {})
        gate.set()
        assert await first.ask("x", {"a": 1}) == {"a": 1}
    assert not caplog.records


def descriptors_open() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


@contextmanager
def descriptor_limit(more: int) -> Iterator[None]:
    """This process may open so many more descriptors, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free: list[int] = []
    while len(free) <= more:
        free.append(os.open(os.devnull, os.O_RDONLY))
    for one in free:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("more", [0, 1])
async def test_descriptors_that_get_lost(
    more: int, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit of open descriptors a message is not handled with too few of them, the sender of
    a request gets an error, and later messages have their own descriptors.
    """
    got: list[bytes] = []

    async def read(_kind: str, _message: Message, descriptors: list[int]) -> Message:
        for one in descriptors:
            got.append(os.read(one, 100))
            os.close(one)
        return {}

    def opened(*names: str) -> list[int]:
        for name in names:
            (tmp_path / name).write_text(name)
        return [os.open(tmp_path / name, os.O_RDONLY) for name in names]

    files = opened("a", "b"), opened("c", "d"), opened("e", "f")
    before = descriptors_open()
    async with pair(read) as (first, _):
        with descriptor_limit(more):
            with pytest.raises(DescriptorsLost):
                await first.ask("files", {}, files[0])
            first.send("files", {}, files[1])
            # No descriptors, and so nothing that could be lost.
            await first.ask("end", {})
        await first.ask("files", {}, files[2])
    assert descriptors_open() == before
    for one in (*files[0], *files[1], *files[2]):
        os.close(one)
    assert got == [b"e", b"f"]
    assert "a message of kind files lost its descriptors" in caplog.text


async def test_descriptors_of_a_handler_that_never_began() -> None:
    """A channel that is closed in the iteration in which a message arrives leaves none open."""
    reading, writing = os.pipe()
    async with pair(nothing) as (first, second):
        first.send("x", {}, [writing])
        os.close(writing)
        second._read()
        second.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.set_blocking(reading, False)
        assert os.read(reading, 1) == b""
    os.close(reading)


async def test_a_message_that_cannot_wait_with_its_descriptors(tmp_path: Any) -> None:
    """If this process may open no duplicates for a message that has to wait, the caller gets the
    error, and the channel still works.
    """
    file = os.open(os.devnull, os.O_RDONLY)
    async with pair(echo) as (first, _):
        first.send("fill", {"fill": "x" * 3_000_000})
        with descriptor_limit(0), pytest.raises(OSError, match="Too many open files"):
            first.send("x", {}, [file])
        assert await first.ask("y", {}, [file]) == {"kind": "y", "descriptors": 1}
    os.close(file)
