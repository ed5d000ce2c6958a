"""The commands that ask a keyrelay that runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy import __version__
from proxy.admin import runtime_file
from tests.support.command import CANARY, Done, Process, environment, keyrelay, running
from tests.support.keyrelay import RawClient, answering, raw_provider, read_head


async def test_health_asks_over_tcp_and_over_a_unix_socket(tmp_path: Path) -> None:
    """Exit 0 and ok while it serves; the socket is its owner's alone, and gone afterwards."""
    path = tmp_path / "keyrelay.sock"
    listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{path}")
    async with running("run", "demo", *listen) as process:
        for url in (
            process.urls[0],
            f"{process.urls[0]}/",
            process.urls[0].removeprefix("http://"),
            f"unix:{path}",
        ):
            assert keyrelay("health", url) == Done(0, "ok\n", "")
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        process.signal(15)
        assert await process.ended() == 0
        assert not path.exists()
    for url in (process.urls[0], f"unix:{path}"):
        done = keyrelay("health", url)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"keyrelay: no answer from {url} ")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:x", "http://[::1", "unix:", f"unix:/{'x' * 200}", "http://", "a b", "[]:1"],
)
def test_health_of_what_is_no_address_is_a_line(url: str) -> None:
    """Whatever is asked: exit 1 and one line."""
    done = keyrelay("health", url)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("[]:1", "no answer from []:1 (no host of that name is known)"),
        ("http://127.0.0.1:x", "no answer from http://127.0.0.1:x (this is no address)"),
        ("https://127.0.0.1:1/x", "no answer from https://127.0.0.1:1/x (nothing listens there)"),
        ("unix:/nowhere/s", "no answer from unix:/nowhere/s (there is no such socket)"),
        (
            "ftp://127.0.0.1:1/x",
            "ftp://127.0.0.1:1/x: health speaks http; write http://HOST:PORT or unix:/path",
        ),
    ],
)
def test_health_says_in_words_why_there_is_no_answer(url: str, words: str) -> None:
    """Not by the name of a Python error; what it cannot speak is not dialled."""
    assert keyrelay("health", url) == Done(1, "", f"keyrelay: {words}\n")


