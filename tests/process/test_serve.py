"""Keyrelay as a running process: what it says at the start, how it ends, what it never says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from proxy.admin import runtime_file
from tests.emulators import HUME_KEY, HumeEmulator
from tests.support.command import (
    CANARY,
    COMMAND,
    Done,
    Process,
    environment,
    keyrelay,
    keys,
    running,
)
from tests.support.keyrelay import connection, exchange, raw_provider, read_head

LISTEN = ("--listen", "127.0.0.1:0")
SCRIPT = shutil.which("script")
PAGE = "http://localhost:5173"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def free(port: int) -> bool:
    """Whether nothing listens there, so that a test may have it."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# --- the start --------------------------------------------------------------------------------


async def test_providers_by_name_need_no_file(tmp_path: Path) -> None:
    """run hume demo: a route each, ready if its variable is set, at a path of its name."""
    variables = {"HUME_API_KEY": CANARY}
    async with running("run", "hume", "demo", "camb", *LISTEN, variables=variables) as process:
        await process.said("camb")
        lines = dict(line.strip().split(maxsplit=1) for line in process.err.splitlines()[2:5])
        url = process.urls[0]
        assert lines == {
            "hume": f"ready      {url}/hume → https://api.hume.ai",
            "demo": f"ready      {url}/demo → built-in",
            "camb": "not ready  set CAMB_API_KEY",
        }
        assert (await exchange(process.port, get("/demo/echo/x"))).startswith(b"HTTP/1.1 200 ")
        refused = await exchange(process.port, get("/camb/apis/list-voices"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'"advice": "set CAMB_API_KEY"' in refused


async def test_the_banner_ends_with_a_request_that_works() -> None:
    """Of the first route that is ready, beside where the inspector is; Ctrl-C only where a
    terminal can send it.
    """
    async with running("run", "hume", "demo", *LISTEN, until="inspector") as process:
        await process.said("\n", after="inspector")
        command = re.search(r"^  try it     (curl .*)$", process.err, re.MULTILINE)
        assert command is not None
        done = await asyncio.to_thread(
            subprocess.run, shlex.split(command[1]), capture_output=True, timeout=30, check=True
        )
        assert json.loads(done.stdout)["target"] == "/echo/verify"
        assert "  inspector  off; --admin opens it\n" in process.err
        assert "Ctrl-C" not in process.err


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ("verify: GET /v1/x?a=b", "curl '{}/api/v1/x?a=b'"),
        ("strip: {}\ninbound_token: env:DUMMY_TOKEN", "curl -H 'X-Keyrelay-Token: TOKEN' {}/api/"),
        ("secrets: {key: env:MISSING}", "no route is ready; keyrelay demo needs no key"),
    ],
    ids=["verify", "token", "none"],
)
async def test_the_first_request_fits_the_settings(
    tmp_path: Path, settings: str, command: str
) -> None:
    """What the route is verified with, and the inbound token that it needs; without a ready route,
    what needs no key.
    """
    route, _, more = settings.partition("\n")
    (tmp_path / "routes.yaml").write_text(
        "listen: 127.0.0.1:0\n"
        f"{more}\n"
        "routes:\n"
        "  api:\n"
        "    upstream: http://127.0.0.1:9\n"
        f"{'' if 'secrets' in route else '    secrets: {key: env:DUMMY_KEY}'}\n"
        "    auth: [{name: key, http: {header: X-Api-Key, value: '{key}'}}]\n"
        f"    {route}\n"
    )
    variables = {"DUMMY_KEY": CANARY, "DUMMY_TOKEN": "dummy-inbound-token-of-32-letters"}
    async with running(
        "run", "-c", "routes.yaml", cwd=tmp_path, variables=variables, until="try it"
    ) as process:
        await process.said("\n", after="try it")
        assert f"  try it     {command.format(process.urls[0])}\n" in process.err


