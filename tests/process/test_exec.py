"""A command beside keyrelay: what it is given, what is kept from it, and how both end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config.loader import load_text
from proxy.config.settings import Settings
from proxy.http.address import parse_listen
from proxy.process.exec import PlannedListener, beside_child, environment_of
from proxy.server.listener import Listener
from proxy.server.peer_credentials import lookup_supported
from tests.support.command import (
    CANARY,
    COMMAND,
    Done,
    Process,
    environment,
    inspect,
    keyrelay,
    running,
)
from tests.support.keyrelay import RawProvider, answering, raw_provider, read_head, until

PYTHON = (sys.executable, "-c")
# As a program of its own would call: with what is in its environment and nothing else.
CALL = """
import os, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(os.environ[sys.argv[1]] + sys.argv[2]).read().decode())
"""


def settings(routes: dict[str, Any], **more: Any) -> Settings:
    return load_text(json.dumps({"routes": routes, **more}), "routes.yaml")


def acme(upstream: str = "https://api.acme.example", **more: Any) -> dict[str, Any]:
    return {
        "upstream": upstream,
        "secrets": {"key": ["env:ACME_NEW_KEY", "env:ACME_KEY"]},
        "auth": [{"header": "X-Api-Key", "value": "{key}"}],
        "environment": {"ACME_BASE_URL": "{base}/v1"},
        **more,
    }


def written(tmp_path: Path, routes: dict[str, Any], **more: Any) -> tuple[str, str]:
    """The arguments that name a file with these routes."""
    path = tmp_path / "routes.yaml"
    path.write_text(json.dumps({"routes": routes, **more}))
    return "-c", str(path)


async def execute(*arguments: str, **variables: str) -> Done:
    """Run ``keyrelay exec`` beside the servers of this test."""
    return await asyncio.to_thread(keyrelay, "exec", *arguments, variables=variables)


# --- settings and variables -------------------------------------------------------------------


def test_every_listener_is_on_a_free_port_of_loopback() -> None:
    """Whatever the file says: beside a keyrelay that runs, there is no clash."""
    said = settings(
        {"a": acme(listen="127.0.0.1:8082"), "b": acme()},
        listen=["0.0.0.0:8080", "unix:/run/keyrelay.sock"],
        inbound_token="env:DUMMY_TOKEN",
    )
    changed = beside_child(said)
    assert changed.listen == ("127.0.0.1:0",)
    assert [one.listen for one in changed.routes.values()] == [("127.0.0.1:0",), ()]


def test_in_place_of_the_inbound_token_other_users_are_kept_out() -> None:
    """The command could not send it. Without one, what is said about other users stays."""
    changed = beside_child(settings({"a": acme()}, inbound_token="env:DUMMY_TOKEN"))
    assert changed.inbound_token is None
    assert changed.peer_uid == ("enforce" if lookup_supported() else "warn")
    assert beside_child(settings({"a": acme()}, peer_uid="off")).peer_uid == "off"


async def test_the_variables_of_the_command() -> None:
    """Addresses in, keys out, all others as they were; the first of two routes sets a variable."""
    said = settings(
        {
            "a": acme(listen="127.0.0.1:0"),
            "b": acme(path="/b/c"),
            "d": acme(
                path="/d",
                environment={"D_URL": "{base}", "D_WS_URL": "{ws_base}/v1", "D_XET": "1"},
                withhold=["ACME_ADMIN_KEY"],
            ),
        },
        inbound_token="env:KEYRELAY_TOKEN",
    )
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        listeners = (
            Listener(parse_listen("127.0.0.1:1001"), None, server),
            Listener(parse_listen("127.0.0.1:1002"), "a", server),
        )
        inherited = {
            "ACME_KEY": "dummy",
            "ACME_NEW_KEY": "dummy",
            "ACME_ADMIN_KEY": "dummy",
            "KEYRELAY_TOKEN": "dummy",
            "D_URL": "https://elsewhere.example",
            "PATH": "/bin",
        }
        assert environment_of(said, listeners, inherited) == {
            "PATH": "/bin",
            "KEYRELAY_URL": "http://127.0.0.1:1001",
            "ACME_BASE_URL": "http://127.0.0.1:1002/v1",
            "ACME_KEY": "unused",
            "ACME_NEW_KEY": "unused",
            "D_URL": "http://127.0.0.1:1001/d",
            "D_WS_URL": "ws://127.0.0.1:1001/d/v1",
            "D_XET": "1",
        }


@pytest.mark.parametrize(
    ("given", "both"),
    [
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1,localhost"),
        ({"no_proxy": "a.example, .b.example"}, "a.example, .b.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "a.example,"}, "a.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "localhost 127.0.0.1"}, "localhost 127.0.0.1"),
        ({"NO_PROXY": "localhost"}, "localhost,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"no_proxy": "a.example,*"}, "a.example,*"),
        ({"NO_PROXY": ""}, "127.0.0.1,localhost"),
        ({}, "127.0.0.1,localhost"),
    ],
)
@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"])
def test_calls_to_keyrelay_go_to_no_proxy(given: dict[str, str], both: str, proxy: str) -> None:
    """With a proxy in the environment both spellings exclude keyrelay, and keep what they had."""
    places = [PlannedListener("http://127.0.0.1:1001", None)]
    inherited = {proxy: "http://proxy.example:3128", **given}
    found = environment_of(settings({"acme": acme()}), places, inherited)
    assert (found["NO_PROXY"], found["no_proxy"]) == (both, both)
    assert found[proxy] == inherited[proxy]


def test_each_spelling_keeps_its_own() -> None:
    """Where the two differ, neither gets the other's hosts."""
    places = [PlannedListener("http://127.0.0.1:1001", None)]
    inherited = {"http_proxy": "x", "no_proxy": "*", "NO_PROXY": "a.example"}
    found = environment_of(settings({"acme": acme()}), places, inherited)
    assert (found["no_proxy"], found["NO_PROXY"]) == ("*", "a.example,127.0.0.1,localhost")


