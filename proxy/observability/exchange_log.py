"""What happens: exchanges that are open, the last that ended, and an access-log line for each.

Never a secret, never a body, no query, no header. Whoever wants to know of exchanges that ended
(the access log, counters, traces) is a *sink*: it gets them in batches, off the path of the
requests, because a logging call for each costs as much as forwarding it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted

# How many exchanges are remembered, and how long one that ended may wait for the sinks (seconds).
_REMEMBERED = 1000
_FLUSH_SECONDS = 0.1

CLIENT_LEFT = "client-left"


@dataclass(slots=True, eq=False, weakref_slot=True)
class ExchangeRecord:
    """One request and its answer, or one WebSocket session. Compared and hashed by identity.

    started       seconds since the epoch
    route, path   "-" if no route was found; the path is raw, from the prefix on, without query
    status        of the answer that the client got, 0 if none
    outcome       "" if all went well, else why not, in a word (``client-left``)
    note          what the log alone may say of a refusal, "" for nothing
    first_byte    seconds from the request's head to the answer's, -1 if there was none
    duration      seconds from the request's head to the end
    sent          bytes of body, or of WebSocket traffic, from client to provider
    received      bytes from provider to client
    began         when, on the clock of ``perf_counter``, from which durations are counted
    number        counts the exchanges of this process from 1; the journal gives it
    request_id    names the exchange in answers and in the log, "" if it has no name
    """

    route: str
    method: str
    path: str
    websocket: bool = False
    strategy: str = ""
    status: int = 0
    outcome: str = ""
    log_detail: str = ""
    first_byte: float = -1.0
    duration: float = 0.0
    sent: int = 0
    received: int = 0
    started: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    number: int = 0
    request_id: str = ""

    @property
    def failed(self) -> bool:
        """Whether it did not end well, for whatever reason."""
        return bool(self.outcome) or self.status >= 400

    def answered(self, status: int) -> None:
        """The head of the answer has arrived."""
        self.status = status
        self.first_byte = time.perf_counter() - self.began


Sink = Callable[[Sequence[ExchangeRecord]], None]


class AccessLog:
    """A sink that makes the lines. ``write`` gets those of a batch, joined."""

    def __init__(self, write: Callable[[str], object], *, as_json: bool = False) -> None:
        self._write = write
        self._format = _json_line if as_json else _text_line

    def __call__(self, batch: Sequence[ExchangeRecord]) -> None:
        self._write("".join(map(self._format, batch)))


class ExchangeLog:
    """Knows the exchanges that are open, remembers those that ended, and hands them to the sinks.

    write   gets finished lines of the access log, joined; None for no access log
    warn    gets a line about a sink that fails; without it the loop's exception handler does

    sinks   whoever wants to know; each gets every exchange once, in the order in which they ended
    open    those that have begun and not ended
    recent  the last that ended, oldest first
    total   how many have ended
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[str], object] | None = None,
        *,
        as_json: bool = False,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        self._loop = loop
        self._warn = warn
        self._unheard: list[ExchangeRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failing: list[Sink] = []
        self._numbered = 0
        self.sinks: list[Sink] = [] if write is None else [AccessLog(write, as_json=as_json)]
        self.open: set[ExchangeRecord] = set()
        self.recent: deque[ExchangeRecord] = deque(maxlen=_REMEMBERED)
        self.total = 0

    def begin(self, exchange: ExchangeRecord) -> None:
        """An exchange has begun that does not end in the same turn."""
        self._numbered += 1
        exchange.number = self._numbered
        self.open.add(exchange)

    def finish(self, exchange: ExchangeRecord) -> None:
        """An exchange has ended; it need not have begun before."""
        exchange.duration = time.perf_counter() - exchange.began
        if exchange.number:
            self.open.discard(exchange)
        else:
            self._numbered += 1
            exchange.number = self._numbered
        self.total += 1
        self.recent.append(exchange)
        if self.sinks:
            self._unheard.append(exchange)
            if self._timer is None:
                self._timer = self._loop.call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Let the sinks know of what they have not heard. One that raises harms no other."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._unheard = self._unheard, []
        if not batch:
            return
        for sink in self.sinks:
            try:
                sink(batch)
            except Exception as error:  # noqa: BLE001  nobody knows what a sink may raise
                self._report(sink, error)

    def _report(self, sink: Sink, error: Exception) -> None:
        """Say it once for each sink. Not the error's text, which may hold anything."""
        if sink not in self._failing:
            self._failing.append(sink)
            name = getattr(sink, "__qualname__", type(sink).__qualname__)
            text = f"{name} failed ({type(error).__name__}) and misses exchanges"
            if self._warn is not None:
                self._warn(text)
            else:
                self._loop.call_exception_handler({"message": text})


def _text_line(exchange: ExchangeRecord) -> str:
    at = _local_time(int(exchange.started))
    method = "WS" if exchange.websocket else exchange.method
    ends = [f"{exchange.duration * 1000:.0f} ms", f"{exchange.sent}/{exchange.received} B"]
    ends += filter(None, (exchange.strategy, exchange.outcome, exchange.log_detail))
    if exchange.failed and exchange.request_id:
        ends.append(f"request {exchange.request_id}")
    status = exchange.status or "-"
    return f"{at} {exchange.route} {method} {exchange.path} {status} {', '.join(ends)}\n"


def _json_line(exchange: ExchangeRecord) -> str:
    """Written out by hand: ``json.dumps`` of a dictionary costs three times as much."""
    first_byte = "null" if exchange.first_byte < 0 else f"{exchange.first_byte * 1000:.1f}"
    return (
        f'{{"time": "{_utc_time(int(exchange.started))}", "route": {_quoted(exchange.route)}, '
        f'"method": {_quoted(exchange.method)}, "path": {_quoted(exchange.path)}, '
        f'"websocket": {"true" if exchange.websocket else "false"}, '
        f'"strategy": {_quoted(exchange.strategy)}, "status": {exchange.status}, '
        f'"outcome": {_quoted(exchange.outcome)}, "note": {_quoted(exchange.log_detail)}, '
        f'"first_byte_ms": {first_byte}, "duration_ms": {exchange.duration * 1000:.1f}, '
        f'"bytes_sent": {exchange.sent}, "bytes_received": {exchange.received}, '
        f'"request_id": {_quoted(exchange.request_id)}}}\n'
    )


# Many lines fall into one second.
@functools.lru_cache(maxsize=8)
def _local_time(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


@functools.lru_cache(maxsize=8)
def _utc_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