async def test_nothing_at_all_runs_the_shipped_routes() -> None:
    """Without names, file and key: demo serves, the others name their variable, and a listener of
    a route that is not ready is not opened.
    """
    async with running("run", *LISTEN, until="INWORLD_API_KEY") as process:
        for variable in ("HUME_API_KEY", "AIGNE_HUB_API_KEY", "CAMB_API_KEY", "INWORLD_API_KEY"):
            assert f"not ready  set {variable}" in process.err
        assert (await exchange(process.port, get("/demo/echo/x"))).startswith(b"HTTP/1.1 200 ")
        assert "8082" not in process.err
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_file_s_routes_lead_to_its_providers(tmp_path: Path) -> None:
    """From YAML on disk and a key in a file to a provider that takes the request."""
    (tmp_path / "key").write_text(f"{HUME_KEY}\n")
    (tmp_path / "key").chmod(0o600)
    async with HumeEmulator(strategy="key") as hume:
        (tmp_path / "routes.yaml").write_text(
            "listen: [127.0.0.1:0, '[::1]:0']\n"
            "routes:\n"
            "  hume:\n"
            "    provider: hume\n"
            f"    upstream: {hume.origin}\n"
            f"    secrets: {{api_key: 'file:{tmp_path}/key'}}\n"
        )
        async with running("run", "-c", "routes.yaml", cwd=tmp_path) as process:
            assert len(process.urls) >= 2
            for url in process.urls[:2]:
                async with (
                    aiohttp.ClientSession() as http,
                    http.get(f"{url}/hume/v0/evi/configs") as answer,
                ):
                    assert answer.status == 200
            assert HUME_KEY not in process.err
        assert hume.faults == []
    assert HUME_KEY not in process.out


async def test_an_origin_on_the_command_line_is_let_in() -> None:
    """--origin is as good as browsers.origins: this page and no other."""
    async with (
        running("run", "demo", *LISTEN, "--origin", PAGE) as process,
        aiohttp.ClientSession() as http,
    ):
        for origin, status in ((PAGE, 200), ("http://localhost:5174", 403)):
            url = f"{process.urls[0]}/demo/echo/x"
            async with http.get(url, headers={"Origin": origin}) as answer:
                assert answer.status == status
                assert answer.headers.get("Access-Control-Allow-Origin") == (
                    PAGE if status == 200 else None
                )


def test_strict_refuses_to_start_without_a_secret() -> None:
    """Every missing variable is named; exit 1. With all of them there it would start."""
    done = keyrelay("run", "hume", "camb", "demo", *LISTEN, "--strict")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "keyrelay: hume: not ready: set HUME_API_KEY\nkeyrelay: camb: not ready: set CAMB_API_KEY\n"
    )


async def test_strict_starts_if_nothing_is_missing() -> None:
    """With all secrets there it is a start like any other."""
    async with running("run", "hume", "camb", *LISTEN, "--strict", variables=keys()) as process:
        assert "not ready" not in process.err


def test_a_port_in_use_is_one_line() -> None:
    """Exit 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for command in (("run", "demo"), ("demo",)):
            assert keyrelay(*command, "--listen", address) == Done(
                1,
                "",
                f"keyrelay: {address} is in use by another program; "
                "stop that program, or choose another address with --listen\n",
            )


def test_a_socket_file_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    """No such directory: exit 1 and a line."""
    done = keyrelay("run", "demo", "--listen", f"unix:{tmp_path}/none/x.sock")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)


async def test_a_socket_file_left_behind_is_taken_over(tmp_path: Path) -> None:
    """A killed process leaves its file; the next one starts all the same. A live one is not."""
    listen = ("--listen", f"unix:{tmp_path}/x.sock")
    async with running("run", "demo", *listen) as killed:
        done = keyrelay("run", "demo", *listen)
        assert done.code == 1
        assert "is in use by another keyrelay; use that one" in done.err
        killed.signal(signal.SIGKILL)
        await killed.ended()
    async with running("run", "demo", *listen):
        assert keyrelay("health", listen[1]) == Done(0, "ok\n", "")


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0(number: int) -> None:
    """Idle, it is gone at once, with a client's unused connection open."""
    async with (
        running("run", "demo", *LISTEN) as process,
        connection(process.port) as (reader, writer),
    ):
        writer.write(get("/-/health"))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        process.signal(number)
        assert await process.ended() == 0