@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "a.example"}, {"http_proxy": ""}])
def test_without_a_proxy_nothing_is_excluded(given: dict[str, str]) -> None:
    """No variable about proxies is added where there is none to be avoided."""
    places = [PlannedListener("http://127.0.0.1:1001", None)]
    found = environment_of(settings({"acme": acme()}), places, given)
    assert {name: one for name, one in found.items() if "proxy" in name.lower()} == given


# --- a command that calls ---------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
async def test_a_command_calls_its_provider_without_a_key(tmp_path: Path, own: bool) -> None:
    """The provider gets the key, the command only an address: of the route's own, if it has one."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async with raw_provider(serve) as provider:
        route = acme(provider.url, **({"listen": "127.0.0.1:8082"} if own else {}))
        file = written(tmp_path, {"acme": route}, inbound_token="env:KEYRELAY_TOKEN")
        done = await execute(
            *file, "--", *PYTHON, CALL, "ACME_BASE_URL", "/me?x=%2F", ACME_KEY=CANARY
        )
        assert done == Done(0, "hello\n", "")
        (head,) = received
        assert head.startswith(b"GET /v1/me?x=%2F HTTP/1.1\r\n")
        assert head.count(CANARY.encode()) == 1
        if not own:
            done = await execute(
                *file, "--", *PYTHON, CALL, "KEYRELAY_URL", "/acme/me", ACME_KEY=CANARY
            )
            assert (done.code, received[1][:12]) == (0, b"GET /me HTTP")


async def test_a_command_with_a_proxy_in_its_environment(tmp_path: Path) -> None:
    """A client that obeys HTTP_PROXY reaches keyrelay all the same, and the proxy gets nothing."""
    call = CALL.replace("urllib.request.ProxyHandler({})", "")
    async with (
        raw_provider(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) as provider,
        raw_provider(answering(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")) as proxy,
    ):
        file = written(tmp_path, {"acme": acme(provider.url)})
        proxies = {"http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "NO_PROXY": "a.example"}
        done = await execute(
            *file, "--", *PYTHON, call, "ACME_BASE_URL", "/me", ACME_KEY=CANARY, **proxies
        )
        assert done == Done(0, "hello\n", "")
        assert proxy.connections == 0


@pytest.mark.parametrize("command", [(), ("--", "false")])
async def test_a_dry_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    """It prints names, addresses and placeholders, runs nothing, and shows no value of a key."""
    file = written(tmp_path, {"acme": acme(), "own": acme(listen="127.0.0.1:8082", withhold=["D"])})
    done = await execute(*file, "--dry-run", *command, ACME_KEY=CANARY, D="gone", HTTP_PROXY="x")
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == """\
Variables that would be set:
  ACME_BASE_URL=http://127.0.0.1:PORT/acme/v1
  ACME_KEY=unused
  ACME_NEW_KEY=unused
  KEYRELAY_URL=http://127.0.0.1:PORT
  NO_PROXY=127.0.0.1,localhost
  no_proxy=127.0.0.1,localhost
