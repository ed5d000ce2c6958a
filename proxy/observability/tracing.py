"""Traces: one span for each exchange with a provider, as a step of the client's own trace.

OpenTelemetry does the work; it is an extra, and nothing of it is loaded unless ``tracing`` is on.
Where spans go is said by its own variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and others). A span
tells what the access log tells: no query, no header, no secret.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from proxy import __version__
from proxy.errors import KeyrelayError
from proxy.http.address import Origin
from proxy.http.request import Request
from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.library_logging import take_over

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

FIELDS = frozenset({b"traceparent", b"tracestate"})
"""Lower-case names of the fields that ``begin`` makes anew; the client's do not cross."""

# W3C Trace Context section 3.2. Versions to come may append to what is known, 00 may not.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-"
    r"(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1
# Conventions for HTTP spans: any other method could be anything.
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
# Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say another.
_OWN_NAME = {"service.name": "keyrelay", "service.version": __version__}
_NANOSECONDS = 1_000_000_000
# How long spans may take to leave when keyrelay ends (seconds).
_CLOSE_SECONDS = 5.0
# What says something when spans cannot be sent: its own words quote the collector's answer.
_LIBRARIES = ("opentelemetry", "urllib3")
_TROUBLE = "traces: there is trouble with the collector"


class Tracer:
    """Makes the spans. ``end`` is a sink of the journal.

    exporter  where spans go; by default to a collector, over OTLP with HTTP
    warn      gets a line where spans could not be sent, without a word of what the collector said

    Raises KeyrelayError if the extra is not installed, or a variable of OpenTelemetry is unusable.
    """

    def __init__(
        self,
        exporter: SpanExporter | None = None,
        *,
        warn: Callable[[str], object] = lambda _line: None,
    ) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise KeyrelayError(
                "tracing: true needs OpenTelemetry: pip install 'keyrelay[tracing]'"
            ) from None
        self._api = trace
        self._warn = warn
        for library in _LIBRARIES:
            take_over(library, _TROUBLE, warn)
        try:
            resource = Resource.create()
            if str(resource.attributes["service.name"]).startswith("unknown_service"):
                resource = resource.merge(Resource(_OWN_NAME))
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        except ValueError:
            raise KeyrelayError(
                "tracing: true, but a variable OTEL_… has a value that OpenTelemetry cannot use"
            ) from None
        self._tracer = self._provider.get_tracer("keyrelay", __version__)
        # Of an exchange that never comes to the journal nothing is left here either.
        self._spans: WeakKeyDictionary[ExchangeRecord, Span] = WeakKeyDictionary()

    def begin(self, request: Request, exchange: ExchangeRecord, origin: Origin) -> bytes:
        """Begin the span of an exchange that the journal will be told the end of.

        The field lines that go to the provider in place of the client's ``FIELDS``; none if there
        can be no span, which is no reason to refuse a request.
        """
        try:
            return self._begin(request, exchange, origin)
        except Exception as error:  # noqa: BLE001  samplers and the like are anybody's
            self._warn(f"traces: a span could not be begun ({type(error).__name__})")
            return b""

    def _begin(self, request: Request, exchange: ExchangeRecord, origin: Origin) -> bytes:
        parent = self._parent(request)
        span = self._tracer.start_span(
            f"{_method(exchange)} {exchange.route}",
            parent,
            self._api.SpanKind.CLIENT,
            _known(exchange, origin),
            start_time=int(exchange.started * _NANOSECONDS),
        )
        self._spans[exchange] = span
        context = span.get_span_context()
        lines = b"traceparent: 00-%032x-%016x-%02x\r\n" % (
            context.trace_id,
            context.span_id,
            context.trace_flags,
        )
        if parent is not None:
            # As they came: what other systems wrote there is not ours to read.
            for name, value in request.raw_headers:
                if name.lower() == b"tracestate":
                    lines += b"tracestate: %b\r\n" % value
        return lines

    def end(self, batch: Sequence[ExchangeRecord]) -> None:
        """End the spans of exchanges that have ended."""
        for exchange in batch:
            if (span := self._spans.pop(exchange, None)) is not None:
                try:
                    self._end(span, exchange)
                except Exception as error:  # noqa: BLE001  the others of the batch are to be ended
                    self._warn(f"traces: a span could not be ended ({type(error).__name__})")

    def _end(self, span: Span, exchange: ExchangeRecord) -> None:
        if exchange.strategy:
            span.set_attribute("keyrelay.strategy", exchange.strategy)
        if exchange.status:
            span.set_attribute("http.response.status_code", exchange.status)
        if exchange.failed:
            span.set_attribute("error.type", exchange.outcome or str(exchange.status))
            span.set_status(self._api.StatusCode.ERROR, exchange.outcome or None)
        span.end(int((exchange.started + exchange.duration) * _NANOSECONDS))

    async def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Send what has not been sent; give up after ``seconds``. Cancelling is safe."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # A thread that nobody waits for: a collector that hangs does not keep keyrelay from ending.
        threading.Thread(target=shut_down, name="keyrelay-tracing", daemon=True).start()
        with suppress(TimeoutError):  # spans that nobody takes are lost
            await asyncio.wait_for(done.wait(), seconds)

    def _parent(self, request: Request) -> Context | None:
        """The client's span, if it sent one that is valid."""
        values = request.headers.getall("traceparent", [])
        found = _TRACEPARENT.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
        if found is None or (found["version"] == "00" and found["more"]):
            return None
        api = self._api
        context: Context = api.set_span_in_context(
            api.NonRecordingSpan(
                api.SpanContext(
                    int(found["trace"], 16),
                    int(found["span"], 16),
                    is_remote=True,
                    trace_flags=api.TraceFlags(int(found["flags"], 16) & _SAMPLED),
                )
            )
        )
        return context


def _method(exchange: ExchangeRecord) -> str:
    return exchange.method if exchange.method in _METHODS else "HTTP"


def _known(exchange: ExchangeRecord, origin: Origin) -> dict[str, str | int]:
    """What can be said at the beginning (OpenTelemetry's conventions for HTTP client spans)."""
    return {
        "http.request.method": exchange.method if exchange.method in _METHODS else "_OTHER",
        "server.address": origin.host,
        "server.port": origin.port,
        "url.scheme": origin.scheme,
        "url.path": exchange.path,
        "keyrelay.route": exchange.route,
        "keyrelay.websocket": exchange.websocket,
    }
