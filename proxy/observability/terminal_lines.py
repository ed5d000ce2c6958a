"""Lines of the access log for a terminal: aligned, failures in colour, with reason and remedy."""

from __future__ import annotations

from proxy.observability.exchange_log import ExchangeRecord, local_time

# A longer name or method moves its own line only.
_ROUTE_WIDTH = 16
_METHOD_WIDTH = 6
# Remedies that have been shown; more than a configuration has.
_MOST_REMEDIES = 500
_INDENT = " " * 10
_RED, _YELLOW, _DIM, _END = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class TerminalLines:
    """Formats exchanges. Where keyrelay itself responded, the reason follows on a second line.

    colours  whether escape sequences colour failures: red for 5xx and what broke off, else yellow

    The remedy of a reason is shown once. Columns widen with the longest name so far.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._width = 4
        self._shown: set[str] = set()

    def __call__(self, exchange: ExchangeRecord) -> str:
        """The line of an ended exchange, with its line end."""
        self._width = max(self._width, min(len(exchange.route), _ROUTE_WIDTH))
        method = "WS" if exchange.websocket else exchange.method
        ends = [f"{exchange.sent}/{exchange.received} B"]
        ends += filter(None, (exchange.strategy, exchange.outcome, exchange.log_detail))
        if exchange.failed and exchange.request_id:
            ends.append(f"request {exchange.request_id}")
        line = (
            f"{local_time(int(exchange.started))}  {exchange.status or '-':>3}  "
            f"{method:<{_METHOD_WIDTH}}  {exchange.route:<{self._width}}  "
            f"{exchange.duration * 1000:>6.0f} ms  {exchange.path}  {', '.join(ends)}"
        )
        return self._coloured(line, exchange) + "\n" + self._reason(exchange)

    def _reason(self, exchange: ExchangeRecord) -> str:
        detail, advice = exchange.problem
        lines = [detail] if detail else []
        if advice and advice not in self._shown and len(self._shown) < _MOST_REMEDIES:
            self._shown.add(advice)
            lines.append(advice)
        if not self._colours:
            return "".join(f"{_INDENT}{line}\n" for line in lines)
        return "".join(f"{_INDENT}{_DIM}{line}{_END}\n" for line in lines)

    def _coloured(self, line: str, exchange: ExchangeRecord) -> str:
        if not self._colours or not exchange.failed:
            return line
        broken = exchange.status >= 500 or not exchange.status
        return f"{_RED if broken else _YELLOW}{line}{_END}"
