"""Several processes: they share the work, the tokens and the sockets, and end together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from proxy.app.status import merged
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.process.supervisor import Supervisor
from proxy.secrets import local_authority
from tests.support.command import Done, keyrelay, running
from tests.support.keyrelay import (
    RawClient,
    RawProvider,
    answering,
    connection,
    exchange,
    raw_provider,
    read_head,
    static_route,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Their access log is nobody's business here.
IN_SILENCE = ("/bin/sh", "-c", 'exec "$@" > /dev/null', "sh")
START = (sys.executable, "-m", "proxy", "run", "--worker")
COMMAND = (*IN_SILENCE, *START)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def settings(routes: dict[str, Any], workers: int = 2, **more: Any) -> Settings:
    return Settings.model_validate(
        {"listen": "127.0.0.1:0", "drain_seconds": 5, "workers": workers, "routes": routes, **more}
    )


@asynccontextmanager
async def supervised(
    given: Settings, *, command: Sequence[str] = COMMAND
) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    """Workers of this process, and what they and their supervisor said."""
    said: list[str] = []
    async with Supervisor(given, command=command, warn=said.append) as app:
        yield app, said


def port(app: Supervisor) -> int:
    return app.listeners[0].address.port


async def pids(app: Supervisor) -> set[int]:
    return {pid for one in await app.snapshots() for pid in one["pids"]}


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def gone(pid: int) -> bool:
    """Whether a process has ended, even if its status was not collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def statuses(number: int, count: int, request: bytes) -> Counter[bytes]:
    """So many requests at once, each on a connection of its own; how they were answered."""
    answers = await asyncio.gather(*(exchange(number, request) for _ in range(count)))
    return Counter(one[9:12] for one in answers)


class TokenProvider:
    """Gives out tokens at ``/token`` and takes them elsewhere, unless ``refused`` has them.

    used     how often each was brought
    callers  at which path requests of this process (True) and of others (False) came
    """

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self.fetched = 0
        self.refused: set[str] = set()
        self.used: Counter[str] = Counter()
        self.callers: set[tuple[str, bool]] = set()
        self.slow = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = (await read_head(reader)).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                lower = {name.lower(): value for name, value in fields.items()}
                await reader.readexactly(int(lower.get("content-length", 0)))
                path = head.split()[1]
                ends = (writer.get_extra_info(name)[1] for name in ("peername", "sockname"))
                self.callers.add((path, is_own(*ends)))
                if path == "/token":
                    self.fetched += 1
                    token = {"access_token": f"dummy-{self.fetched}", "token_type": "bearer"}
                    body = json.dumps({**token, "expires_in": self.lifetime}).encode()
                    await asyncio.sleep(self.slow)
                    kind = b"Content-Type: application/json\r\n"
                    writer.write(
                        b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s"
                        % (kind, len(body), body)
                    )
                    continue
                brought = lower["authorization"].removeprefix("Bearer ")
                self.used[brought] += 1
                no = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
                writer.write(no if brought in self.refused else OK)


def is_own(local_port: int, remote_port: int) -> bool:
    """Whether this process holds the socket of an open TCP connection between two ports here."""
    ports = [f"{local_port:04X}", f"{remote_port:04X}"]
    inodes: set[str] = set()
    # The table is not read at one moment: while others open connections, a line may be missing.
    while not inodes:
        lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        ends = ([end.split(":")[1] for end in line[1:3]] for line in lines)
        inodes = {line[9] for line, found in zip(lines, ends, strict=True) if found == ports} - {
            "0"
        }
    return any(
        path.is_symlink() and str(path.readlink()).removeprefix("socket:").strip("[]") in inodes
        for path in Path("/proc/self/fd").iterdir()
    )


Tokens = tuple[TokenProvider, dict[str, Any]]


@pytest.fixture
async def tokens(dummy_key: bytes) -> AsyncIterator[Tokens]:
    """A provider of tokens with a lifetime of an hour, and the routes that lead to it."""
    provider = TokenProvider(3600)
    async with raw_provider(provider.serve) as raw:
        yield provider, {"api": token_route(raw)}


def token_route(raw: RawProvider) -> dict[str, Any]:
    return {
        "upstream": raw.url,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [
            {
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": "/token",
                    "client_id": "dummy-client",
                    "client_secret": "{key}",
                },
                "http": {"header": "Authorization", "value": "Bearer {token}"},
            }
        ],
    }


# -- serving -----------------------------------------------------------------------------------


