"""The admin listener: its responses and its access control, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admin import runtime_file
from proxy.app.status import Reload
from proxy.errors import KeyrelayError
from tests.support.inspection import (
    MASKER,
    Inspected,
    Watched,
    event_stream,
    frame,
    hearing,
    inspected,
    start,
)
from tests.support.keyrelay import SECRET, RawClient, client, keyrelay, static_route, until

API = ("/api/status", "/metrics", "/api/exchanges", "/api/exchanges/1", "/api/events", "/api/har")
FILES = ("/", "/style.css", "/main.js")
ROUTES = {"api": static_route("https://api.example.com")}
MASK = b"\x01\x02\x03\x04"


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
async def running(dummy_key: bytes) -> AsyncIterator[Inspected]:
    async with inspected(ROUTES) as running:
        yield running


async def ask(
    running: Inspected, path: str, method: str = "GET", token: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, header fields in lower case and body; with the right token unless told."""
    token = running.token if token is None else token
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    async with (
        client() as session,
        session.request(method, f"{running.url}{path}", headers=sent) as answer,
    ):
        fields = {name.lower(): value for name, value in answer.headers.items()}
        if answer.content_type == "text/event-stream":
            return answer.status, fields, ""
        return answer.status, fields, await answer.text()


async def test_status(running: Inspected) -> None:
    """The snapshot, as JSON."""
    status, fields, text = await ask(running, "/api/status")
    said = json.loads(text)
    assert (status, fields["content-type"]) == (200, "application/json; charset=utf-8")
    assert said["routes"]["api"]["origin"] == "https://api.example.com"
    assert said["listeners"][0]["url"].startswith("http://127.0.0.1:")


async def test_metrics(running: Inspected) -> None:
    """Prometheus reads them, with the token as it sends it."""
    running.watched.serve()
    status, fields, text = await ask(running, "/metrics")
    assert status == 200
    assert fields["content-type"].startswith("text/plain; version=0.0.4")
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    [requests] = [one for one in samples if one.name == "keyrelay_requests_total"]
    assert (requests.labels["route"], requests.value) == ("api", 1)


async def test_reload(running: Inspected) -> None:
    """What has changed, or 409 with every finding; only by POST."""
    status, _, text = await ask(running, "/api/reload", "POST")
    assert (status, json.loads(text)["changed"]) == (200, ["api has other settings"])
    running.watched.report = Reload(2.0, findings=("routes.yaml:3:1: unknown key",))
    status, _, text = await ask(running, "/api/reload", "POST")
    assert (status, json.loads(text)["findings"]) == (409, ["routes.yaml:3:1: unknown key"])
    assert running.watched.app.reloads.count == 1
    assert running.watched.app.reloads.failed == 1
    status, fields, _ = await ask(running, "/api/reload")
    assert (status, fields["allow"]) == (405, "POST")


async def test_exchanges(running: Inspected) -> None:
    """Those that ended last and those that are open, oldest first; each by its number."""
    ended = running.watched.serve("/v1/one", 404)
    opened = running.watched.begin("/v1/two", "POST")
    _, _, text = await ask(running, "/api/exchanges")
    said = json.loads(text)
    assert said["total"] == 1
    assert [(one["path"], one["open"], one["status"]) for one in said["exchanges"]] == [
        ("/v1/one", False, 404),
        ("/v1/two", True, 0),
    ]
    for exchange in (ended, opened):
        status, _, text = await ask(running, f"/api/exchanges/{exchange.number}")
        said = json.loads(text)
        assert (status, said["exchange"]["path"]) == (200, exchange.path)
        assert said["conversation"] is None
    status, fields, _ = await ask(running, "/api/exchanges/99")
    assert (status, fields["content-type"]) == (404, "application/problem+json")


async def test_exchanges_are_bounded(running: Inspected) -> None:
    """However many are open, an answer holds no more than a page keeps."""
    for number in range(3000):
        running.watched.begin(f"/v1/{number}")
    _, _, text = await ask(running, "/api/exchanges")
    assert [one["number"] for one in json.loads(text)["exchanges"]] == list(range(1001, 3001))