@contextlib.asynccontextmanager
async def stopping(process: Process) -> AsyncIterator[asyncio.StreamReader]:
    """A stream of about a second that began before SIGTERM was received."""
    async with connection(process.port) as (reader, writer):
        writer.write(get("/demo/sse?n=4&interval_ms=300"))
        await reader.readuntil(b"id: 1\n")
        process.signal(signal.SIGTERM)
        await process.said("Stopping.")
        yield reader


async def test_what_is_in_flight_ends_well() -> None:
    """After SIGTERM no connection is accepted, and a stream goes on to its own end; then exit 0."""
    async with running("run", "demo", *LISTEN) as process:
        async with stopping(process) as reader:
            async with asyncio.timeout(5):
                while not free(process.port):  # noqa: ASYNC110  another process closes it
                    await asyncio.sleep(0.01)
            rest = await reader.read()
            assert b"id: 4\n" in rest
            assert rest.endswith(b"\r\n0\r\n\r\n")
        assert await process.ended() == 0


async def test_a_second_signal_ends_it_at_once() -> None:
    """A second signal ends what is in flight; the client sees a broken end."""
    async with (
        running("run", "demo", *LISTEN) as process,
        connection(process.port) as (reader, writer),
    ):
        writer.write(get("/demo/slow?seconds=60"))
        await asyncio.sleep(0.05)
        process.signal(signal.SIGTERM)
        await process.said("A second signal stops at once.")
        with pytest.raises(TimeoutError):
            await process.ended(0.05)
        process.signal(signal.SIGTERM)
        assert await process.ended(8) == 0  # before drain_seconds (10) are over
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""


@contextlib.asynccontextmanager
async def open_socket() -> AsyncIterator[tuple[Process, ClientConnection]]:
    """A process, and a WebSocket to its built-in provider."""
    async with running("run", "demo", *LISTEN) as process:
        url = f"ws://127.0.0.1:{process.port}/demo/ws"
        async with connect(url, proxy=None, close_timeout=1) as socket:
            await socket.recv()
            yield process, socket


async def test_open_sockets_do_not_delay_the_end() -> None:
    """A WebSocket may stay open for hours; SIGTERM does not wait for that."""
    async with open_socket() as (process, socket):
        process.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(2):
                await socket.recv()
        assert await process.ended() == 0


async def test_open_sockets_are_told_that_it_goes_away() -> None:
    """A client sees 1001, going away (RFC 6455 section 7.4.1), and knows to connect again."""
    async with open_socket() as (process, socket):
        process.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


async def test_a_signal_during_the_start_is_heard() -> None:
    """A signal right after the banner gives an orderly end and no other."""
    async with running("run", "demo", *LISTEN) as process:
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


# --- the admin listener -----------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of this test say where they can be asked."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def written(runtime: Path) -> list[Path]:
    return list(runtime.glob("keyrelay/admin-*"))


async def inspector(process: Process) -> tuple[str, str]:
    """Its address as it printed it, and its token, which its file has."""
    await process.said("inspector")
    await process.said("\n", after="inspector")
    found = re.search(
        r"^  inspector  (http://[\d.:]+) \(keyrelay status --page ", process.err, re.MULTILINE
    )
    assert found is not None
    [file] = [one for one in runtime_file.running() if one.pid == process.pid]
    assert file.url == found[1]
    return file.url, file.token


async def test_the_printed_address_is_the_inspector_s(runtime: Path) -> None:
    """The page behind it, and with its token what the page asks for. The token is a credential: no
    log of a service manager or container engine has it from us."""
    async with (
        running("run", "demo", *LISTEN, "--admin", "127.0.0.1:0") as process,
        aiohttp.ClientSession() as http,
    ):
        url, token = await inspector(process)
        async with http.get(f"{url}/") as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
        for sent, status in ((token, 200), ("wrong", 401)):
            headers = {"Authorization": f"Bearer {sent}"}
            async with http.get(f"{url}/api/status", headers=headers) as answer:
                assert answer.status == status
        assert token not in process.err
        assert token not in process.out


