"""Log of exchanges: those that are open, the last that ended, and an access-log line for each.

Contains no secret, body, query or header field. Observers (access log, counters, traces) receive
ended exchanges in batches, off the request path, because a logging call per exchange costs as much
as forwarding it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import Protocol

from proxy.observability.exchange_detail import ExchangeDetail

# Ended exchanges that are kept, and the maximum delay of one before the observers get it (seconds).
_KEPT = 1000
_FLUSH_SECONDS = 0.1

CLIENT_LEFT = "client-left"


class Session(Protocol):
    """An open WebSocket session. ``moved`` are its bytes from client to provider and back."""

    @property
    def moved(self) -> tuple[int, int]: ...


@dataclass(slots=True, eq=False, weakref_slot=True)
class ExchangeRecord:
    """One request and its response, or one WebSocket session. Compared and hashed by identity.

    started       seconds since the epoch
    route, path   "-" if no route matched; the path is raw, without query, behind the route's prefix
    status        of the response sent to the client, 0 if none
    outcome       "" if the exchange completed, else the reason in one word (``client-left``)
    log_detail    details of a refusal that only the log has, "" for none
    first_byte    seconds from the request's header section to the response's, -1 if none
    duration      seconds from the request's header section to the end
    sent          bytes of body, or of WebSocket traffic, from client to provider
    received      bytes from provider to client
    began         start on the clock of ``perf_counter``, the origin of the durations
    number        number of the exchange in this process, from 1; assigned by the log
    request_id    ID of the exchange in responses and in the log, "" if it has none
    event_stream  whether the response is a stream of server-sent events
    problem       detail and advice of a response of keyrelay's own
    detail        what keyrelay did, None without subscribers of the inspector
    session       counts the bytes of a WebSocket session while it is open, None before and after
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
    event_stream: bool = False
    problem: tuple[str, str] = ("", "")
    detail: ExchangeDetail | None = None
    session: Session | None = None

    @property
    def kind(self) -> str:
        """``http``, ``sse`` or ``websocket``."""
        return "websocket" if self.websocket else "sse" if self.event_stream else "http"

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes from client to provider and back, so far."""
        return (self.sent, self.received) if self.session is None else self.session.moved

    @property
    def failed(self) -> bool:
        """Whether the exchange failed, was refused, or has an error status."""
        return bool(self.outcome) or self.status >= 400

    def response_started(self, status: int) -> None:
        """Record the arrival of the response's header section."""
        self.status = status
        self.first_byte = time.perf_counter() - self.began


Observer = Callable[[Sequence[ExchangeRecord]], None]
LineFormat = Callable[[ExchangeRecord], str]


class AccessLog:
    """Observer that writes the access log. ``write`` receives the lines of a batch, joined."""

    def __init__(
        self, write: Callable[[str], object], line_format: LineFormat | None = None
    ) -> None:
        self._write = write
        self._format = line_format or text_line

    def __call__(self, batch: Sequence[ExchangeRecord]) -> None:
        self._write("".join(map(self._format, batch)))


class ExchangeLog:
    """Records open and recently ended exchanges, and passes ended ones to the observers.

    write        receives lines of the access log, joined; None for no access log
    line_format  makes a line of an exchange, ``text_line`` by default
    warn         receives a line about an observer that fails; by default the loop's exception
                 handler

    observers  each receives every exchange once, in the order in which they ended
    open       exchanges that have begun and not ended
    recent     the last exchanges that ended, oldest first
    total      number of exchanges that have ended
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[str], object] | None = None,
        *,
        line_format: LineFormat | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        self._loop = loop
        self._warn = warn
        self._pending: list[ExchangeRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failing: list[Observer] = []
        self._numbered = 0
        self.observers: list[Observer] = [] if write is None else [AccessLog(write, line_format)]
        self.open: set[ExchangeRecord] = set()
        self.recent: deque[ExchangeRecord] = deque(maxlen=_KEPT)
        self.total = 0

    def begin(self, exchange: ExchangeRecord) -> None:
        """Record the start of an exchange that does not end in the same callback."""
        self._numbered += 1
        exchange.number = self._numbered
        self.open.add(exchange)

    def finish(self, exchange: ExchangeRecord) -> None:
        """Record the end of an exchange; ``begin`` need not have been called before."""
        exchange.duration = time.perf_counter() - exchange.began
        if exchange.number:
            self.open.discard(exchange)
        else:
            self._numbered += 1
            exchange.number = self._numbered
        self.total += 1
        self.recent.append(exchange)
        if self.observers:
            self._pending.append(exchange)
            if self._timer is None:
                self._timer = self._loop.call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Pass pending exchanges to the observers. One that raises does not affect the others."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending, []
        if not batch:
            return
        for observer in self.observers:
            try:
                observer(batch)
            except Exception as error:  # noqa: BLE001  observers may raise any exception
                self._report(observer, error)

    def _report(self, observer: Observer, error: Exception) -> None:
        """Warn once per observer, without the error's text, which may contain anything."""
        if observer not in self._failing:
            self._failing.append(observer)
            name = getattr(observer, "__qualname__", type(observer).__qualname__)
            text = f"{name} failed ({type(error).__name__}) and misses exchanges"
            if self._warn is not None:
                self._warn(text)
            else:
                self._loop.call_exception_handler({"message": text})


def text_line(exchange: ExchangeRecord) -> str:
    """The line of an ended exchange as plain text, with its line end."""
    at = local_time(int(exchange.started))
    method = "WS" if exchange.websocket else exchange.method
    ends = [f"{exchange.duration * 1000:.0f} ms", f"{exchange.sent}/{exchange.received} B"]
    ends += filter(None, (exchange.strategy, exchange.outcome, exchange.log_detail))
    if exchange.failed and exchange.request_id:
        ends.append(f"request {exchange.request_id}")
    status = exchange.status or "-"
    return f"{at} {exchange.route} {method} {exchange.path} {status} {', '.join(ends)}\n"


def json_line(exchange: ExchangeRecord) -> str:
    """The line of an ended exchange as JSON, with its line end.

    Formatted by hand: ``json.dumps`` of a dictionary costs three times as much.
    """
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


# Cached, as many lines fall into one second.
@functools.lru_cache(maxsize=8)
def local_time(second: int) -> str:
    """The time of day of a second since the epoch, for lines that people read."""
    return time.strftime("%H:%M:%S", time.localtime(second))


@functools.lru_cache(maxsize=8)
def _utc_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
