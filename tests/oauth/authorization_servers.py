"""Six real authorization servers on loopback, and keyrelay as a process in front of them.

Each server is a process with three more places than its own: ``/api/…``, a resource that verifies
tokens by the server's own means; ``/control/…``, by which a test arranges things; ``/~NAME/…``, the
server's own paths with calls counted under a name. `make test-oauth` installs what they need.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parent.parent.parent
_SERVERS = Path(__file__).resolve().parent / "servers"
_DEBIAN = ROOT / ".oauth-debian"
_PYTHON = ROOT / ".venv-oauth" / "bin" / "python"
# Six servers and keyrelay start at the same time, on what may be a small machine (seconds).
PATIENCE = 180.0
# For a token call there (seconds); the product's own limits are tested elsewhere.
_TOKEN_SECONDS = 60
SCOPE = "api:read"
ORIGIN = "http://page.test.example"


@dataclass(frozen=True)
class Kind:
    """One of the servers, and what is particular to it.

    decodes      whether it undoes the encoding of id and secret in Basic (RFC 6749 section 2.3.1)
    form         whether it takes id and secret as form fields
    refusal      what its answer to a wrong secret is called by keyrelay
    scope        what its answer to an unknown scope is called; "" if it drops the scope silently
    rfc7009      whether it has a revocation endpoint
    spent        what its answer to a spent refresh token is called; "" if it takes one again
    """

    name: str
    command: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    decodes: bool = True
    form: bool = True
    refusal: str = "401, invalid_client"
    scope: str = "400, invalid_scope"
    rfc7009: bool = True
    spent: str = "400, invalid_grant"

    def __str__(self) -> str:
        return self.name


def _node(script: str) -> tuple[str, ...]:
    return ("node", str(_SERVERS / script))


def _python(script: str) -> tuple[str, ...]:
    return (str(_PYTHON), str(_SERVERS / script))


KINDS = (
    Kind("oidc-provider", _node("oidc_provider.js"), scope=""),
    Kind("node-oauth", _node("node_oauth.js"), decodes=False, rfc7009=False),
    Kind("jmondi", _node("jmondi.js"), decodes=False, spent="400, invalid_request"),
    Kind("django-oauth-toolkit", _python("django_toolkit.py")),
    Kind("authlib", _python("authlib_flask.py"), scope=""),
    Kind(
        "glewlwyd-oidc",
        _python("glewlwyd.py"),
        {"plugin": "oidc", "root": str(_DEBIAN)},
        decodes=False,
        refusal="403",
        scope="400, scope_invalid",
        spent="400",
    ),
    Kind(
        "glewlwyd-oauth2",
        _python("glewlwyd.py"),
        {"plugin": "oauth2", "root": str(_DEBIAN)},
        decodes=False,
        form=False,
        refusal="403",
        scope="400, scope_invalid",
        spent="",
    ),
)


@dataclass
class Server:
    """One that runs. ``lifetime`` is that of its access tokens, in seconds."""

    kind: Kind
    lifetime: int
    process: subprocess.Popen[bytes]
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def control(self, action: str, **body: Any) -> dict[str, Any]:
        """One of its ``/control/…`` calls."""
        request = urllib.request.Request(
            f"{self.url}/control/{action}",
            None if action == "calls" else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def calls(self, name: str) -> int:
        """How often ``/~NAME/…`` was called."""
        return int(self.control("calls").get(name, 0))

    def revoke(self, client: str, secret: str, token: str) -> None:
        """RFC 7009, or what stands for it where the library has none."""
        if not self.kind.rfc7009:
            self.control("revoke", token=token)
            return
        request = urllib.request.Request(
            f"{self.url}/revoke", f"token={token}".encode(), _basic(client, secret)
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            assert answer.status == 200


def _basic(client: str, secret: str) -> dict[str, str]:
    import base64

    pair = base64.b64encode(f"{client}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _launch(kind: Kind, lifetime: int, port: int, **more: Any) -> subprocess.Popen[bytes]:
    settings = {"lifetime": lifetime, "port": port, **kind.settings, **more}
    return subprocess.Popen(
        [*kind.command, json.dumps(settings)],
        cwd=_SERVERS,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NODE_NO_WARNINGS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )


@contextmanager
def running(
    wanted: Iterable[tuple[Kind, int]], ports: Mapping[str, int] | None = None, **more: Any
) -> Iterator[dict[tuple[str, int], Server]]:
    """Servers by name and lifetime, all started at once; ended with the block."""
    with ExitStack() as stack:
        servers = {}
        for kind, lifetime in wanted:
            process = _launch(kind, lifetime, (ports or {}).get(kind.name, 0), **more)
            stack.callback(_end, process)
            servers[kind.name, lifetime] = Server(kind, lifetime, process)
        for server in servers.values():
            server.port = _ready(server)
        yield servers


def _ready(server: Server) -> int:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        if match := re.fullmatch(rb"ready (\d+)\n", line):
            return int(match[1])
    raise AssertionError(f"{server.kind} ended before it listened; has make test-oauth run?")


def _end(process: subprocess.Popen[bytes]) -> None:
    # Not killed at once: the one that has a child ends it first.
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Keyrelay:
    """``keyrelay run`` as a process; ``log`` is what it has written to stderr."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", self.log)
        assert found is not None, self.log
        return found[0]

    async def get(
        self, route: str, session: aiohttp.ClientSession, **more: Any
    ) -> tuple[int, dict[str, str], str]:
        """Status, header fields and body of a GET at the resource."""
        async with session.get(f"{self.url}/{route}/api/thing", **more) as response:
            return response.status, dict(response.headers), await response.text()


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """For a keyrelay of this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **variables}


def write_routes(folder: Path, routes: Mapping[str, Any], **settings: Any) -> Path:
    """A routes file, as JSON, which is YAML."""
    file = folder / "routes.yaml"
    document = {"listen": "127.0.0.1:0", "drain_seconds": 0, "routes": routes, **settings}
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    return file


@contextmanager
def keyrelay(
    folder: Path,
    routes: Mapping[str, Any],
    variables: Mapping[str, str],
    *,
    name: str = "run",
    **settings: Any,
) -> Iterator[Keyrelay]:
    """Keyrelay with these routes, once it listens."""
    file = write_routes(folder, routes, **settings)
    log = folder / f"{name}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", "--config", str(file)],
            env=environment(variables),
            stdout=subprocess.DEVNULL,
            stderr=written,
        )
    relay = Keyrelay(process, log)
    try:
        end = time.monotonic() + PATIENCE
        while not re.search(r"http://127\.0\.0\.1:\d+", relay.log):
            assert process.poll() is None, relay.log
            assert time.monotonic() < end, relay.log
            time.sleep(0.05)
        yield relay
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in relay.log, relay.log


def faketime(skew: str) -> dict[str, str]:
    """Variables that move the wall clock of a process by so many seconds, such as ``+60``."""
    (library,) = _DEBIAN.glob("usr/lib/*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{skew}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def doctor(file: Path, variables: Mapping[str, str], *arguments: str) -> str:
    """What ``keyrelay doctor`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "doctor", "--config", str(file), *arguments],
        env=environment(variables),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    output = done.stdout.decode() + done.stderr.decode()
    assert "Traceback" not in output, output
    return output


def route(server: Server, token: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A route to a server's own resource, with ``token``."""
    return {
        "upstream": server.url,
        "spares": 0,
        "secrets": {
            name: f"env:{name.upper()}" for name in _named(json.dumps(token)) if name != "token"
        },
        "auth": [
            {
                "name": "token",
                "token": dict(token),
                "header": "Authorization",
                "value": "Bearer {token}",
            }
        ],
        **more,
    }


def _named(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{([a-z0-9_]+)\}", text)))


def credentials(server: Server, name: str, *, count: str = "", **more: Any) -> dict[str, Any]:
    """``token`` for client credentials of the client NAME, whose secret is env:NAME_SECRET."""
    kind = server.kind
    scope = {"scope": SCOPE} if kind.name.startswith(("glewlwyd", "authlib")) else {}
    return {
        "type": "oauth2_client_credentials",
        "url": f"/~{count or name}/token",
        "client_id": name,
        "client_secret": f"{{{variable(name)}}}",
        **scope,
        "timeout_seconds": _TOKEN_SECONDS,
        **more,
    }


def refresh(server: Server, name: str, *, count: str = "", **more: Any) -> dict[str, Any]:
    """``token`` for a refresh token of the client NAME, which is env:NAME_GRANT."""
    return {
        "type": "oauth2_refresh_token",
        "url": f"/~{count or name}/token",
        "client_id": name,
        "client_secret": f"{{{variable(name)}}}",
        "refresh_token": f"{{{variable(name)}_grant}}",
        "timeout_seconds": _TOKEN_SECONDS,
        **more,
    }


def variable(name: str) -> str:
    """The name of a secret for a client."""
    return name.replace("-", "_")


async def gather(*work: Any) -> list[Any]:
    """All results, in order."""
    return list(await asyncio.gather(*work))
