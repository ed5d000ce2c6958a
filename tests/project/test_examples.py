"""The examples run as they stand, against keyrelay, and have no key."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.config import loader
from tests.emulators import HUME_KEY
from tests.support.command import CANARY, ROOT, environment, running
from tests.support.conversation import GREETING, ConversingHume

EXAMPLES = ROOT / "examples"
PAGE = EXAMPLES / "browser"
FILES = sorted(
    path
    for path in EXAMPLES.rglob("*")
    if path.is_file() and not {"node_modules", "dist"} & set(path.parts)
)
NODE = shutil.which("node")


@pytest.fixture
async def hume() -> AsyncIterator[ConversingHume]:
    async with ConversingHume(strategy="key") as emulator:
        yield emulator


@pytest.fixture
async def base(hume: ConversingHume, tmp_path: Path) -> AsyncIterator[str]:
    """The address of the route, at a keyrelay that alone has the key."""
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"listen: 127.0.0.1:0\nroutes: {{hume: {{provider: hume, upstream: '{hume.origin}'}}}}"
    )
    variables = {"HUME_API_KEY": HUME_KEY}
    async with running("run", "-c", str(routes), variables=variables) as process:
        yield f"{process.urls[0]}/hume"


async def outcome(*command: str, base: str) -> tuple[int, str]:
    """How a client without any key ended, and all that it said."""
    variables = environment(HUME_BASE_URL=base)
    assert not {name for name in variables if name.endswith("_API_KEY")}
    client = await asyncio.create_subprocess_exec(
        *command,
        cwd=EXAMPLES,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await client.communicate()
    assert client.returncode is not None
    return client.returncode, out.decode()


async def node_options() -> list[str]:
    """What lets this Node have a WebSocket. Skips without Node, or with one that is too old."""
    if NODE is None:
        pytest.skip("node is not installed")
    for options in ([], ["--experimental-websocket"]):
        probe = await asyncio.create_subprocess_exec(
            *[NODE, *options, "-e", "process.exit(typeof WebSocket === 'undefined' ? 1 : 0)"],
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await probe.wait() == 0:
            return options
    pytest.skip("this node has no WebSocket")


def check_what_it_said(code: int, out: str, hume: ConversingHume) -> None:
    assert code == 0, out
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "configs: 0"
    assert "chat_metadata" in lines
    assert f"assistant_message {GREETING}" in lines
    assert lines[-1] == "assistant_end"
    assert [f"{one.method} {one.path}" for one in hume.requests] == [
        "GET /v0/evi/configs",
        "GET /v0/evi/chat",
    ]
    assert hume.faults == []


async def test_the_python_client_runs(base: str, hume: ConversingHume) -> None:
    """REST and a conversation with no key anywhere near it; each reaches Hume authenticated."""
    code, out = await outcome(sys.executable, "python/client.py", base=base)
    check_what_it_said(code, out, hume)


async def test_the_node_client_runs(base: str, hume: ConversingHume) -> None:
    """The same with what Node brings."""
    options = await node_options()
    assert NODE is not None
    command = [NODE, "--no-warnings", *options, "node/client.mjs"]
    code, out = await outcome(*command, base=base)
    check_what_it_said(code, out, hume)


async def test_clients_that_are_refused_say_so(hume: ConversingHume, tmp_path: Path) -> None:
    """Without its key keyrelay refuses, and a client ends with a failure and the reason."""
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"listen: 127.0.0.1:0\nroutes: {{hume: {{provider: hume, upstream: '{hume.origin}'}}}}"
    )
    async with running("run", "-c", str(routes)) as process:
        base = f"{process.urls[0]}/hume"
        code, out = await outcome(sys.executable, "python/client.py", base=base)
        assert (code, "503" in out) == (1, True)
        if NODE is not None:
            code, out = await outcome(NODE, "node/client.mjs", base=base)
            assert (code, "set HUME_API_KEY" in out) == (1, True)
    assert hume.requests == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_has_no_place_for_a_key(path: Path) -> None:
    """No example reads or sends one: only what to tell keyrelay is said, in the texts."""
    text = path.read_text(encoding="utf-8")
    assert CANARY not in text
    if path.suffix != ".md":
        assert not re.search(r"api[_-]?key|access_token|authorization|bearer", text, re.IGNORECASE)


def test_the_page_s_routes_are_right() -> None:
    """They let in Vite's own origin and no other, and what the page asks for and nothing else."""
    settings = loader.load(PAGE / "routes.yaml")
    config = (PAGE / "vite.config.js").read_text()
    found = re.search(r'host: "(\w+)", port: (\d+), strictPort: true', config)
    assert found is not None
    assert settings.browsers.origins == (f"http://{found[1]}:{found[2]}",)
    script = "".join(path.read_text() for path in PAGE.glob("*.js"))
    allowed = settings.routes["hume"].allow
    assert allowed is not None
    asked = set(re.findall(r"\}(/v0/[a-z/]+)`", script))
    assert asked == {"/v0/evi/chat", "/v0/tts/stream/file"}
    assert set(allowed) == {"GET /v0/evi/chat", "POST /v0/tts/stream/file"}
    assert f'"http://{settings.listen[0]}"' in script


def test_packages_come_from_whatever_registry_somebody_has() -> None:
    """The lock file pins versions and hashes, and the address of no registry."""
    declared = json.loads((PAGE / "package.json").read_text())
    locked = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    assert locked.pop("")["devDependencies"] == declared["devDependencies"]
    assert all("resolved" not in one and one["integrity"] for one in locked.values())
    assert "dependencies" not in declared
