"""What happened: the last exchanges, and one access-log line for each.

Never a secret, never a body, no query, no header. Lines are formatted and written in batches, off
the path of the requests: a logging call for each costs as much as forwarding it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted

# How many exchanges are remembered, and how long a line may wait to be written (seconds).
_REMEMBERED = 1000
_FLUSH_SECONDS = 0.1


@dataclass(slots=True)
class Exchange:
    """One request and its answer, or one WebSocket session.

    started       seconds since the epoch
    route, path   "-" if no route was found; the path is raw, from the prefix on, without query
    status        of the answer that the client got, 0 if none
    outcome       "" if all went well, else why not, in a word (``client-left``)
    first_byte    seconds from the request's head to the answer's, -1 if there was none
    duration      seconds from the request's head to the end
    sent          bytes of body, or of WebSocket traffic, from client to provider
    received      bytes from provider to client
    """

    route: str
    method: str
    path: str
    websocket: bool = False
    strategy: str = ""
    status: int = 0
    outcome: str = ""
    note: str = ""
    first_byte: float = -1.0
    duration: float = 0.0
    sent: int = 0
    received: int = 0
    started: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)

    def answered(self, status: int) -> None:
        """The head of the answer has arrived."""
        self.status = status
        self.first_byte = time.perf_counter() - self.began


class Journal:
    """Remembers exchanges and writes their lines.

    ``write`` gets finished lines, joined; None for no access log.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[str], object] | None,
        *,
        as_json: bool = False,
    ) -> None:
        self._loop = loop
        self._write = write
        self._format = _json_line if as_json else _text_line
        self._unwritten: list[Exchange] = []
        self._timer: asyncio.TimerHandle | None = None
        self.recent: deque[Exchange] = deque(maxlen=_REMEMBERED)
        self.total = 0

    def note(self, exchange: Exchange) -> None:
        """An exchange has ended."""
        exchange.duration = time.perf_counter() - exchange.began
        self.total += 1
        self.recent.append(exchange)
        if self._write is not None:
            self._unwritten.append(exchange)
            if self._timer is None:
                self._timer = self._loop.call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has not been written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._unwritten = self._unwritten, []
        if lines and self._write is not None:
            self._write("".join(map(self._format, lines)))


def _text_line(exchange: Exchange) -> str:
    at = _local_time(int(exchange.started))
    method = "WS" if exchange.websocket else exchange.method
    ends = [f"{exchange.duration * 1000:.0f} ms", f"{exchange.sent}/{exchange.received} B"]
    ends += filter(None, (exchange.strategy, exchange.outcome, exchange.note))
    status = exchange.status or "-"
    return f"{at} {exchange.route} {method} {exchange.path} {status} {', '.join(ends)}\n"


def _json_line(exchange: Exchange) -> str:
    """Written out by hand: ``json.dumps`` of a dictionary costs three times as much."""
    first_byte = "null" if exchange.first_byte < 0 else f"{exchange.first_byte * 1000:.1f}"
    return (
        f'{{"time": "{_utc_time(int(exchange.started))}", "route": {_quoted(exchange.route)}, '
        f'"method": {_quoted(exchange.method)}, "path": {_quoted(exchange.path)}, '
        f'"websocket": {"true" if exchange.websocket else "false"}, '
        f'"strategy": {_quoted(exchange.strategy)}, "status": {exchange.status}, '
        f'"outcome": {_quoted(exchange.outcome)}, "note": {_quoted(exchange.note)}, '
        f'"first_byte_ms": {first_byte}, "duration_ms": {exchange.duration * 1000:.1f}, '
        f'"bytes_sent": {exchange.sent}, "bytes_received": {exchange.received}}}\n'
    )


# Many lines fall into one second.
@functools.lru_cache(maxsize=8)
def _local_time(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


@functools.lru_cache(maxsize=8)
def _utc_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
