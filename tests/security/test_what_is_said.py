"""Rows T37 to T41 and T50: what logs, errors, the process and its files disclose."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
import pickle
import re
import signal
import sys
from pathlib import Path

import pytest

import proxy
from proxy.app.status import snapshot
from proxy.config import loader
from proxy.config.secret import SecretSettings
from proxy.errors import ConfigError, SecretUnavailable
from proxy.observability.metrics import exposition
from proxy.secrets import resolver
from proxy.secrets.secret import Secret
from tests.security.scene import (
    CLIENT_SECRET,
    GET,
    HANDSHAKE,
    HOST,
    KEY,
    TOKEN,
    answer,
    raw_client,
    routes,
    stage,
    status,
)
from tests.support import command as commands
from tests.support.keyrelay import both_loops, exchange, keyrelay
from tests.support.processes import as_equals, readable

MINE = "dummy-CANARY-of-the-client"
# Every place in which a client could bring something that is nobody's business.
LADEN = (
    f"GET /api/x?api_key={MINE}&other={MINE} HTTP/1.1\r\nHost: localhost\r\n"
    f"Authorization: Bearer {MINE}\r\nCookie: a={MINE}\r\nX-Api-Key: {MINE}\r\nX-Other: {MINE}\r\n"
    f"User-Agent: {MINE}\r\nX_Api_Key: {MINE}\r\n"
).encode()
SECRETS = (KEY, TOKEN, CLIENT_SECRET, MINE)


# -- logs --------------------------------------------------------------------------------------


@both_loops
async def test_t37_no_credential_in_any_log(
    secrets: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Served, refused, malformed or failed: access log, library logs, stdout and stderr have
    neither our credentials nor what the client brought.
    """
    caplog.set_level(logging.DEBUG)
    socket = LADEN + HANDSHAKE + f"Sec-WebSocket-Protocol: bearer_{MINE}, {MINE}\r\n".encode()
    refused = (
        LADEN.replace(b"localhost", b"evil.test"),
        LADEN + f"Origin: https://{MINE}.test\r\n".encode(),
        LADEN + f"Referer: https://{MINE}.test/{MINE}\r\n".encode(),
        LADEN.replace(b"/api/x", b"/none/x"),
        LADEN.replace(b"GET ", b"TRACE "),
        LADEN + f"{MINE} no field\r\n".encode(),
        LADEN + f"X: {MINE}\0\r\n".encode(),
        LADEN + b"Content-Length: " + MINE.encode() + b"\r\n",
        f"{MINE} /api HTTP/1.1\r\n".encode() + HOST,
        f"GET http://user:{MINE}@evil.test/ HTTP/1.1\r\n".encode() + HOST,
    )
    async with stage() as one:
        echo = answer(f"{KEY} {TOKEN} {MINE}", f"X-Debug: {KEY}", status="400 Bad Request")
        for said in (answer(), echo, b"dummy " + KEY.encode() + b"\r\n\r\n"):
            one.provider.answer = said
            for request in (LADEN, LADEN.replace(b"/api", b"/minted"), socket):
                await one.ask(request)
        for request in refused:
            got = await one.everything(request + b"Connection: close\r\n")
            assert 400 <= status(got) < 500, got
            assert not [secret for secret in SECRETS if secret.encode() in got]
    quoting = answer(
        f'{{"error": "invalid_client", "client_secret": "{CLIENT_SECRET}"}}',
        "Content-Type: application/json",
        status="401 Unauthorized",
    )
    async with stage(mint_answer=quoting) as two:
        assert status(await two.ask(LADEN.replace(b"/api", b"/minted"))) == 503
    both = routes("http://127.0.0.1:1", "http://127.0.0.1:1")
    async with keyrelay(both) as nowhere:
        for route in (b"/api", b"/minted"):
            await exchange(nowhere.port, LADEN.replace(b"/api", route) + b"\r\n")
    gc.collect()  # a task whose error nobody took would be told of now
    lines = "".join(one.running.lines + two.running.lines + nowhere.lines)
    assert lines.count("\n") >= 18
    written = lines + caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in SECRETS if secret in written and secret != MINE] == []
    # The log may say which host or origin was refused, and nothing else of a request.
    rest = re.sub(r"'https?://[^']*'|'user:[^']*'", "", written)
    assert MINE not in rest