async def test_events_in_order(running: Inspected) -> None:
    """First how everything is, then each exchange as it begins, is answered, ends, and what is
    said in between; the status when it has changed."""
    async with hearing(running) as heard:
        _, status = await heard.next("status")
        assert status["routes"]["api"]["in_flight"] == 0
        exchange = running.watched.begin("/v1/chat", websocket=True)
        assert (await heard.next("begun"))[1]["number"] == exchange.number
        running.watched.answer(exchange, 101)
        assert (await heard.next("answered"))[1]["status"] == 101
        tap = running.watched.inspector_hub.tap(exchange, b"", MASKER)
        assert tap is not None
        tap.from_client(frame(b"question", mask=MASK))
        tap.from_provider(frame(b"answer"))
        for text in ("question", "answer"):
            assert (await heard.next("message"))[1]["text"] == text
        _, status = await heard.next("status")
        assert status["routes"]["api"]["websockets"] == 1
        tap.ended()
        running.watched.end(exchange)
        _, told = await heard.next("ended")
        assert (told["kind"], told["open"]) == ("websocket", False)
    _, _, text = await ask(running, f"/api/exchanges/{exchange.number}")
    said = json.loads(text)["conversation"]
    assert [one["text"] for one in said["messages"]] == ["question", "answer"]


async def test_a_quiet_status_is_not_repeated(running: Inspected) -> None:
    """Ages that grow are no news."""
    async with hearing(running) as heard:
        await heard.next("status")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await heard.next("status")


async def test_a_watcher_that_leaves(running: Inspected) -> None:
    """It is noticed while nothing happens, and its place is free."""
    for _ in range(10):
        async with hearing(running):
            assert len(running.watched.inspector_hub._subscriptions) == 1
        await until(lambda: not running.watched.inspector_hub._subscriptions)


async def test_too_many_subscriptions(running: Inspected) -> None:
    """The ninth is told so."""
    every = [running.watched.inspector_hub.subscribe() for _ in range(8)]
    status, fields, text = await ask(running, "/api/events")
    assert (status, fields["retry-after"]) == (503, "5")
    assert json.loads(text)["type"].endswith("too-many-watchers")
    running.watched.inspector_hub.unsubscribe(every[0])
    assert (await ask(running, "/api/events"))[0] == 200


async def test_a_watcher_that_reads_nothing(running: Inspected) -> None:
    """Others and the data path go on, memory is bounded, and what it missed is counted."""
    reader = await RawClient.to(running.admin.listener.address.port)
    request = f"GET /api/events HTTP/1.1\r\nHost: {running.url[7:]}\r\nAuthorization: Bearer "
    reader.send(f"{request}{running.token}\r\n\r\n".encode())
    await reader.head()
    watched = running.watched
    async with hearing(running) as heard:
        tap = watched.inspector_hub.tap(watched.begin(websocket=True), b"", MASKER)
        assert tap is not None
        for number in range(2000):
            tap.from_provider(frame(b"%d " % number + b"x" * 16_000))
            if number % 50 == 49:
                await asyncio.sleep(0.002)
        while (await heard.next("message", "gap"))[0] != "gap":
            pass
    for watcher in watched.inspector_hub._subscriptions:
        assert watcher._bytes <= 4 * 1024 * 1024
    reader.reset()


@pytest.mark.parametrize("token", ["", "wrong", "dummy-token-é"])
@pytest.mark.parametrize("path", [*API, "/nothing", "/../etc/passwd", "/page/main.js"])
async def test_without_the_right_token(running: Inspected, path: str, token: str) -> None:
    """Nothing but the page's own files: not even whether something is there."""
    status, fields, text = await ask(running, path, token=token)
    assert (status, fields["www-authenticate"]) == (401, "Bearer")
    assert json.loads(text)["type"] == "urn:keyrelay:problem:admin-token-needed"
    assert running.token not in text
    assert (await ask(running, path, "POST", token=token))[0] == 401


@pytest.mark.parametrize("path", FILES)
async def test_the_page_s_files(running: Inspected, path: str) -> None:
    """They need no token and hold none."""
    status, fields, text = await ask(running, path, token="")
    assert status == 200
    assert running.token not in text
    assert fields["content-type"].partition(";")[0] in {"text/html", "text/css", "text/javascript"}


