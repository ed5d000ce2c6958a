"""The export as HAR 1.2: what tools require is there, and nothing that is secret."""

from __future__ import annotations

import base64
import json
from datetime import datetime

import aiohttp
import pytest

from proxy.observability.exchange_detail import ExchangeDetail
from tests.support.inspection import MASKER, frame, hearing, inspected
from tests.support.keyrelay import SECRET, static_route

MASK = b"\x01\x02\x03\x04"
REQUEST = {"method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize"}
RESPONSE = {"status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL"}


async def test_an_archive(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, dummy_key: bytes
) -> None:
    """Ended exchanges have every required member (HAR 1.2), times that add up, redacted values,
    and their WebSocket messages; open ones are left out."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    routes = {"api": static_route("https://api.example.com")}
    async with inspected(routes) as running, hearing(running):
        watched = running.watched
        call = watched.begin(f"/v1/{SECRET.decode()}", "POST")
        detail = call.detail = ExchangeDetail()
        detail.target = f"https://api.example.com/v1/{SECRET.decode()}?page=…"
        detail.request_fields = [("X-Own", None), ("Content-Type", "application/json")]
        detail.response_fields = [("Content-Type", "text/plain"), ("Set-Cookie", None)]
        detail.token_waited(0.001)
        watched.answer(call, 429)
        watched.end(call)
        socket = watched.begin("/v1/chat", websocket=True)
        watched.answer(socket, 101)
        tap = watched.inspector_hub.tap(socket, b"", MASKER)
        assert tap is not None
        tap.from_client(frame(b"hello " + SECRET, mask=MASK))
        tap.from_provider(frame(b"\x00\xff", opcode=2))
        tap.from_provider(frame(b"p", opcode=9))
        tap.ended()
        watched.end(socket)
        watched.begin("/v1/open")
        headers = {"Authorization": f"Bearer {running.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{running.url}/api/har") as response,
        ):
            assert response.status == 200
            text = await response.text()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{running.url}/api/har") as response,
        ):
            assert response.status == 401
    assert SECRET.decode() not in text
    log = json.loads(text)["log"]
    assert log["version"] == "1.2"
    first, second = log["entries"]
    for entry in (first, second):
        assert entry["request"].keys() >= REQUEST
        assert entry["response"].keys() >= RESPONSE
        assert datetime.fromisoformat(entry["startedDateTime"]).tzinfo is not None
        parts = {name: one for name, one in entry["timings"].items() if name != "ssl"}
        assert sum(parts.values()) == pytest.approx(entry["time"], rel=0.2, abs=2)
    assert first["request"]["url"].endswith("?page=(redacted)")
    assert first["request"]["headers"] == [
        {"name": "X-Own", "value": "(redacted)"},
        {"name": "Content-Type", "value": "application/json"},
    ]
    assert first["request"]["queryString"] == [{"name": "page", "value": "(redacted)"}]
    assert first["response"]["content"]["mimeType"] == "text/plain"
    assert second["_resourceType"] == "websocket"
    sent, received = second["_webSocketMessages"]
    assert (sent["type"], sent["opcode"]) == ("send", 1)
    assert sent["data"] == "hello " + "*" * len(SECRET)
    assert (received["type"], received["opcode"]) == ("receive", 2)
    assert base64.b64decode(received["data"]) == b"\x00\xff"
