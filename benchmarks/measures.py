"""How each figure is taken, once, for one proxy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from benchmarks import sending
from benchmarks.calling import AnswerReader, Caller, FrameReader, Tally, callers, measured
from benchmarks.provider import frame
from benchmarks.stage import Stage, Standing

MIB = 1024 * 1024
_TARGET = "/v1/speech/voices?page_size=20&language=en"
_SETTLE_SECONDS = 0.4
_WARM_UP_SOCKETS = 100
_SLICES = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each: a whole run, or a quick one.

    seconds       of each figure of requests
    events        server-sent events in each of some slices
    openings      WebSockets opened to see what that costs
    mib           of each large body
    sockets       idle WebSockets, ascending
    rare_rounds   rounds of the figures that start processes of their own for thousands of sockets
    """

    rounds: int = 5
    seconds: float = 0.5
    events: int = 60
    openings: int = 300
    mib: int = 256
    sockets: tuple[int, ...] = (1000, 5000)
    rare_rounds: int = 2


QUICK = Scale(2, 0.2, 30, 100, 64, (1000,), 1)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is. ``proxy`` runs; a figure that starts one of its own needs its name only."""

    stage: Stage
    proxy: Standing
    scale: Scale


async def _requests(
    at: tuple[int, str], proxy: Standing, connections: int, seconds: float, *, body: bool = False
) -> Tally:
    port, target = at
    message = sending.post(port, target) if body else sending.get(port, target)
    async with callers(port, connections) as opened:
        return await measured(opened, message, AnswerReader, seconds, proxy.cpu)


async def get(turn: Turn) -> dict[str, float]:
    at = turn.proxy.place("api", _TARGET)
    return {
        f"get_{count}": (await _requests(at, turn.proxy, count, turn.scale.seconds)).cpu_micros
        for count in (1, 32, 256)
    }


async def post(turn: Turn) -> dict[str, float]:
    at = turn.proxy.place("api", "/v1/speech")
    return {
        "post_32": (await _requests(at, turn.proxy, 32, turn.scale.seconds, body=True)).cpu_micros
    }


async def tls(turn: Turn) -> dict[str, float]:
    at = turn.proxy.place("tls", _TARGET)
    return {"tls_32": (await _requests(at, turn.proxy, 32, turn.scale.seconds)).cpu_micros}


async def latency(turn: Turn) -> dict[str, float]:
    """A slice through the proxy follows each straight one, so that both had the same weather."""
    straight, through = Tally(timed=True), Tally(timed=True)
    for _ in range(_SLICES):
        await _one_by_one(turn.stage.direct, turn.scale.seconds / _SLICES, straight)
        await _one_by_one(turn.proxy, turn.scale.seconds / _SLICES, through)
    return {
        "latency_p50": percentile(through.waits, 50) - percentile(straight.waits, 50),
        "latency_p99": percentile(through.waits, 99) - percentile(straight.waits, 99),
        "latency_direct": percentile(straight.waits, 50),
    }


async def _one_by_one(proxy: Standing, seconds: float, tally: Tally) -> None:
    port, target = proxy.place("api", _TARGET)
    message = sending.get(port, target)
    async with callers(port, 1) as (caller,):
        await caller.ask(message, AnswerReader())
        tally.stopping = False
        asyncio.get_running_loop().call_later(seconds, setattr, tally, "stopping", True)
        await caller.repeat(message, AnswerReader(), tally)


def percentile(values: list[float], percent: int) -> float:
    """The value below which that part of all lies."""
    return sorted(values)[len(values) * percent // 100]


async def websocket(turn: Turn) -> dict[str, float]:
    port, target = turn.proxy.place("live", "/socket")
    opened: list[Caller] = []
    costs = {}
    try:
        await sending.open_sockets(port, target, opened, 32)
        for key, size in (("ws_100", 100), ("ws_20k", 20_000)):
            length = len(frame(size))
            tally = await measured(
                opened,
                sending.message(size),
                partial(FrameReader, length),
                turn.scale.seconds,
                turn.proxy.cpu,
            )
            costs[key] = tally.cpu_micros
    finally:
        _abort(opened)
    return costs


async def opening(turn: Turn) -> dict[str, float]:
    port, target = turn.proxy.place("live", "/socket")
    opened: list[Caller] = []
    count = turn.scale.openings
    try:
        began = turn.proxy.cpu()
        await sending.open_sockets(port, target, opened, count)
        middle = turn.proxy.cpu()
        await asyncio.gather(*map(sending.close_socket, opened))
        await asyncio.sleep(_SETTLE_SECONDS)
        ended = turn.proxy.cpu()
    finally:
        _abort(opened)
    return {"ws_open": (middle - began) / count * 1e6, "ws_session": (ended - began) / count * 1e6}


async def bodies(turn: Turn) -> dict[str, float]:
    size = turn.scale.mib * MIB
    port, up = turn.proxy.place("live", "/up")
    _, down = turn.proxy.place("live", f"/down/{size}")
    peak = turn.proxy.resident()
    watching = True

    async def watch() -> None:
        nonlocal peak
        while watching:
            peak = max(peak, turn.proxy.resident())
            await asyncio.sleep(0.02)

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        began = turn.proxy.cpu()
        await sending.download(port, down)
        middle = turn.proxy.cpu()
        await sending.upload(port, up, size)
        ended = turn.proxy.cpu()
    finally:
        watching = False
        await watcher
    gib = turn.scale.mib / 1024
    return {
        "down": (middle - began) / gib,
        "up": (ended - middle) / gib,
        "peak": float(peak),
    }


async def events(turn: Turn) -> dict[str, float]:
    straight: list[float] = []
    through: list[float] = []
    for _ in range(_SLICES):
        for proxy, waits in ((turn.stage.direct, straight), (turn.proxy, through)):
            port, target = proxy.place("live", f"/events/{turn.scale.events}")
            waits += await sending.events(port, target, turn.scale.events)
    return {
        "events_p50": percentile(through, 50) - percentile(straight, 50),
        "events_direct": percentile(straight, 50),
    }


async def idle_sockets(turn: Turn) -> dict[str, float]:
    found = {}
    opened: list[Caller] = []
    with turn.stage.proxy(turn.proxy.name, clients=turn.scale.sockets[-1] + 400) as own:
        port, target = own.place("live", "/socket")
        try:
            # What the first ones cost once is not counted.
            await sending.open_sockets(port, target, opened, _WARM_UP_SOCKETS)
            await asyncio.sleep(_SETTLE_SECONDS)
            before = own.resident()
            for count in turn.scale.sockets:
                more = _WARM_UP_SOCKETS + count - len(opened)
                await sending.open_sockets(port, target, opened, more)
                await asyncio.sleep(_SETTLE_SECONDS)
                found[f"socket_{count}"] = (own.resident() - before) / count
        finally:
            _abort(opened)
    return found


async def resting(turn: Turn) -> dict[str, float]:
    with turn.stage.resting(turn.proxy.name) as own:
        await asyncio.sleep(_SETTLE_SECONDS)
        return {"resting": float(own.resident())}


async def start(turn: Turn) -> dict[str, float]:
    with turn.stage.proxy(turn.proxy.name) as own:
        return {"start": own.seconds}


def _abort(opened: list[Caller]) -> None:
    for caller in opened:
        caller.transport.abort()


async def warm_up(proxy: Standing) -> None:
    """Half a second of work, so that compilers and allocators have begun."""
    await _requests(proxy.place("api", _TARGET), proxy, 32, 0.5)