async def test_t37_nor_from_the_command(tmp_path: Path) -> None:
    """The same of a process of its own, whose log is JSON; every word of it is looked at."""
    variables = {"HUME_API_KEY": commands.CANARY}
    arguments = ("run", "hume", "demo", "--listen", "127.0.0.1:0")
    canary = commands.CANARY.encode()
    async with commands.running(*arguments, variables=variables) as process:
        for request in (
            b"GET /demo/echo/x?api_key=%b HTTP/1.1\r\nHost: localhost\r\nAuthorization: %b\r\n",
            b"GET /demo/x HTTP/1.1\r\nHost: localhost\r\n%b %b\r\n",
            b"GET /%b?%b HTTP/1.1 more\r\nHost: localhost\r\n",
            b"GET /demo/x HTTP/1.1\r\nHost: localhost\r\nCookie: %b\r\nReferer: https://%b.test\r\n",
        ):
            message = request % (canary, canary) + b"Connection: close\r\n\r\n"
            got = await exchange(process.port, message, until_close=True)
            assert canary not in got or b"/echo/" in request
        await process.logged(1)
    assert '"route": "demo"' in process.out


# -- errors ------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n" + MINE.encode() + b"\r\n\r\n",
        b"GET /api/" + MINE.encode() + b"\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n",
        MINE.encode() + b"\r\n\r\n",
        b"GET /<script>" + MINE.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: <script>" + MINE.encode() + b"\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: localhost\r\nX: "
        + b"a" * 20000
        + MINE.encode()
        + b"\r\n\r\n",
    ],
)
async def test_t38_errors_repeat_nothing(
    secrets: None, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    """A problem is constant text, never sniffed as a page; the log does not quote it either."""
    async with stage() as one, raw_client(one.port) as client:
        client.send(request_bytes)
        code, head, body = await client.answer()
        assert 400 <= code < 500
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
        assert MINE.encode() not in head + body
        assert b"<script>" not in head + body
        one.no_dial()
    assert MINE not in re.sub(r"'[^']*'", "", "".join(one.running.lines)) + caplog.text


@pytest.mark.parametrize(
    ("variable", "value"), [("PYTHONASYNCIODEBUG", "1"), ("PYTHONDEVMODE", "1")]
)
def test_t38_not_in_debug_mode(variable: str, value: str) -> None:
    """What would print requests is refused at the start, with the remedy."""
    done = commands.keyrelay("run", "demo", "--listen", "127.0.0.1:0", variables={variable: value})
    assert done.code == 2
    assert variable in done.err


def test_t32_no_start_with_a_key_log(tmp_path: Path) -> None:
    """The command refuses ``SSLKEYLOGFILE`` rather than to ignore it in silence."""
    log = tmp_path / "keys"
    done = commands.keyrelay(
        "run", "demo", "--listen", "127.0.0.1:0", variables={"SSLKEYLOGFILE": str(log)}
    )
    assert done.code == 2
    assert "SSLKEYLOGFILE" in done.err


# -- the process -------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
@pytest.mark.parametrize("flags", [(), ("--debuggable",)], ids=["sealed", "debuggable"])
async def test_t39_other_programs_of_the_user(flags: tuple[str, ...]) -> None:
    """Environment and memory of the process cannot be read, and no core is written. With
    ``--debuggable`` they can be, which shows that this test can tell.
    """
    variables, within = {"HUME_API_KEY": commands.CANARY}, as_equals()
    arguments = ("run", "hume", "--listen", "127.0.0.1:0", *flags)
    async with commands.running(*arguments, variables=variables, within=within) as process:
        place = Path(f"/proc/{process.pid}")
        assert [readable(place / name, within) for name in ("environ", "maps")] == [bool(flags)] * 2
        limits = (place / "limits").read_text()
        core = re.search(r"Max core file size +(\w+) +(\w+)", limits)
        assert core is not None
        assert flags or core.groups() == ("0", "0")
        assert (commands.CANARY.encode() in (place / "cmdline").read_bytes()) is False


# Ends a worker, and reads the environment of the next one as soon as the kernel lets it, until it
# does not any more.
SPY = """
import os, sys, time
supervisor, known, victim = sys.argv[1], set(sys.argv[2].split(",")), int(sys.argv[3])
os.kill(victim, 9)
seen, end = set(), time.monotonic() + 8
while time.monotonic() < end:
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or pid in known:
            continue
        try:
            if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1] != supervisor:
                continue
            if b"dummy-canary" in open(f"/proc/{pid}/environ", "rb").read():
                sys.exit("read")
            seen.add(pid)
        except PermissionError:
            if pid in seen:
                sys.exit("sealed")
        except OSError:
            continue
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
async def test_t39_a_worker_that_is_started_later() -> None:
    """A program that ends a worker, as the user's may, cannot read keys of the next one in the
    moment before it has sealed itself.
    """
    within, variables = as_equals(), {"HUME_API_KEY": commands.CANARY}
    arguments = ("run", "hume", "--listen", "127.0.0.1:0", "--workers", "2")
    async with commands.running(*arguments, variables=variables, within=within) as process:
        place = Path(f"/proc/{process.pid}/task/{process.pid}")
        children = (place / "children").read_text().split()
        spy = await asyncio.create_subprocess_exec(
            *(*within, sys.executable, "-c", SPY),
            *(str(process.pid), ",".join(children), children[0]),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await spy.communicate()
        process.signal(signal.SIGTERM)
        await process.ended()
    assert said == b"sealed\n"


@pytest.mark.parametrize("option", ["--key", "--secret", "--api-key", "--inbound-token", "--token"])
def test_t39_no_secret_as_an_argument(option: str) -> None:
    """Arguments are readable by every user, so no option takes a secret."""
    done = commands.keyrelay("run", "demo", option, "dummy")
    assert done.code == 2
    assert "No such option" in done.err


# -- what is written and read ------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        "routes: !!python/object/apply:os.system ['true']\n",
        "routes: {demo: {provider: !!python/name:os.system ''}}\n",
        "routes: {demo: {provider: !env HOME}}\n",
        "routes: {demo: {provider: demo}}\nroutes: {demo: {provider: demo}}\n",
        "routes: {demo: {provider: demo, deny: [/a], deny: []}}\n",
    ],
)
def test_t40_yaml_is_data(document: str) -> None:
    """No tags, no objects, and no key twice, of which one would win unseen."""
    with pytest.raises(ConfigError):
        loader.load_text(document, "routes.yaml")


def test_t40_secrets_are_not_pickled() -> None:
    """Nor is anything in the package that could do it, or that loads YAML as objects."""
    with pytest.raises(TypeError):
        pickle.dumps(Secret("key", KEY.encode()))
    forbidden = {"pickle", "marshal", "shelve", "dbm", "cPickle", "tempfile"}
    for path in Path(proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            # A nameless file that is locked, never written; certificates for a command; a key pair
            # in a directory of its own, where no file can be kept in memory alone.
            exempt = {"process/worker_process.py", "process/interception.py", "server/tls.py"}
            allowed = {"tempfile"} if f"{path.parent.name}/{path.name}" in exempt else set()
            assert not (forbidden - allowed) & set(names), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = (node.value.id, node.attr)
                assert called not in {("yaml", "load"), ("yaml", "unsafe_load")}, path


def contents(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


async def test_t40_tokens_stay_in_memory(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is fetched and used, and no file appears where a cache would be."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    async with stage() as one:
        await one.reaches(GET.replace(b"/api", b"/minted"))
    assert contents(tmp_path) == []


@both_loops
async def test_t41_nothing_grows_with_paths(secrets: None) -> None:
    """A thousand random paths: there are no metrics on this listener, and what is remembered of
    exchanges is bounded.
    """
    async with stage(fresh=True) as one:
        for page in (b"/metrics", b"/-/metrics", b"/-/status"):
            got = await one.ask(b"GET %b HTTP/1.1\r\n" % page + HOST)
            assert status(got) == 404
        async with raw_client(one.port) as client:
            for block in range(11):
                paths = [f"/api/{block}/{number}-dummy" for number in range(100)]
                client.send(
                    b"".join(f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n" for path in paths)
                )
                for _ in paths:
                    assert (await client.answer())[0] == 200
        assert one.running.app.exchange_log.total > 1100
        assert len(one.running.app.exchange_log.recent) == 1000


@both_loops
async def test_t41_no_request_adds_a_series(secrets: None) -> None:
    """Whatever clients and the provider make up: paths, hosts, names of requests, agents, methods
    and statuses without a name. No label has anything of it, and a second round adds no series.
    """
    async with stage(fresh=True, api={"methods": ["GET", "PURGE"]}) as one:

        async def round_of(number: int) -> set[str]:
            mine = f"dummy-{number}".encode()
            odd = b"User-Agent: %b\r\nX-Request-Id: %b\r\nOrigin: http://%b\r\n" % ((mine,) * 3)
            one.provider.answer = answer(status=f"{590 + number} dummy-{number}")
            for request in (
                b"GET /api/%b HTTP/1.1\r\n" % mine + HOST,
                b"PURGE /api/%b HTTP/1.1\r\n" % mine + HOST,
                b"GET /%b HTTP/1.1\r\n" % mine + HOST,
                b"GET /api/x HTTP/1.1\r\nHost: %b\r\n" % mine,
                GET + odd,
            ):
                await one.ask(request)
            told = exposition(snapshot(one.running.app)).decode()
            assert "dummy-" not in told
            return {line.rpartition(" ")[0] for line in told.splitlines() if line[0] != "#"}

        assert await round_of(1) == await round_of(2)


# -- files -------------------------------------------------------------------------------------


def secret_file(directory: Path, mode: int = 0o600) -> Path:
    path = directory / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(mode)
    return path


def missing(reference: str) -> str:
    """Why there is no such secret."""
    with pytest.raises(SecretUnavailable) as caught:
        resolver.resolve("key", SecretSettings(references=(reference,)))
    assert KEY not in str(caught.value)
    return caught.value.remedy


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o622, 0o602, 0o604])
def test_t50_a_secret_that_others_can_read_or_write(tmp_path: Path, mode: int) -> None:
    """It is not used, and the remedy is the command."""
    path = secret_file(tmp_path, mode)
    assert f"chmod 600 {path}" in missing(f"file:{path}")
    path.chmod(0o600)
    assert resolver.resolve("key", SecretSettings(references=(f"file:{path}",))).reveal() == (
        KEY.encode()
    )


def test_t50_a_directory_that_others_can_write_to(tmp_path: Path) -> None:
    """Another user could put a file in its place."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    assert f"chmod o-w {place}" in missing(f"file:{secret_file(place)}")


def test_t50_a_link_is_not_followed(tmp_path: Path) -> None:
    """Its owner would choose what is read."""
    link = tmp_path / "link"
    link.symlink_to(secret_file(tmp_path))
    assert "link" in missing(f"file:{link}")


@pytest.mark.parametrize(
    "reference", ["file:key", "file:../key", "file:./key", "file:", "file:~/key", KEY]
)
def test_t50_a_secret_s_file_is_named_absolutely(reference: str) -> None:
    """And a secret itself in the routes file is refused without being repeated."""
    document = (
        "routes:\n  api:\n    upstream: https://api.test\n"
        f"    secrets: {{key: '{reference}'}}\n"
        "    auth: [{header: X-Api-Key, value: '{key}'}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        loader.load_text(document, "routes.yaml")
    (finding,) = caught.value.findings
    assert finding.line == 4
    assert KEY not in str(caught.value)
    assert "/" in finding.advice


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_t50_a_routes_file_that_others_can_write(tmp_path: Path, mode: int) -> None:
    """Write access decides where the keys go: exit 2, with the command that ends it."""
    file = tmp_path / "routes.yaml"
    file.write_text("routes: {demo: {provider: demo}}\n")
    file.chmod(mode)
    for command in ("run", "check"):
        done = commands.keyrelay(command, "-c", str(file))
        assert done.code == 2
        assert f"chmod go-w {file}" in done.err
    file.chmod(0o644)
    assert commands.keyrelay("check", "-c", str(file)).code == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a.yaml"])
def test_t50_a_provider_s_name_is_no_path(name: str) -> None:
    """Neither from a file nor on the command line does a name lead out of the presets."""
    with pytest.raises(ConfigError):
        loader.load_text(f"routes: {{api: {{provider: '{name}'}}}}\n", "routes.yaml")
    with pytest.raises(ConfigError):
        loader.from_providers([name])