Variables that would be removed:
  D
"""
    )


async def test_no_key_is_in_the_command_s_environment() -> None:
    """Neither under its name nor anywhere else; what is not a key of these routes stays."""
    script = "env | grep -c dummy-canary; env | grep ^HUME_B; echo $OTHER"
    done = await execute("hume", "--", "sh", "-c", script, HUME_API_KEY=CANARY, OTHER="kept")
    zero, url, other = done.out.splitlines()
    assert (done.code, done.err, zero, other) == (0, "", "0", "kept")
    assert url.startswith("HUME_BASE_URL=http://127.0.0.1:")


async def shown(*arguments: str, **variables: str) -> Any:
    """The environment of the command."""
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    done = await execute(*arguments, "--", *PYTHON, script, **variables)
    assert done.code == 0
    return json.loads(done.out)


async def test_a_key_whose_route_is_not_named_is_taken_away_too(tmp_path: Path) -> None:
    """The file says that it is one, and so do the routes that ship; that another was named does
    not make it none. Nothing leads to the other route."""
    file = written(tmp_path, {"hume": {"provider": "hume"}, "acme": acme()})
    keys = {"HUME_API_KEY": CANARY, "ACME_KEY": CANARY, "CAMB_API_KEY": "kept"}
    seen = await shown(*file, "hume", **keys)
    assert (seen["HUME_API_KEY"], seen["ACME_KEY"]) == ("unused", "unused")
    assert {"HUME_SECRET_KEY", "ACME_NEW_KEY", "ACME_BASE_URL"} & seen.keys() == set()
    assert seen["CAMB_API_KEY"] == "kept"
    seen = await shown("hume", HUME_API_KEY=CANARY, CAMB_API_KEY=CANARY)
    assert seen["CAMB_API_KEY"] == "unused"


async def test_placeholders_have_the_form_that_sdks_accept(tmp_path: Path) -> None:
    """Under every name of a key of a served route, set or not; of an optional one if it was set."""
    routes = {name: {"provider": name} for name in ("elevenlabs", "twilio", "openai")}
    keys = {"ELEVENLABS_API_KEY": CANARY, "TWILIO_ACCOUNT_SID": CANARY, "OPENAI_ADMIN_KEY": CANARY}
    seen = await shown(*written(tmp_path, routes), **keys)
    assert CANARY not in seen.values()
    assert seen["ELEVENLABS_API_KEY"] == seen["ELEVEN_API_KEY"] == "sk_unused"
    assert seen["OPENAI_API_KEY"] == "sk-unused"
    assert seen["TWILIO_ACCOUNT_SID"].startswith("AC")
    assert {"TWILIO_API_KEY", "TWILIO_AUTH_TOKEN", "OPENAI_ADMIN_KEY"} & seen.keys() == set()


@pytest.mark.parametrize("own", [True, False])
async def test_the_variable_of_the_preset_is_taken_away_too(tmp_path: Path, own: bool) -> None:
    """A provider's own SDK reads it, wherever the route has its key from; whether the preset ships
    or is the user's."""
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0o600)
    more = {}
    if own:
        (tmp_path / "mine").mkdir()
        preset = acme(secrets={"key": "env:ACME_KEY"})
        (tmp_path / "mine" / "acme.yaml").write_text(json.dumps(preset))
        (tmp_path / "mine" / "unused.yaml").write_text(json.dumps(acme(secrets={"key": "env:U"})))
        more = {"providers": ["mine"]}
    provider, secret, variable = (
        ("acme", "key", "ACME_KEY") if own else ("hume", "api_key", "HUME_API_KEY")
    )
    route = {"provider": provider, "secrets": {secret: f"file:{key}"}}
    seen = await shown(*written(tmp_path, {"x": route}, **more), **{variable: CANARY, "U": "kept"})
    assert seen[variable] == "unused"
    assert seen["U"] == "kept"


async def test_what_was_meant_for_keyrelay_is_taken_away(tmp_path: Path) -> None:
    """Where the keys of sealed values are, and what a service manager told it."""
    own = {
        "KEYRELAY_KEYS": "/dummy/keys",
        "CREDENTIALS_DIRECTORY": "/dummy/credentials",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "dummy",
        "LISTEN_PID": "1",
        "NOTIFY_SOCKET": "/dummy/notify",
    }
    assert own.keys() & (await shown("demo", **own)).keys() == set()


