"""Traces: whose step a span is, what it says, and that nothing of it is there unless asked for."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.errors import KeyrelayError
from proxy.http.address import Origin
from proxy.http.request import Request
from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.tracing import FIELDS, Tracer
from tests.support.keyrelay import (
    answering,
    both_loops,
    exchange,
    proxied,
    raw_provider,
    read_head,
    until,
)

ORIGIN = Origin("https", "api.example.com", 443)
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Traced:
    """A tracer and the spans that it has made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = Tracer(self._exporter)

    def begin(self, *fields: tuple[str, str], one: ExchangeRecord | None = None) -> dict[str, str]:
        """The fields that leave for a request with these."""
        request = Request.of("GET", "/x?CANARY", [*fields, ("Authorization", "CANARY")])
        exchange = one or ExchangeRecord("api", "GET", "/x")
        lines = self.tracer.begin(request, exchange, ORIGIN).decode("ascii")
        assert lines.endswith("\r\n")
        return dict(line.split(": ", 1) for line in lines.split("\r\n")[:-1])

    async def spans(self) -> tuple[ReadableSpan, ...]:
        await self.tracer.close()
        return self._exporter.get_finished_spans()


@pytest.fixture
async def traced() -> AsyncIterator[Traced]:
    one = Traced()
    yield one
    await one.tracer.close()


async def test_a_trace_goes_on(traced: Traced) -> None:
    """The provider gets the client's trace with our span, whose parent is the client's."""
    one = ExchangeRecord("api", "GET", "/x")
    sent = traced.begin(("Traceparent", PARENT), ("tracestate", "a=1,b=2"), one=one)
    version, trace, span, flags = sent["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert sent["tracestate"] == "a=1,b=2"
    traced.tracer.end([one])
    (made,) = await traced.spans()
    assert made.context is not None
    assert made.parent is not None
    assert format(made.context.trace_id, "032x") == TRACE
    assert format(made.context.span_id, "016x") == span
    assert format(made.parent.span_id, "016x") == SPAN


async def test_a_trace_begins_here(traced: Traced) -> None:
    """Without a trace of the client's there is a new one, and nothing of a state."""
    one = ExchangeRecord("api", "GET", "/x")
    sent = traced.begin(("tracestate", "a=1"), one=one)
    assert set(sent) == {"traceparent"}
    traced.tracer.end([one])
    (made,) = await traced.spans()
    assert made.parent is None


async def test_a_trace_that_is_not_recorded(traced: Traced) -> None:
    """A client that does not record has no span made, and its trace goes on all the same."""
    one = ExchangeRecord("api", "GET", "/x")
    sent = traced.begin(("traceparent", f"00-{TRACE}-{SPAN}-00"), one=one)
    assert sent["traceparent"].startswith(f"00-{TRACE}-")
    assert sent["traceparent"].endswith("-00")
    traced.tracer.end([one])
    assert await traced.spans() == ()


@pytest.mark.parametrize(
    "fields",
    [
        [("traceparent", PARENT.upper())],
        [("traceparent", f"{PARENT}-more")],
        [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", "CANARY" * 1000)],
        [("traceparent", "")],
        [("traceparent", PARENT), ("traceparent", PARENT)],
    ],
)
async def test_a_trace_that_is_not_valid(
    traced: Traced, fields: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """It is as if there were none; nothing is said of it."""
    sent = traced.begin(*fields, ("tracestate", "CANARY"))
    assert TRACE not in sent["traceparent"]
    assert set(sent) == {"traceparent"}
    assert "CANARY" not in caplog.text


async def test_a_version_to_come(traced: Traced) -> None:
    """What newer versions append is left out; what is known of them counts."""
    sent = traced.begin(("traceparent", f"01-{TRACE}-{SPAN}-01-more"))
    assert sent["traceparent"].startswith(f"00-{TRACE}-")


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")))
def test_what_leaves_is_always_a_trace(value: str) -> None:
    """Whatever a client sends as trace, what leaves is one valid field line."""
    tracer = Tracer(InMemorySpanExporter())
    try:
        request = Request.of("GET", "/", [("traceparent", value)])
        lines = tracer.begin(request, ExchangeRecord("api", "GET", "/"), ORIGIN)
        assert lines.count(b"\r\n") == 1
        assert len(lines) == len(b"traceparent: \r\n") + len(PARENT)
    finally:
        tracer._provider.shutdown()


async def test_what_a_span_says(traced: Traced) -> None:
    """What the access log says, by the names that OpenTelemetry has for it; no query, no field."""
    one = ExchangeRecord("api", "GET", "/x", strategy="key", started=1000.0)
    traced.begin(one=one)
    one.response_started(200)
    one.duration = 0.5
    traced.tracer.end([one])
    (made,) = await traced.spans()
    assert (made.name, made.kind) == ("GET api", SpanKind.CLIENT)
    assert (made.start_time, made.end_time) == (1000 * 10**9, 10005 * 10**8)
    assert made.status.status_code is StatusCode.UNSET
    assert dict(made.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "api.example.com",
        "server.port": 443,
        "url.scheme": "https",
        "url.path": "/x",
        "keyrelay.route": "api",
        "keyrelay.strategy": "key",
        "keyrelay.websocket": False,
    }
    assert made.resource.attributes["service.name"] == "keyrelay"
    assert "CANARY" not in made.to_json()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"status": 502, "outcome": "connection_refused"}, "connection_refused"),
        ({"status": 0, "outcome": "client-left"}, "client-left"),
        ({"status": 429}, "429"),
    ],
)
async def test_a_span_of_what_failed(traced: Traced, more: dict[str, Any], error: str) -> None:
    """It is an error, of the outcome if there is one, else of the status."""
    one = ExchangeRecord("api", "CANARY", "/x")
    traced.begin(one=one)
    for name, value in more.items():
        setattr(one, name, value)
    traced.tracer.end([one])
    (made,) = await traced.spans()
    assert made.status.status_code is StatusCode.ERROR
    assert made.attributes is not None
    assert made.attributes["error.type"] == error
    # A method that nobody knows could be anything.
    assert (made.name, made.attributes["http.request.method"]) == ("HTTP api", "_OTHER")