async def test_requests_are_spread_and_counted(dummy_key: bytes) -> None:
    """Connections are spread over the processes, to those that confirm them sooner a few more; the
    snapshots add up to the requests.
    """
    async with (
        raw_provider(answering(OK)) as provider,
        supervised(settings({"api": static_route(provider.url)})) as (app, said),
    ):
        assert await statuses(port(app), 60, get("/api/x")) == {b"200": 60}
        snapshots = await app.snapshots()
        served = [one["tally"]["api"]["requests"]["GET"]["200"] for one in snapshots]
        assert sum(served) == 60
        assert min(served) >= 20
        whole = merged(snapshots)
        assert whole["tally"]["api"]["requests"]["GET"]["200"] == 60
        assert len(set(whole["pids"])) == 2
        assert os.getpid() not in whole["pids"]
        assert whole["listeners"] == [{"url": app.listeners[0].url, "route": None}]
        assert said == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_is_told_from_others() -> None:
    """The kernel says whose connection it is also where another process accepted it, and each
    worker says so, but it is heard once.
    """
    async with supervised(settings({})) as (app, said):
        for _ in range(4):
            os.seteuid(65534)
            try:
                sock = socket.create_connection(("127.0.0.1", port(app)))
            finally:
                os.seteuid(0)
            async with RawClient(*await asyncio.open_connection(sock=sock)) as client:
                client.send(HEALTH)
                assert (await client.answer())[0] == 200
        assert len([line for line in said if "uid 65534" in line]) == 1


async def test_a_unix_socket_serves_too(dummy_key: bytes) -> None:
    """Workers accept from the supervisor's socket file, which is gone at the end."""
    with TemporaryDirectory(prefix="keyrelay") as directory:
        path = Path(directory) / "socket"
        async with supervised(settings({}, listen=f"unix:{path}")):
            assert path.stat().st_mode & 0o777 == 0o600
            for _ in range(4):
                async with RawClient(*await asyncio.open_unix_connection(str(path))) as client:
                    client.send(HEALTH)
                    assert (await client.answer())[0] == 200
        assert not path.exists()


async def test_a_secret_is_asked_for_once(tmp_path: Path) -> None:
    """A program that prints a key is run by the supervisor alone, also when a worker is replaced:
    it may want somebody's fingerprint.
    """
    program, runs = tmp_path / "program", tmp_path / "runs"
    program.write_text(f"#!/bin/sh\necho run >> {runs}\necho dummy-real-key\n")
    program.chmod(0o700)
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_head(reader))
        writer.write(OK)

    async with raw_provider(serve) as provider:
        route = static_route(provider.url, secrets={"key": f"exec:{program}"})
        async with supervised(settings({"api": route})) as (app, _):
            before = await pids(app)
            os.kill(min(before), signal.SIGKILL)
            await replaced(app, before)
            for _ in range(8):
                assert (await exchange(port(app), get("/api/x"))).startswith(b"HTTP/1.1 200 ")
    assert all(b"dummy-real-key" in one for one in received)
    assert runs.read_text() == "run\n"


# -- tokens ------------------------------------------------------------------------------------


async def test_one_call_gets_the_token_of_all(tokens: Tokens) -> None:
    """Four processes and 200 requests at once: one token, one call, and it is counted once."""
    provider, routes = tokens
    provider.slow = 0.3
    async with supervised(settings(routes, workers=4)) as (app, _):
        assert await statuses(port(app), 200, get("/api/x")) == {b"200": 200}
        assert provider.fetched == 1
        assert provider.used == {"dummy-1": 200}
        (strategy,) = merged(await app.snapshots())["routes"]["api"]["strategies"]
        assert (strategy["credential"]["fetches"], strategy["credential"]["failures"]) == (1, 0)


async def test_a_token_that_all_see_refused_is_fetched_once(tokens: Tokens) -> None:
    """Every request is repeated with the one successor, whenever a token is refused that served.
    If a successor is refused at once, there is no further call.
    """
    provider, routes = tokens
    async with supervised(settings(routes, workers=3)) as (app, _):
        assert await statuses(port(app), 30, get("/api/x")) == {b"200": 30}
        provider.refused = {"dummy-1"}
        assert await statuses(port(app), 60, get("/api/x")) == {b"200": 60}
        assert provider.fetched == 2
        provider.refused.add("dummy-2")
        assert await statuses(port(app), 60, get("/api/x")) == {b"200": 60}
        assert provider.fetched == 3
        provider.refused |= {"dummy-3", "dummy-4"}
        assert await statuses(port(app), 60, get("/api/x")) == {b"401": 60}
        assert provider.fetched == 4