def test_input_and_output_are_the_command_s_own() -> None:
    """Bytes pass as they are, and keyrelay adds none."""
    data = bytes(range(256)) * 1000
    done = subprocess.run(
        [*COMMAND, "exec", "demo", "--", "sh", "-c", "cat; echo said >&2"],
        input=data,
        capture_output=True,
        env=environment(),
        timeout=30,
        check=True,
    )
    assert (done.stdout == data, done.stderr) == (True, b"said\n")


async def test_the_access_log_goes_to_a_file_only(tmp_path: Path) -> None:
    """One line of JSON for the call, appended; nothing of it is on the command's output. A new file
    is its owner's alone."""
    log = tmp_path / "access.log"
    log.write_text("before\n")
    call = ("demo", "--", *PYTHON, CALL, "KEYRELAY_URL", "/demo/echo/x")
    assert (await execute(*call)).code == 0
    assert log.read_text() == "before\n"
    done = await execute("--log", str(log), *call)
    before, line = log.read_text().splitlines()
    new = tmp_path / "new.log"
    assert (await execute("--log", str(new), *call)).code == 0
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert (before, json.loads(line)["route"], done.err) == ("before", "demo", "")
    assert "route" not in done.out
    done = await execute("--log", str(tmp_path), *call)
    assert (done.code, done.out) == (2, "")
    done = await execute("--log", str(tmp_path / "no" / "log"), *call)
    assert (done.code, done.err.count("\n")) == (1, 1)


# --- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
    ],
)
async def test_the_exit_code_is_the_command_s(command: tuple[str, ...], code: int) -> None:
    """128 and its number for a signal, as shells have it."""
    assert await execute("demo", "--", *command) == Done(code, "", "")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("no-such-command-here", 127, "command not found"),
        ("./no/such/command", 127, "command not found"),
        (os.devnull, 126, "Permission denied"),
    ],
)
async def test_a_command_that_cannot_be_run(command: str, code: int, words: str) -> None:
    """As of shells; one line says why."""
    done = await execute("demo", "--", command)
    assert done == Done(code, "", f"keyrelay: {command}: {words}\n")


async def test_a_named_route_has_to_be_ready() -> None:
    """The command is not started; what to set is said. Exit 2."""
    done = await execute("demo", "hume", "camb", "--", "echo", "started", HUME_API_KEY=CANARY)
    assert done == Done(
        2, "", "camb: the route is not ready\n    set CAMB_API_KEY\nkeyrelay: 1 finding\n"
    )


async def test_routes_that_nobody_named_may_be_unready(tmp_path: Path) -> None:
    """It is said before the command starts, and the command starts."""
    file = written(tmp_path, {"acme": acme(), "demo": {"provider": "demo"}})
    done = await execute(*file, "--", "sh", "-c", "echo started >&2")
    lines = done.err.splitlines()
    assert (done.code, lines[1:]) == (0, ["started"])
    assert lines[0].startswith("keyrelay: acme is not ready: set ACME_NEW_KEY, or set ACME_KEY")


# --- signals ----------------------------------------------------------------------------------

WAITS = "import os, signal; os.write(2, b'ready'); signal.pause()"
# Without this Python would say where it was when it was interrupted.
DIES = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {WAITS}"
ENDS = f"import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(5)); {WAITS}"


@asynccontextmanager
async def waiting(script: str) -> AsyncIterator[Process]:
    """``keyrelay exec`` of a script that has said that it is ready, in a session of its own."""
    async with running(
        "exec", "demo", "--", *PYTHON, script, until="ready", within=("setsid",)
    ) as process:
        yield process


@pytest.mark.parametrize(
    ("script", "number", "code"),
    [
        (ENDS, signal.SIGTERM, 5),
        (WAITS, signal.SIGTERM, 143),
        (WAITS, signal.SIGHUP, 129),
        (DIES, signal.SIGINT, 130),
    ],
)
async def test_what_keyrelay_alone_is_told_is_passed_on(
    script: str, number: signal.Signals, code: int
) -> None:
    """A supervisor knows one process; the command gets the signal and decides."""
    async with waiting(script) as process:
        process.signal(number)
        assert await process.ended() == code
        assert process.err == "ready"


async def test_what_the_whole_group_is_told_ends_both() -> None:
    """No process is left over."""
    async with waiting(DIES) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert await process.ended() == 130
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


