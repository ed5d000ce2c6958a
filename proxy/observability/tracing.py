"""Traces: one span for each exchange with a provider, as part of the client's trace.

Uses OpenTelemetry, an optional extra that is imported only if ``tracing`` is on. Its environment
variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and others) set the collector. A span has the data of the
access log: no query, no header field, no secret.
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
"""Lower-case names of the fields that ``begin`` generates; the client's are not forwarded."""

# W3C Trace Context section 3.2. Later versions may append fields, version 00 may not.
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-"
    r"(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1
# Methods known to the OpenTelemetry conventions for HTTP spans; any other is ``_OTHER``.
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
# Defaults of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
_SERVICE = {"service.name": "keyrelay", "service.version": __version__}
_NANOSECONDS = 1_000_000_000
# Seconds to export pending spans at shutdown.
_CLOSE_SECONDS = 5.0
# Libraries that log failed exports; their messages quote the collector's response.
_LIBRARIES = ("opentelemetry", "urllib3")
_EXPORT_FAILED = "traces: export to the collector failed"


class Tracer:
    """Creates the spans. ``end`` is an observer of the exchange log.

    exporter  receives the spans; by default an exporter to a collector, OTLP over HTTP
    warn      receives a line about failed exports, without text from the collector

    Raises KeyrelayError if the extra is not installed, or a variable of OpenTelemetry is invalid.
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
                "tracing: true needs OpenTelemetry: pip install --editable '.[tracing]'"
            ) from None
        self._api = trace
        self._warn = warn
        for library in _LIBRARIES:
            take_over(library, _EXPORT_FAILED, warn)
        try:
            resource = Resource.create()
            if str(resource.attributes["service.name"]).startswith("unknown_service"):
                resource = resource.merge(Resource(_SERVICE))
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        except ValueError:
            raise KeyrelayError(
                "tracing: true, but OpenTelemetry rejects the value of a variable OTEL_…"
            ) from None
        self._tracer = self._provider.get_tracer("keyrelay", __version__)
        # Weak keys: an exchange that never reaches the log leaves no span behind.
        self._spans: WeakKeyDictionary[ExchangeRecord, Span] = WeakKeyDictionary()

    def begin(self, request: Request, exchange: ExchangeRecord, origin: Origin) -> bytes:
        """Begin the span of an exchange; ``end`` receives the exchange later.

        Returns the field lines to send to the provider in place of the client's ``FIELDS``; empty
        if the span cannot be created, which does not fail the request.
        """
        try:
            return self._begin(request, exchange, origin)
        except Exception as error:  # noqa: BLE001  third-party samplers may raise anything
            self._warn(f"traces: cannot begin a span ({type(error).__name__})")
            return b""

    def _begin(self, request: Request, exchange: ExchangeRecord, origin: Origin) -> bytes:
        parent = self._parent(request)
        span = self._tracer.start_span(
            f"{_method(exchange)} {exchange.route}",
            parent,
            self._api.SpanKind.CLIENT,
            _attributes(exchange, origin),
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
            # Unchanged: tracestate is opaque data of other tracing systems.
            for name, value in request.raw_headers:
                if name.lower() == b"tracestate":
                    lines += b"tracestate: %b\r\n" % value
        return lines

    def end(self, batch: Sequence[ExchangeRecord]) -> None:
        """End the spans of a batch of ended exchanges."""
        for exchange in batch:
            if (span := self._spans.pop(exchange, None)) is not None:
                try:
                    self._end(span, exchange)
                except Exception as error:  # noqa: BLE001  end the other spans of the batch
                    self._warn(f"traces: cannot end a span ({type(error).__name__})")

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
        """Export pending spans within ``seconds``. Cancellation loses pending spans only."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed after a timeout
                loop.call_soon_threadsafe(done.set)

        # A daemon thread: a collector that does not respond must not delay the process's exit.
        threading.Thread(target=shut_down, name="keyrelay-tracing", daemon=True).start()
        with suppress(TimeoutError):  # spans not exported by then are lost
            await asyncio.wait_for(done.wait(), seconds)

    def _parent(self, request: Request) -> Context | None:
        """Return the context of the client's span if its ``traceparent`` is valid."""
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


def _attributes(exchange: ExchangeRecord, origin: Origin) -> dict[str, str | int]:
    """Return the initial attributes (OpenTelemetry's conventions for HTTP client spans)."""
    return {
        "http.request.method": exchange.method if exchange.method in _METHODS else "_OTHER",
        "server.address": origin.host,
        "server.port": origin.port,
        "url.scheme": origin.scheme,
        "url.path": exchange.path,
        "keyrelay.route": exchange.route,
        "keyrelay.websocket": exchange.websocket,
    }
