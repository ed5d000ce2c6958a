"""Messages between two processes: both ends are in this one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.process.ipc import Answer, Channel, ChannelClosed, Message
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
    """More than the sockets hold, in both directions: nobody waits for the other for ever."""
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
    """Who waits for an answer gets an error, and so does who asks later; descriptors are closed."""
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
    """Who asked does not wait for ever; nobody learns what the message said."""

    async def fail(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
        raise RuntimeError("dummy-canary")

    with caplog.at_level(logging.ERROR, "asyncio"):
        async with pair(fail) as (first, _):
            with pytest.raises(ChannelClosed, match="could not answer"):
                await first.ask("token", {"value": "dummy-canary"})
    assert "a message of kind token failed (RuntimeError)" in caplog.text
    assert "dummy-canary" not in caplog.text


async def test_a_question_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """A late answer harms nobody."""
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