async def test_as_a_sink_of_the_journal(traced: Traced) -> None:
    """A span ends when the journal tells of its exchange; others are none of its business."""
    exchange_log = ExchangeLog(asyncio.get_running_loop())
    exchange_log.observers.append(traced.tracer.end)
    one = ExchangeRecord("api", "GET", "/x")
    exchange_log.begin(one)
    traced.begin(one=one)
    exchange_log.finish(ExchangeRecord("-", "GET", "-"))
    exchange_log.finish(one)
    exchange_log.flush()
    assert len(await traced.spans()) == 1


def test_what_must_not_cross() -> None:
    """The names whose lines are made anew are those of W3C Trace Context."""
    assert {b"traceparent", b"tracestate"} == FIELDS


async def test_spans_go_where_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the collector of OTEL_EXPORTER_OTLP_ENDPOINT, under the name of OTEL_SERVICE_NAME."""
    done = asyncio.Event()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        collected.extend((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        done.set()
        await reader.read()

    collected: list[bytes] = []
    async with raw_provider(collect) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "dummy-service")
        tracer = Tracer()
        one = ExchangeRecord("api", "GET", "/x")
        tracer.begin(Request.of("GET", "/x", []), one, ORIGIN)
        tracer.end([one])
        await tracer.close()
        await asyncio.wait_for(done.wait(), 5)
    assert collected[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"dummy-service" in collected[1]
    assert b"api.example.com" in collected[1]


async def test_a_collector_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep keyrelay from ending."""
    connected = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await asyncio.Event().wait()

    async with raw_provider(hang) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        tracer = Tracer()
        one = ExchangeRecord("api", "GET", "/x")
        tracer.begin(Request.of("GET", "/x", []), one, ORIGIN)
        tracer.end([one])
        async with asyncio.timeout(5):
            await tracer.close(seconds=0.05)
        await until(connected.is_set)
        # The thread goes on by itself, until the exporter's own timeout.
        for thread in threading.enumerate():
            if thread.name == "keyrelay-tracing":
                await asyncio.to_thread(thread.join)