def test_health_says_what_else_answered() -> None:
    """Something listens there that is no keyrelay: its status, exit 1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            try:
                one, _ = server.accept()
                one.recv(1000)
                one.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                one.close()
            finally:
                os._exit(0)
        done = keyrelay("health", f"http://127.0.0.1:{port}")
        os.waitpid(pid, 0)
    assert done == Done(1, "", f"keyrelay: http://127.0.0.1:{port} answered 404\n")


# --- status and reload --------------------------------------------------------------------------

ADMIN = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
SCRIPT = shutil.which("script")
NOBODY = (
    "keyrelay: no keyrelay of yours runs with an admin listener; start it with: "
    "keyrelay run --admin\n"
)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of this test say where they can be asked."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def admin_url(process: Process) -> str:
    found = re.search(r"^  inspector  (http://[\d.:]+)", process.err, re.MULTILINE)
    assert found is not None
    return found[1]


@asynccontextmanager
async def administered(*arguments: str) -> AsyncIterator[Process]:
    async with running("run", *arguments, *ADMIN, until="inspector") as process:
        await process.said("\n", after="inspector")
        yield process


@pytest.mark.parametrize("command", ["status", "reload"])
def test_nobody_runs(runtime: Path, command: str) -> None:
    """One line with what to do; exit 1."""
    assert keyrelay(command) == Done(1, "", NOBODY)
    place = "http://127.0.0.1:1"
    said = f"keyrelay: no keyrelay of yours has an admin listener at {place}\n"
    # The token of a pasted address is not repeated.
    assert keyrelay(command, "--url", f"{place}/#token={CANARY}") == Done(1, "", said)


async def test_status_shows_the_one_that_runs(runtime: Path) -> None:
    """As text with no colour where there is no terminal, or as JSON; the token in neither."""
    async with administered("demo") as process:
        [file] = runtime_file.running()
        text, document = keyrelay("status"), keyrelay("status", "--json")
        for done in (text, document):
            assert (done.code, done.err) == (0, "")
            assert file.token not in done.out
        assert text.out.startswith(f"keyrelay {__version__}, process {process.pid}, up ")
        assert process.urls[0] in text.out
        assert "\ndemo " in text.out
        assert "\x1b" not in text.out
        assert json.loads(document.out)["pids"] == [process.pid]
        for url in (file.url, f"{file.url}/", f"{file.url}/#token={file.token}"):
            assert keyrelay("status", "--url", url).code == 0


async def test_page_prints_what_opens_the_inspector(runtime: Path) -> None:
    """The address with the token, to users that may read its file; no other line."""
    async with administered("demo"):
        [file] = runtime_file.running()
        done = keyrelay("status", "--page")
        assert done == Done(0, f"{file.url}/#token={file.token}\n", "")
    assert keyrelay("status", "--page") == Done(1, "", NOBODY)
    for other in ("--json", "--watch"):
        assert keyrelay("status", "--page", other).code == 2


async def test_the_requests_of_all_workers_are_counted(runtime: Path) -> None:
    """Each of two serves some of them, and status shows their sum."""
    async with administered("demo", "--workers", "2") as process:
        for _ in range(6):
            async with RawClient(
                *await asyncio.open_connection("127.0.0.1", process.port)
            ) as client:
                client.send(b"GET /demo/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await client.answer())[0] == 200
        await process.logged(6)
        said = json.loads(keyrelay("status", "--json").out)
        assert len(said["pids"]) == 2
        assert process.pid not in said["pids"]
        assert said["tally"]["demo"]["requests"] == {"GET": {"200": 6}}
        row = next(one for one in keyrelay("status").out.splitlines() if one.startswith("demo "))
        assert row.split()[:3] == ["demo", "6", "0"]


def on_terminal(columns: int, variables: dict[str, str]) -> str:
    """What ``keyrelay status`` shows on a terminal."""
    assert SCRIPT is not None
    # The width that the runner of the tests tells those it starts is not that of this terminal.
    command = f"unset COLUMNS; stty cols {columns}; {sys.executable} -m proxy status"
    done = subprocess.run(
        [SCRIPT, "-qec", command, "/dev/null"],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}])
@pytest.mark.skipif(SCRIPT is None, reason="needs script, for a terminal")
async def test_status_fits_the_terminal(runtime: Path, more: dict[str, str]) -> None:
    """What needs attention is yellow unless NO_COLOR is set, and lines are as wide as it is."""
    async with administered("demo", "hume"):
        done = await asyncio.to_thread(on_terminal, 60, more)
    warning = "! hume is not ready: set HUME_API_KEY"
    assert (f"\x1b[33m{warning}\x1b[0m" in done) is (not more)
    assert warning in done
    plain = done.replace("\x1b[33m", "").replace("\x1b[0m", "")
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 60


async def test_status_can_be_watched(runtime: Path) -> None:
    """Again and again until Ctrl-C, which is no failure; not as JSON."""
    async with administered("demo"), running("status", "--watch", until="") as watching:
        await watching.logged(8)
        assert watching.out.count("keyrelay 0.") >= 2
        watching.signal(signal.SIGINT)
        assert await watching.ended() == 0
    assert keyrelay("status", "--watch", "--json").code == 2


async def test_of_several_one_is_chosen(runtime: Path) -> None:
    """All of them are listed, without their tokens; each can be named."""
    async with administered("demo") as one, administered("demo") as other:
        done = keyrelay("status")
        assert (done.code, done.out) == (1, "")
        first, *lines = done.err.splitlines()
        assert first == "keyrelay: several run; choose one with --url:"
        assert sorted(lines) == sorted(
            f"keyrelay:   {admin_url(each)} (process {each.pid})" for each in (one, other)
        )
        for each in (one, other):
            url = admin_url(each)
            said = json.loads(keyrelay("status", "--json", "--url", url).out)
            assert said["pids"] == [each.pid]
            assert keyrelay("reload", "--url", url).code == 0
        assert keyrelay("reload").err == done.err


async def test_reload_says_what_is_different(runtime: Path) -> None:
    """What changed, exit 0; or every finding, exit 1, and the old configuration serves."""
    file = runtime / "routes.yaml"
    file.write_text("routes: {demo: {provider: demo}}")
    async with administered("-c", str(file)):
        assert keyrelay("reload") == Done(0, "nothing is different\n", "")
        file.write_text("routes: {other: {provider: demo}}")
        # Whoever looks at the file by himself may have been quicker.
        assert keyrelay("reload").code == 0
        last = json.loads(keyrelay("status", "--json").out)
        assert list(last["routes"]) == ["other"]
        file.write_text("routes: {other: {provider: demo, nonsense: 1}}")
        done = keyrelay("reload")
        assert (done.code, done.out) == (1, "")
        assert "routes.yaml:1:" in done.err
        assert "nonsense" in done.err
        kept = "keyrelay: the configuration was not taken; the old one goes on serving"
        assert done.err.splitlines()[-1] == kept
        done = keyrelay("reload", "--json")
        assert (done.code, done.err) == (1, "")
        assert "nonsense" in json.loads(done.out)["findings"][0]
        assert "! the configuration of " in keyrelay("status").out
        file.write_text("routes: {other: {provider: demo}}")
        done = keyrelay("reload", "--json")
        assert (done.code, json.loads(done.out)["findings"]) == (0, [])


async def test_a_unix_socket_is_asked_without_a_token(runtime: Path) -> None:
    """Its file mode restricts access."""
    path = runtime / "admin"
    arguments = ("run", "demo", "--listen", "127.0.0.1:0", "--admin", f"unix:{path}")
    async with running(*arguments, until="inspector") as process:
        for more in ((), ("--url", f"unix:{path}")):
            done = keyrelay("status", "--json", *more)
            assert json.loads(done.out)["pids"] == [process.pid]
        assert keyrelay("reload").code == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}", "answered 401"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "answered what is no status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "answered what is no status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "no answer"),
        (b"SSH-2.0-gibberish\r\n\r\n", "no answer"),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"version": "0.0"}',
            f"is keyrelay 0.0 and this is {__version__}",
        ),
    ],
)
async def test_what_answers_in_its_place_is_a_line(runtime: Path, answer: bytes, said: str) -> None:
    """A file that a killed process left, whose port and number others have since: exit 1, one
    line, and not the token."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head.startswith(b"GET /api/status HTTP/1.1\r\n")
        writer.write(answer)

    async with raw_provider(serve) as provider:
        file = runtime_file.write(provider.url, CANARY)
        done = await asyncio.to_thread(keyrelay, "status")
        file.remove()
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err


async def test_nobody_answers_there_any_more(runtime: Path) -> None:
    """Its process lives and listens no more: a line."""
    async with raw_provider(answering(b"")) as provider:
        url = provider.url
    runtime_file.write(url, CANARY)
    for command in ("status", "reload"):
        said = f"keyrelay: no answer from {url} (nothing listens there)\n"
        assert keyrelay(command) == Done(1, "", said)


def test_asking_loads_no_web_server() -> None:
    """Health is asked every few seconds, and neither of the others needs it."""
    program = (
        "import sys; from proxy.cli import admin; from proxy.admin import runtime_file; "
        "early = set(sys.modules); from proxy.cli import status_table; "
        "sys.exit('asyncio' in early or 'aiohttp' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True, timeout=20
    )
