"""Tokens in real time: traffic goes on while token after token ends, and none is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter

import pytest
from websockets.exceptions import InvalidStatus

from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator
from tests.emulators.hume import TOKEN_PATH
from tests.support.keyrelay import RawClient, Running, preset_keyrelay

LIFETIME = 3
GET = b"GET /hume/v0/evi/configs HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = (
    b"POST /hume/v0/tts/voices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Connection: close\r\n\r\nhello"
)
# A pause between two requests of one client (seconds), so that the machine has room for others.
PAUSE = 0.005


async def _keep_asking(running: Running, until: float, seen: Counter[str]) -> None:
    """One connection, request after request."""
    async with await RawClient.to(running.port) as one:
        while time.monotonic() < until:
            one.send(GET)
            seen[f"HTTP {(await one.answer())[0]}"] += 1
            await asyncio.sleep(PAUSE)


async def _keep_posting(running: Running, until: float, seen: Counter[str]) -> None:
    """A connection for each request."""
    while time.monotonic() < until:
        async with await RawClient.to(running.port) as one:
            one.send(POST)
            seen[f"POST {(await one.answer())[0]}"] += 1
        await asyncio.sleep(PAUSE)


async def _keep_opening(running: Running, until: float, seen: Counter[str]) -> None:
    """A socket after the other."""
    while time.monotonic() < until:
        try:
            async with running.websocket("/hume/v0/evi/chat") as socket:
                assert json.loads(await socket.recv())["type"] == "chat_metadata"
            seen["WebSocket 101"] += 1
        except InvalidStatus as refused:
            seen[f"WebSocket {refused.response.status_code}"] += 1
        await asyncio.sleep(PAUSE)


async def traffic(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[Counter[str], int]:
    """Requests and sockets for so long, on tokens of three seconds; answers, and tokens used."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    monkeypatch.setenv("HUME_SECRET_KEY", HUME_SECRET)
    seen: Counter[str] = Counter()
    async with HumeEmulator(strategy="token", lifetime_seconds=LIFETIME, clock=time.time) as hume:
        routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
        async with preset_keyrelay(routes) as running:
            end = time.monotonic() + seconds
            async with asyncio.TaskGroup() as tasks:
                for keep in (_keep_asking, _keep_asking, _keep_posting, _keep_opening):
                    tasks.create_task(keep(running, end, seen))
        assert hume.faults == []
        calls = sum(one.path == TOKEN_PATH for one in hume.requests)
        assert calls == len(hume.fetched)
        return seen, calls


def check(seen: Counter[str], calls: int, seconds: float) -> None:
    """Every response is the expected one, on as many tokens as the time needs."""
    assert seen.keys() == {"HTTP 200", "POST 200", "WebSocket 101"}
    assert min(seen.values()) > 10 * seconds
    assert seconds / LIFETIME <= calls <= seconds / (LIFETIME * 0.7) + 2


@pytest.mark.seconds
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_tokens_of_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight seconds of traffic: no client sees a 401, nor does keyrelay."""
    check(*await traffic(monkeypatch, 8), 8)


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_tokens_of_three_seconds_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for a minute. With ``--log-cli-level INFO`` the figures are shown."""
    seen, calls = await traffic(monkeypatch, 60)
    logging.getLogger(__name__).info("%s on %d tokens", dict(seen), calls)
    check(seen, calls, 60)