async def test_a_signal_that_is_ignored_stays_so_for_the_command() -> None:
    """As nohup, or a shell's ``&``, wants it."""
    script = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)"
    async with running(
        *("exec", "demo", "--", *PYTHON, f"{script}; {WAITS}"),
        until="ready",
        within=("sh", "-c", 'trap "" HUP; exec "$@"', "sh", "setsid"),
    ) as process:
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 143
    assert process.out == "True\n"


def test_other_signals_are_as_the_shell_would_set_them() -> None:
    """What Python ignores for itself, the command must not."""
    script = "grep ^SigIgn: /proc/self/status"
    done = subprocess.run(
        [*COMMAND, "exec", "demo", "--", "sh", "-c", script],
        capture_output=True,
        env=environment(),
        timeout=30,
        check=True,
    )
    own = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=True)
    assert done.stdout == own.stdout


# --- at a terminal ----------------------------------------------------------------------------

# Takes standard input for its controlling terminal, as a shell's session has one.
TAKES_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
COUNTS = """
import os, signal, sys, urllib.request
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
assert os.getpgrp() == os.tcgetpgrp(0) == os.getpgid(os.getppid())
print("ready", flush=True)
sys.stdin.readline()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(os.environ["KEYRELAY_URL"] + "/-/health").read(), len(count))
sys.exit(3)
"""


class Terminal:
    """What a person sees and types. ``output`` is all that has come so far."""

    def __init__(self, command: Sequence[str]) -> None:
        self._own, other = os.openpty()
        os.set_blocking(self._own, False)
        self.output = ""
        self.process = subprocess.Popen(
            [*PYTHON, TAKES_TERMINAL, *command],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment(),
            start_new_session=True,
        )
        os.close(other)
        asyncio.get_running_loop().add_reader(self._own, self._read)

    def _read(self) -> None:
        try:
            self.output += os.read(self._own, 65536).decode()
        except OSError:  # all of its other end is closed
            asyncio.get_running_loop().remove_reader(self._own)

    def type(self, keys: bytes) -> None:
        os.write(self._own, keys)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._own)
        os.close(self._own)
        self.process.kill()
        self.process.wait()
        inspect(self.output)


async def test_ctrl_c_reaches_the_command_once_and_does_not_end_keyrelay() -> None:
    """The terminal tells both; the command decides, and keyrelay serves it until it has ended."""
    terminal = Terminal([*COMMAND, "exec", "demo", "--", *PYTHON, COUNTS])
    try:
        await until(lambda: "ready" in terminal.output, seconds=10)
        terminal.type(b"\x03")
        await until(lambda: "^C" in terminal.output)
        terminal.type(b"\n")
        await until(lambda: "b'ok\\n' 1" in terminal.output)
        await until(lambda: terminal.process.poll() is not None)
        assert terminal.process.returncode == 3
    finally:
        terminal.close()


async def test_ctrl_c_ends_both() -> None:
    """A command that does nothing about it."""
    terminal = Terminal([*COMMAND, "exec", "demo", "--", *PYTHON, DIES])
    try:
        await until(lambda: "ready" in terminal.output, seconds=10)
        terminal.type(b"\x03")
        await until(lambda: terminal.process.poll() is not None)
        assert terminal.process.returncode == 130
    finally:
        terminal.close()


# --- what it leaves ---------------------------------------------------------------------------


async def test_keyrelay_ends_with_the_command(tmp_path: Path) -> None:
    """Also when something that the command started still has a call under way."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await reader.read()

    async with raw_provider(serve) as provider:
        script = f"exec 2>/dev/null >/dev/null; {sys.executable} -c '{CALL}' ACME_BASE_URL /x &"
        file = written(tmp_path, {"acme": acme(provider.url)})
        # It ends once its child is waiting for the provider.
        script += " read line"
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "exec", *file, "--", "sh", "-c", script),
            stdin=asyncio.subprocess.PIPE,
            env=environment(ACME_KEY=CANARY),
        )
        async with asyncio.timeout(30):
            await asked.wait()
            await process.communicate(b"\n")
        assert process.returncode == 0


async def test_a_provider_is_not_dialled_before_the_command_calls(tmp_path: Path) -> None:
    """Starting costs no connection."""
    provider: RawProvider
    async with raw_provider(answering(b"")) as provider:
        file = written(tmp_path, {"acme": acme(provider.url)})
        assert (await execute(*file, "--", "true", ACME_KEY=CANARY)).code == 0
        assert provider.connections == 0
