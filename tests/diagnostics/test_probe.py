"""One request by keyrelay itself: the head of the answer, or why there is none."""

from __future__ import annotations

import asyncio

import pytest

from proxy.diagnostics.probe import ask, connect
from proxy.errors import UpstreamFailure
from proxy.http.address import parse_upstream
from proxy.upstream.dialer import Dialer
from tests.support.keyrelay import answering, both_loops, holding, raw_provider, read_head, until

REQUEST = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def dialer(url: str) -> Dialer:
    return Dialer(parse_upstream(url)[0], connect_seconds=5)


@both_loops
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nand the rest never comes",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_the_head_is_enough(answer: bytes) -> None:
    """The body is not waited for, and the connection is closed at once."""
    closed = asyncio.Event()

    async with raw_provider(holding(answer, closed)) as provider:
        head = await ask(await connect(dialer(provider.url)), REQUEST, head_only=False)
        assert head.code == 200
        async with asyncio.timeout(5):
            await closed.wait()


async def test_the_answer_to_a_head_has_no_body() -> None:
    """Whatever length it says."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with raw_provider(answering(answer)) as provider:
        connection = await connect(dialer(provider.url))
        assert (await ask(connection, REQUEST, head_only=True)).code == 200


async def test_a_provider_that_breaks_off() -> None:
    """Its failure is the caller's; nothing stays open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with raw_provider(serve) as provider:
        with pytest.raises(UpstreamFailure, match="closed the connection without a response"):
            await ask(await connect(dialer(provider.url)), REQUEST, head_only=False)


async def test_cancelling_closes_the_connection() -> None:
    """A cancelled waiter leaves nothing behind."""
    ended: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        ended.append(False)
        try:
            await reader.read()
        except ConnectionResetError:
            assert ended  # an abort may be a reset
        ended.append(True)

    async with raw_provider(serve) as provider:
        connection = await connect(dialer(provider.url))
        asking = asyncio.get_running_loop().create_task(ask(connection, REQUEST, head_only=False))
        await until(lambda: ended)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: ended == [False, True])