@pytest.mark.parametrize("path", [*FILES, *API])
async def test_foreign_pages_get_nothing(running: Inspected, path: str) -> None:
    """By Origin, by fetch metadata, by a rebound name: refused, though the token were known. No
    answer, refused or not, opens itself to another origin."""
    for status, marks in (
        (403, {"Origin": "https://evil.test"}),
        (403, {"Origin": "null"}),
        (403, {"Sec_Fetch_Site": "cross-site"}),
        (403, {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "iframe"}),
        (421, {"Host": "evil.test"}),
        (421, {"Host": f"evil.test:{running.admin.listener.address.port}"}),
    ):
        seen, fields, text = await ask(running, path, **marks)
        assert seen == status, marks
        assert fields["content-type"] == "application/problem+json"
        assert "evil" not in text
        assert not [name for name in fields if name.startswith("access-control")]
    seen, fields, _ = await ask(running, path, Origin=running.url, Sec_Fetch_Site="same-origin")
    assert seen in {200, 404}
    assert not [name for name in fields if name.startswith("access-control")]


async def test_a_preflight_is_refused(running: Inspected) -> None:
    """No page may send the token from elsewhere."""
    marks = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    seen, fields, _ = await ask(running, "/api/reload", "OPTIONS", token="", **marks)
    assert seen == 403
    assert not [name for name in fields if name.startswith("access-control")]


@pytest.mark.parametrize("path", [*FILES, *API, "/nothing"])
async def test_every_answer_protects_itself(running: Inspected, path: str) -> None:
    """Policy, no sniffing, no cache, no frame, no word about the software beneath."""
    for token in ("", None):
        _, fields, _ = await ask(running, path, token=token)
        policy = fields["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["cache-control"] == "no-store"
        assert fields["referrer-policy"] == "no-referrer"
        assert fields["cross-origin-opener-policy"] == "same-origin"
        assert fields["cross-origin-resource-policy"] == "same-origin"
        assert fields["server"] == "keyrelay"


async def test_what_is_not_there(running: Inspected) -> None:
    """A problem document, as everything of keyrelay's own."""
    for path in ("/nothing", "/other.js", "/api/exchanges/x", "/main.js/", "/index.html"):
        status, fields, _ = await ask(running, path)
        assert (status, fields["content-type"]) == (404, "application/problem+json"), path


async def test_a_token_for_each_start(running: Inspected, dummy_key: bytes) -> None:
    """Long, random, and of use at its own listener alone."""
    async with inspected(ROUTES) as other:
        assert len(running.token) == len(other.token) == 32
        assert (await ask(running, "/api/status", token=other.token))[0] == 401
        assert running.admin.page_url == f"{running.url}/#token={running.token}"


async def test_a_unix_socket(dummy_key: bytes, tmp_path: Path) -> None:
    """It is its owner's alone, so it wants no token; it goes when keyrelay ends."""
    path = tmp_path / "admin"
    async with inspected(ROUTES, f"unix:{path}") as running:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert running.admin.page_url == f"unix:{path}"
        connector = aiohttp.UnixConnector(str(path))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/api/status") as answer,
        ):
            assert answer.status == 200
        [found] = runtime_file.running()
        assert (found.url, found.token) == (f"unix:{path}", "")
    assert not path.exists()


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
async def test_never_beyond_this_machine(dummy_key: bytes, text: str) -> None:
    """Not even with an inbound token."""
    async with keyrelay(ROUTES) as running:
        with pytest.raises(KeyrelayError, match="stays on this machine"):
            await start(Watched(running.app), text)