@pytest.mark.seconds
async def test_short_lived_tokens_are_fetched_by_the_supervisor_only(tokens: Tokens) -> None:
    """Workers make no call of their own, however often a token is renewed; no request fails."""
    provider, routes = tokens
    provider.lifetime = 2
    async with supervised(settings(routes, workers=3)) as (app, _):
        # On a busy machine several are fetched before the first worker serves.
        before = provider.fetched
        while provider.fetched < before + 3:
            assert await statuses(port(app), 6, get("/api/x")) == {b"200": 6}
            await asyncio.sleep(0.05)
        # The supervisor is a part of this process, its workers are not.
        assert provider.callers == {("/token", True), ("/x", False)}


async def test_a_token_that_is_not_to_be_had_is_said_by_all(dummy_key: bytes) -> None:
    """The reason is the token endpoint's failure, not that another process fetches it."""
    no = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    async with (
        raw_provider(answering(no)) as provider,
        supervised(settings({"api": token_route(provider)})) as (app, _),
    ):
        for _ in range(6):
            answer = await exchange(port(app), get("/api/x"))
            assert answer[9:12] in {b"502", b"503"}
            assert b"Retry-After: " in answer
            assert b"500" in answer.partition(b"\r\n\r\n")[2]


# -- changes -----------------------------------------------------------------------------------


async def test_all_workers_take_a_configuration(dummy_key: bytes) -> None:
    """Another route and another listener, everywhere; what was there stays where it is."""
    async with (
        raw_provider(answering(OK)) as provider,
        supervised(settings({"api": static_route(provider.url)})) as (app, said),
    ):
        first, before = app.listeners[0].address, await pids(app)
        routes = {"api": static_route(provider.url), "more": static_route(provider.url)}
        listen = ["127.0.0.1:0", "127.0.0.1:0"]
        changed = await app.adopt(settings(routes, listen=listen))
        assert changed == ("route more is new", "listens at 127.0.0.1:0")
        assert app.listeners[0].address == first
        for listener in app.listeners:
            number = listener.address.port
            assert await statuses(number, 20, get("/more/x")) == {b"200": 20}
        await app.adopt(settings({"api": static_route(provider.url)}, listen=listen[:1]))
        assert await statuses(port(app), 20, get("/more/x")) == {b"404": 20}
        await until(lambda: closed(number))
        assert await pids(app) == before
        (line,) = said
        assert line.startswith("refused a request: No route /more.")