async def test_what_a_collector_answers_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may quote what was sent, or its sender: there is a line that it failed, and no more."""
    answer = b"HTTP/1.1 400 CANARY\r\nX: CANARY\r\nContent-Length: 6\r\n\r\nCANARY"
    said: list[str] = []
    async with raw_provider(answering(answer)) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/CANARY")
        tracer = Tracer(warn=said.append)
        one = ExchangeRecord("api", "GET", "/x")
        tracer.begin(Request.of("GET", "/x", []), one, ORIGIN)
        tracer.end([one])
        await tracer.close()
    assert said == ["traces: export to the collector failed (error)"]
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""


async def test_a_span_that_cannot_be_made() -> None:
    """The request goes on without one, the others of a batch end, and it is said by its type."""
    said: list[str] = []
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter, warn=said.append)
    request = Request.of("GET", "/x", [("traceparent", PARENT)])
    never = ExchangeRecord("api", "GET", "/x", started=float("inf"))
    assert tracer.begin(request, never, ORIGIN) == b""
    endless, good = ExchangeRecord("api", "GET", "/x"), ExchangeRecord("api", "GET", "/x")
    for one in (endless, good):
        assert tracer.begin(request, one, ORIGIN) != b""
    endless.duration = float("inf")
    tracer.end([never, endless, good])
    await tracer.close()
    assert len(exporter.get_finished_spans()) == 1
    assert said == [
        "traces: cannot begin a span (OverflowError)",
        "traces: cannot end a span (OverflowError)",
    ]


async def test_an_exchange_that_is_given_up_leaves_no_span(traced: Traced) -> None:
    """The journal is never told of one that failed before it was sent."""
    one = ExchangeRecord("api", "GET", "/x")
    traced.begin(one=one)
    assert len(traced.tracer._spans) == 1
    del one
    gc.collect()
    assert len(traced.tracer._spans) == 0


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(KeyrelayError, match=r"pip install --editable '\.\[tracing\]'"):
        Tracer()


async def test_variables_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenTelemetry itself cannot start with stops the start, and says where to look."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "123456789")
    with pytest.raises(KeyrelayError, match="OTEL_") as caught:
        Tracer()
    assert "123456789" not in str(caught.value)


def test_nothing_is_loaded_unless_asked_for() -> None:
    """Importing the module, or the whole server, loads nothing of OpenTelemetry."""
    code = (
        "import sys, proxy.observability.tracing, proxy.forwarding.handler, proxy.app.status\n"
        "sys.exit(any(one.partition('.')[0] == 'opentelemetry' for one in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == 0


# -- with a keyrelay that runs -------------------------------------------------------------------


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """What a collector gets, to which OpenTelemetry's variables lead."""
    collected: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        collected.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_provider(collect) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        yield collected


@both_loops
@pytest.mark.parametrize("tracing", [True, False])
async def test_a_request_is_traced(
    monkeypatch: pytest.MonkeyPatch, dummy_key: bytes, *, tracing: bool
) -> None:
    """With ``tracing`` the provider gets our span and the collector one span; else the client's."""

    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()

    request = (
        b"GET /api/x?CANARY HTTP/1.1\r\nHost: localhost\r\n"
        b"Traceparent: %b\r\nTracestate: a=1\r\n\r\n" % PARENT.encode()
    )
    # What is left to export is exported when keyrelay ends.
    async with (
        collecting(monkeypatch) as collected,
        proxied(serve, tracing=tracing) as (_, running),
    ):
        assert (await exchange(running.port, request)).startswith(b"HTTP/1.1 200 ")
    head = received[0].lower()
    assert head.count(b"traceparent:") == head.count(b"tracestate:") == 1
    assert (PARENT.encode() in head) is not tracing
    assert b"\r\ntraceparent: 00-" + TRACE.encode() in head
    assert b"\r\ntracestate: a=1\r\n" in head
    assert len(collected) == (1 if tracing else 0)
    for body in collected:
        assert bytes.fromhex(TRACE) in body
        assert b"CANARY" not in body
        assert dummy_key not in body