async def test_an_address_in_use(dummy_key: bytes) -> None:
    """The reason is said, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with keyrelay(ROUTES) as running:
            port = taken.getsockname()[1]
            with pytest.raises(KeyrelayError, match=r"admin listener: .* in use .* --admin$"):
                await start(Watched(running.app), f"127.0.0.1:{port}")
    assert runtime_file.running() == []


async def test_the_file_by_which_it_is_found(dummy_key: bytes) -> None:
    """There while it listens, with what is needed to ask."""
    async with inspected(ROUTES) as running:
        [found] = runtime_file.running()
        assert (found.url, found.token) == (running.url, running.token)
        assert running.warnings == []
    assert runtime_file.running() == []


async def test_a_file_that_cannot_be_written(dummy_key: bytes, runtime: Path) -> None:
    """keyrelay runs all the same, and says what will not work."""
    (runtime / "keyrelay").write_text("in the way")
    async with inspected(ROUTES) as running:
        [warning] = running.warnings
        assert "keyrelay status" in warning
        assert running.token not in warning
        assert (await ask(running, "/api/status"))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer dummy-canary\r\n\r\n",
        b"GET /?dummy-canary HTTP/9.x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: dummy-\0canary\r\n\r\n",
        b"POST /api/reload HTTP/1.1\r\nContent-Length: dummy-canary\r\n\r\n",
        b"dummy-canary\r\n\r\n",
        b"GET /" + b"dummy-canary" * 2000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_written_down_nowhere(
    running: Inspected,
    request_: bytes,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may hold a credential, and the client gets the reason."""
    async with await RawClient.to(running.admin.listener.address.port) as malformed:
        malformed.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % running.url[7:].encode())
        assert (await malformed.answer())[0] == 200
        malformed.send(request_)
        assert b" 400 " in (await malformed.head()).partition(b"\r\n")[0]
    assert running.warnings == []
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""
    assert (await ask(running, "/api/status"))[0] == 200


async def test_a_failure_of_ours_is_said_by_its_type(
    running: Inspected, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """500 without a word of it, and one line for the operator without a word of the request."""

    class Broken(Watched):
        async def snapshots(self) -> list[dict[str, Any]]:
            raise LookupError("dummy-canary")

    warnings: list[str] = []
    opened = await start(Broken(running.watched.app), warn=warnings.append)
    broken = Inspected(running.watched, opened, warnings)
    status, _, text = await ask(broken, "/api/status?dummy-canary")
    assert status == 500
    assert "canary" not in text
    assert warnings == ["the admin listener could not answer a request (LookupError)"]
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""
    await opened.close()


async def test_closing(dummy_key: bytes) -> None:
    """Subscribers get the end of the stream; closing twice is closing once."""
    async with inspected(ROUTES) as running:
        async with hearing(running) as heard, asyncio.timeout(3):
            await running.admin.close()
            with pytest.raises(EOFError):
                await heard.next("none")
        await running.admin.close()
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(running, "/")


async def test_secrets_are_nowhere(running: Inspected, runtime: Path) -> None:
    """Said by a client in a message, by a provider in a message or an event: what is kept, streamed
    or answered has it blotted out, and no answer holds a route's key."""
    watched = running.watched
    everything = b""
    async with hearing(running) as heard:
        path = f"/v1/{SECRET.decode()}/chat"
        socket_, stream = watched.begin(path, websocket=True), watched.begin("/v1/stream")
        socket_.log_detail = SECRET.decode()
        tap = watched.inspector_hub.tap(socket_, b"", MASKER)
        events = watched.inspector_hub.stream(stream, event_stream(), MASKER)
        assert tap is not None
        assert events is not None
        tap.from_client(frame(b"key=" + SECRET, mask=MASK))
        tap.from_provider(frame(b"\0" + SECRET, opcode=2))
        events.feed(b"data: " + SECRET[:5])
        events.feed(SECRET[5:] + b"\n\n")
        for _ in range(3):
            await heard.next("message")
        tap.ended()
        events.ended()
        watched.end(socket_)
        watched.end(stream)
        await heard.next("ended")
        everything += heard.raw
    for path in ("/api/status", "/metrics", "/api/exchanges", "/api/exchanges/1", "/"):
        everything += (await ask(running, path))[2].encode()
    everything += (await ask(running, f"/api/exchanges/{stream.number}"))[2].encode()
    assert b"key=****" in everything
    assert b"/v1/****" in everything
    assert SECRET not in everything
    assert SECRET.hex(" ").encode() not in everything


async def test_several_processes(running: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of all of them are added up, in the status and in the metrics."""
    running.watched.serve()
    [one] = await running.watched.snapshots()

    class Two(Watched):
        async def snapshots(self) -> list[dict[str, Any]]:
            return [one, one]

    two = await start(Two(running.watched.app))
    both = Inspected(running.watched, two, [])
    said = json.loads((await ask(both, "/api/status"))[2])
    assert len(said["pids"]) == 2
    assert said["tally"]["api"]["requests"] == {"GET": {"200": 2}}
    await two.close()