def closed(number: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", number)) != 0


async def test_a_changed_key_reaches_all_workers(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor reads the new value and hands it on."""
    received: Counter[bytes] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        received[head.partition(b"X-Api-Key: ")[2].partition(b"\r\n")[0]] += 1
        writer.write(OK)

    async with raw_provider(serve) as provider:
        given = settings({"api": static_route(provider.url)})
        async with supervised(given) as (app, _):
            monkeypatch.setenv("DUMMY_KEY", "dummy-other-key")
            assert await app.adopt(given) == ("route api has other secrets",)
            assert await statuses(port(app), 20, get("/api/x")) == {b"200": 20}
    assert received == {b"dummy-other-key": 20}


# -- processes that end ------------------------------------------------------------------------


async def replaced(app: Supervisor, before: set[int], count: int = 1) -> set[int]:
    """The workers, once there are as many as before and so many of them are new."""
    async with asyncio.timeout(30):
        while True:
            now = await pids(app)
            if len(now) == len(before) and len(now - before) == count:
                return now
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_is_replaced_while_others_serve(
    dummy_key: bytes, number: signal.Signals
) -> None:
    """Only clients of this very process notice it; if it was asked to end, none does."""
    async with (
        raw_provider(answering(OK)) as provider,
        supervised(settings({"api": static_route(provider.url)})) as (app, said),
    ):
        before, broken, served, over = await pids(app), 0, 0, asyncio.Event()

        async def load() -> None:
            nonlocal broken, served
            while not over.is_set():
                try:
                    answer = await exchange(port(app), get("/api/x"))
                except (asyncio.IncompleteReadError, ConnectionError):
                    broken += 1
                else:
                    assert answer.startswith(b"HTTP/1.1 200 ")
                    served += 1

        load_tasks = [asyncio.get_running_loop().create_task(load()) for _ in range(4)]
        await until(lambda: served > 20)
        victim = min(before)
        os.kill(victim, number)
        after = await replaced(app, before)
        enough = served + 20
        await until(lambda: served > enough)
        over.set()
        await asyncio.gather(*load_tasks)
        assert len(after & before) == 1
        assert broken <= (4 if number == signal.SIGKILL else 0)
        (line,) = said
        how = "was ended by SIGKILL" if number == signal.SIGKILL else "ended with exit code 0"
        assert line.endswith(f"(pid {victim}) {how}; another takes its place")


async def test_no_worker_inherits_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one of the first nor one that takes its place: none of a variable that a secret comes
    from, or came from before a reload, nor of what is the supervisor's alone. All else is there.
    """
    names = ("DUMMY_KEY", "DUMMY_OLD", "DUMMY_TOKEN", "DUMMY_NEXT")
    for name in (*names, "KEYRELAY_KEYS", "CREDENTIALS_DIRECTORY", "DUMMY_HARMLESS"):
        monkeypatch.setenv(name, f"/dummy-{name}")

    def files() -> list[Path]:
        return list(tmp_path.iterdir())

    script = f'env > "{tmp_path}/$$"; exec "$@" > /dev/null'
    command = ("/bin/sh", "-c", script, "sh", *START)
    route = static_route(
        "https://api.example.com", secrets={"key": ["env:DUMMY_KEY", "env:DUMMY_OLD"]}
    )
    async with supervised(
        settings({"api": route}, inbound_token="env:DUMMY_TOKEN"), command=command
    ) as (app, _):
        other = static_route("https://api.example.com", secrets={"key": "env:DUMMY_NEXT"})
        await app.adopt(settings({"api": other}))
        before = await pids(app)
        os.kill(min(before), signal.SIGKILL)
        await until(lambda: len(files()) == 3)
        await until(lambda: len(app._ready) == 2)
    seen = {int(file.name): file.read_text().splitlines() for file in files()}
    for pid, lines in seen.items():
        # The first two began when the next configuration was not known.
        later = pid not in before
        assert ("DUMMY_NEXT=/dummy-DUMMY_NEXT" in lines) is not later
        assert "DUMMY_HARMLESS=/dummy-DUMMY_HARMLESS" in lines
        left = [line for line in lines if "/dummy-" in line and "HARMLESS" not in line]
        assert left in ([], ["DUMMY_NEXT=/dummy-DUMMY_NEXT"])


async def test_workers_that_cannot_start_are_the_end() -> None:
    """Tried a few times, then said."""
    with pytest.raises(KeyrelayError, match=r"^worker \d \(pid \d+\) did not start: it has ended$"):
        async with supervised(settings({}), command=("/bin/false",)):
            pytest.fail("it started")
    with pytest.raises(KeyrelayError, match="cannot be started: No such file or directory"):
        async with supervised(settings({}), command=("/none/such",)):
            pytest.fail("it started")


async def test_no_worker_left_is_the_end(tmp_path: Path) -> None:
    """When none can be started any more, the caller of the supervisor is told to end it."""
    script = f'test -e {tmp_path}/broken && exec false; exec "$@" > /dev/null'
    command = ("/bin/sh", "-c", script, "sh", *START)
    gone = asyncio.Event()
    said: list[str] = []
    given = settings({})
    async with Supervisor(given, command=command, warn=said.append, gone=gone.set) as app:
        (tmp_path / "broken").touch()
        for pid in await pids(app):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await gone.wait()
        assert "did not start" in str(app.failure)
        assert 5 <= len(said) <= 10


async def test_a_worker_that_cannot_follow_is_replaced() -> None:
    """It is told to end, and the next one gets the configuration from the beginning."""
    async with supervised(settings({})) as (app, said):
        before = await pids(app)
        # Nobody checks it here, and every worker does. The loader lets no such thing pass.
        await app.adopt(settings({}).model_copy(update={"drain_seconds": -1}))
        assert len([line for line in said if "cannot serve by the new configuration" in line]) == 2
        await app.adopt(settings({}))
        assert not await replaced(app, before, 2) & before
        assert (await exchange(port(app), HEALTH)).startswith(b"HTTP/1.1 200 ")


# -- the command -------------------------------------------------------------------------------

LISTEN = ("--listen", "127.0.0.1:0")


async def test_the_command_says_once_where_it_listens() -> None:
    """One banner with one real port, whichever worker serves there."""
    async with running("run", "demo", *LISTEN, "--workers", "2") as process:
        assert len(children(process.pid)) == 2
        assert process.port > 0
        assert (await statuses(process.port, 10, get("/demo/echo/x"))) == {b"200": 10}
        process.signal(signal.SIGINT)
        assert await process.ended(5) == 0
    assert process.err.count("keyrelay 0.") == 1
    assert process.err.count("Stopping.") == 1


def test_a_port_in_use_is_one_line() -> None:
    """Workers do not join what another program has opened."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert keyrelay("run", "demo", "--workers", "2", "--listen", address) == Done(
            1,
            "",
            f"keyrelay: {address} is in use by another program; "
            "stop that program, or choose another address with --listen\n",
        )


async def test_nobody_can_join_the_port() -> None:
    """No other program gets connections that are meant for keyrelay, whatever it asks for."""
    async with supervised(settings({})) as (app, _):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port(app)))


async def test_what_is_in_flight_ends_well() -> None:
    """After SIGTERM no connection is accepted, and each worker's streams end well; then exit 0."""
    async with running("run", "demo", *LISTEN, "--workers", "2") as process:
        workers = children(process.pid)
        async with (
            connection(process.port) as (one, first),
            connection(process.port) as (other, second),
        ):
            for reader, writer in ((one, first), (other, second)):
                writer.write(get("/demo/sse?n=4&interval_ms=150"))
                await reader.readuntil(b"id: 1\n")
            process.signal(signal.SIGTERM)
            await process.said("Stopping.")
            await until(lambda: closed(process.port))
            for reader in (one, other):
                assert (await reader.read()).endswith(b"\r\n0\r\n\r\n")
        assert await process.ended(5) == 0
        assert all(map(gone, workers))


async def test_a_second_signal_ends_all_at_once() -> None:
    """Workers do not wait longer after a second signal."""
    async with (
        running("run", "demo", *LISTEN, "--workers", "2") as process,
        connection(process.port) as (_, writer),
    ):
        writer.write(get("/demo/slow?seconds=60"))
        await asyncio.sleep(0.1)
        workers = children(process.pid)
        process.signal(signal.SIGTERM)
        await process.said("A second signal stops at once.")
        process.signal(signal.SIGTERM)
        assert await process.ended(5) == 0
        assert all(map(gone, workers))


async def test_workers_end_with_their_supervisor() -> None:
    """Killed, it cannot tell them; they notice."""
    async with running("run", "demo", *LISTEN, "--workers", "2") as process:
        workers = children(process.pid)
        process.signal(signal.SIGKILL)
        await process.ended()
        await until(lambda: all(map(gone, workers)), seconds=10)
        assert closed(process.port)


async def test_sighup_reloads_all_or_none(tmp_path: Path) -> None:
    """A file with a mistake changes nothing anywhere; a good one serves everywhere."""
    routes = tmp_path / "routes.yaml"
    text = "listen: 127.0.0.1:0\nworkers: 2\nroutes:\n  demo: {provider: demo}\n"
    routes.write_text(text)
    async with running("run", "-c", "routes.yaml", cwd=tmp_path) as process:
        routes.write_text(text + "  other: {provider: demoo}\n")
        process.signal(signal.SIGHUP)
        await process.said("The configuration was not taken")
        assert await statuses(process.port, 10, get("/demo/echo/x")) == {b"200": 10}
        routes.write_text(text + "  other: {provider: demo}\n")
        process.signal(signal.SIGHUP)
        await process.said("Reloaded: route other is new.")
        assert await statuses(process.port, 20, get("/other/echo/x")) == {b"200": 20}
        process.signal(signal.SIGTERM)
        assert await process.ended(5) == 0
    assert process.err.count("Reloaded:") == 1


async def test_the_access_log_is_that_of_all() -> None:
    """Each exchange has its line on stdout, whichever worker served it."""
    async with running("run", "demo", *LISTEN, "--workers", "2") as process:
        assert await statuses(process.port, 40, get("/demo/echo/x")) == {b"200": 40}
        await process.logged(40)
    lines = [json.loads(line) for line in process.out.splitlines()]
    assert [line["path"] for line in lines] == ["/echo/x"] * 40
    # Their names begin with something of the process.
    assert len({line["request_id"].partition("-")[0] for line in lines}) == 2


async def test_tls_is_served_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get the certificate from the supervisor, and the next one when it is renewed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    local_authority.create(time.time())
    context = ssl.create_default_context(cafile=str(local_authority.certificate_file()))
    async with supervised(settings({}, listen="https://127.0.0.1:0")) as (app, said):

        async def serial() -> str:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port(app), ssl=context, server_hostname="localhost"
            )
            writer.write(HEALTH)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.transport.abort()
            return str(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])

        before = {await serial() for _ in range(4)}
        assert len(before) == 1
        await app.renew_certificate()
        after = {await serial() for _ in range(4)}
        assert len(after) == 1
        assert before != after
        assert app.listeners[0].url.startswith("https://")
        assert not said