@pytest.mark.skipif(SCRIPT is None, reason="needs script, for a terminal")
async def test_on_a_terminal_the_printed_address_opens_the_inspector(runtime: Path) -> None:
    """An operator at a terminal gets the token with it, once."""
    assert SCRIPT is not None
    arguments = shlex.join([*COMMAND, "run", "demo", *LISTEN, "--admin", "127.0.0.1:0"])
    terminal = await asyncio.create_subprocess_exec(
        *(SCRIPT, "-qec", f"exec {arguments}", "/dev/null"),
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert terminal.stdout is not None
    try:
        async with asyncio.timeout(30):
            said = await terminal.stdout.readuntil(b"#token=")
            said += await terminal.stdout.readline()
        [file] = runtime_file.running()
        assert file.page_url in said.decode()
        assert said.decode().count(file.token) == 1
        os.kill(file.pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            assert file.token not in (await terminal.stdout.read()).decode()
            assert await terminal.wait() == 0
    finally:
        if terminal.returncode is None:
            terminal.kill()
            await terminal.wait()


async def test_status_and_reload_find_it_until_it_ends(runtime: Path) -> None:
    """By its file, which holds the token and goes with it; so does the listener at SIGTERM, while
    what is in flight goes on."""
    async with running("run", "demo", *LISTEN, "--admin", "127.0.0.1:0") as process:
        url, token = await inspector(process)
        [file] = written(runtime)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["token"] == token
        done = keyrelay("status")
        assert (done.code, done.err) == (0, "")
        assert f"process {process.pid}, " in done.out
        assert token not in done.out
        assert keyrelay("reload") == Done(0, "nothing is different\n", "")
        async with stopping(process) as reader:
            async with asyncio.timeout(30):
                while written(runtime) or not free(int(url.rpartition(":")[2])):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await reader.read()).endswith(b"\r\n0\r\n\r\n")
        assert await process.ended() == 0
    assert keyrelay("status").code == 1


async def test_an_inspector_that_watches_delays_nothing(runtime: Path) -> None:
    """Its stream of events would go on for ever."""
    async with (
        running("run", "demo", *LISTEN, "--admin", "127.0.0.1:0") as process,
        aiohttp.ClientSession() as http,
    ):
        url, token = await inspector(process)
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(f"{url}/api/events", headers=headers) as answer:
            assert (await answer.content.readline()).startswith(b"event: ")
            process.signal(signal.SIGTERM)
            await answer.read()
        assert await process.ended() == 0


def test_an_admin_port_in_use_is_one_line(runtime: Path) -> None:
    """Exit 1 before anything is said to run, what to do about it, and no file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert keyrelay("run", "demo", *LISTEN, "--admin", address) == Done(
            1,
            "",
            f"keyrelay: admin listener: {address} is in use by another program; "
            "stop that program, or choose another address with --admin\n",
        )
    assert written(runtime) == []


async def test_an_admin_port_of_another_keyrelay_is_recognised(runtime: Path) -> None:
    """By its runtime file: no advice to stop an unknown program."""
    async with running("run", "demo", *LISTEN, "--admin", "127.0.0.1:0") as process:
        url, _ = await inspector(process)
        done = keyrelay("run", "demo", *LISTEN, "--admin", url.removeprefix("http://"))
    assert done.code == 1
    assert "is in use by another keyrelay of yours; stop it or choose another" in done.err


async def test_an_admin_socket_file_goes_with_its_listener(runtime: Path) -> None:
    """The file mode restricts access, so there is no token; nothing is left behind."""
    path = runtime / "admin"
    async with running("run", "demo", *LISTEN, "--admin", f"unix:{path}") as process:
        await process.said(f"  inspector  unix:{path}\n")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keyrelay("status").code == 0
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert not path.exists()
    assert written(runtime) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_route_leads_to_the_admin_listener(runtime: Path, host: str) -> None:
    """A route to an address that --admin opens is a finding at the start."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    file = runtime / "routes.yaml"
    file.write_text(
        f"listen: 127.0.0.1:0\nroutes: {{back: {{provider: hume, upstream: 'http://{host}:{port}'}}}}"
    )
    done = keyrelay("run", "-c", str(file), "--admin", f"127.0.0.1:{port}", variables=keys())
    assert done.code == 2
    assert "the upstream is keyrelay itself" in done.err


# --- what it says -----------------------------------------------------------------------------


async def test_the_access_log_is_json_and_has_no_secret(tmp_path: Path) -> None:
    """One line per exchange on stdout: no query, no header field, no credential."""
    async with HumeEmulator(key=CANARY, strategy="key") as hume:
        path = tmp_path / "routes.yaml"
        path.write_text(
            f"listen: 127.0.0.1:0\nroutes: {{hume: {{provider: hume, upstream: '{hume.origin}'}}}}"
        )
        async with running("run", "-c", str(path), variables=keys()) as process:
            head = get("/hume/v0/x?api_key=client-dummy&q=canary-query")
            head = head.replace(b"\r\n\r\n", b"\r\nX-Hume-Api-Key: client-dummy\r\n\r\n")
            assert (await exchange(process.port, head)).startswith(b"HTTP/1.1 200 ")
            await process.logged(1)
            line = json.loads(process.out)
            assert (line["route"], line["path"], line["status"]) == ("hume", "/v0/x", 200)
            assert line["strategy"] == "api_key"
            assert "client-dummy" not in process.out
            assert "canary-query" not in process.out
        assert hume.faults == []


async def test_nobody_reading_the_log_stops_nothing() -> None:
    """``keyrelay run | head``: one line says that the log ends; requests go on, and so the end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with running("run", "demo", *LISTEN, stdout=writing) as process:
            for _ in range(2):
                answer = await exchange(process.port, get("/demo/echo/x"))
                assert answer.startswith(b"HTTP/1.1 200 ")
                await process.said("The access log has no reader any more")
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert process.err.count("no reader any more") == 1
    finally:
        os.close(writing)


async def test_no_provider_s_words_reach_a_log(tmp_path: Path) -> None:
    """A provider that cannot be reached, or speaks no HTTP: a line of ours, nothing of its own."""

    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"SSH-2.0-gibberish\r\n\r\n")
        await writer.drain()

    async with raw_provider(gibberish) as provider:
        path = tmp_path / "routes.yaml"
        path.write_text(
            "listen: 127.0.0.1:0\n"
            "routes:\n"
            f"  odd: {{provider: hume, upstream: '{provider.url}'}}\n"
            "  gone: {provider: hume, upstream: 'http://127.0.0.1:9'}\n"
        )
        async with running("run", "-c", str(path), variables=keys()) as process:
            for route in ("odd", "gone"):
                answer = await exchange(process.port, get(f"/{route}/x"))
                assert answer.startswith(b"HTTP/1.1 502 ")
                assert b"gibberish" not in answer
                assert CANARY.encode() not in answer
            await process.logged(2)
            assert "gibberish" not in process.out + process.err


# --- the demo ---------------------------------------------------------------------------------


async def pasted(command: str) -> str:
    """What a shell prints for it."""
    shell = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await shell.communicate()
    assert shell.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_demo_s_three_commands_work_as_printed(kind: str, tmp_path: Path) -> None:
    """Pasted into a shell as they stand: HTTP, events, WebSocket, each authenticated."""
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/demo socket"
    async with running("demo", "--listen", address, until="asyncio.run(main())") as process:
        await process.said("\n\n", after="asyncio.run(main())")
        commands = re.findall(r"^  \S.*:\n((?:.+\n)+)", process.err, re.MULTILINE)
        assert len(commands) == 3
        http, events, socket = await asyncio.gather(*map(pasted, commands))
        assert json.loads(http)["target"] == "/echo/hello?from=curl"
        assert ["X-Demo-Key", "••••"] in json.loads(http)["headers"]
        assert events.count("event: tick\n") == 5
        greeting, echo = socket.splitlines()
        assert json.loads(greeting)["target"] == "/ws?demo_key=••••"
        assert echo == "hello"
        process.signal(signal.SIGINT)
        assert await process.ended() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_is_mentioned_once() -> None:
    """On stderr, by name or number; the user is served; ``enforce`` would refuse it."""
    # Loaded now, since another user may not be able to read the library of this Python.
    "x".encode("idna")
    async with running("run", "demo", *LISTEN) as process:
        for _ in range(3):
            os.seteuid(65534)
            try:
                sock = socket.create_connection(("127.0.0.1", process.port))
            finally:
                os.seteuid(0)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(get("/-/health"))
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()
        await process.said("peer_uid: enforce")
        assert process.err.count("uid 65534") == 1
