"""``--env-file``: variables beside the environment, never in it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.command import CANARY, keyrelay, running
from tests.support.keyrelay import client, heads, raw_provider

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def env_file(folder: Path, text: str, name: str = ".env") -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return str(file)


@pytest.mark.parametrize(
    "command",
    [
        ("check", "--strict", "hume"),
        ("explain", "GET", "/hume/v0/evi/configs"),
        ("exec", "hume", "--", "true"),
    ],
)
def test_commands_read_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The route is ready by the file alone; without the option no file is searched for."""
    file = env_file(tmp_path, f"HUME_API_KEY={CANARY}")
    name, *rest = command
    done = keyrelay(name, "--env-file", file, *rest)
    assert (done.code, done.err) == (0, "")
    assert CANARY not in done.out
    without = keyrelay(*command, cwd=tmp_path)
    assert without.code != 0 or "<api_key: not set>" in without.out
    assert "not set" not in done.out


def test_the_environment_comes_first(tmp_path: Path) -> None:
    """A variable that is set is not replaced; an odd value shows which one was read."""
    file = env_file(tmp_path, f"HUME_API_KEY={CANARY}")
    done = keyrelay("check", "hume", "--env-file", file, variables={"HUME_API_KEY": "<your key>"})
    assert "placeholder from an example" in done.err


def test_a_command_does_not_inherit_it(tmp_path: Path) -> None:
    """Neither keys nor other variables of the file are in the environment of exec's command."""
    file = env_file(tmp_path, f"HUME_API_KEY={CANARY}\nOTHER={CANARY}")
    done = keyrelay("exec", "--env-file", file, "hume", "--", sys.executable, "-c", SHOW)
    environment = json.loads(done.out)
    assert CANARY not in done.out
    assert environment["HUME_API_KEY"] == "unused"
    assert "OTHER" not in environment


def test_a_file_with_a_fault(tmp_path: Path) -> None:
    """It is exit 2 with the place, before anything starts."""
    file = env_file(tmp_path, f"A=1\n{CANARY}\n")
    done = keyrelay("run", "hume", "--env-file", file)
    assert (done.code, CANARY in done.err) == (2, False)
    assert f"{file}:2:1: invalid line" in done.err


async def test_a_change_is_taken_by_a_reload(tmp_path: Path) -> None:
    """The running keyrelay reads the file again when it changes."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            received.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_provider(serve) as provider:
        routes = tmp_path / "routes.yaml"
        route = {
            "upstream": provider.url,
            "secrets": {"key": "env:acme_key"},
            "auth": [{"header": "X-Api-Key", "value": "{key}"}],
            "spares": 0,
        }
        routes.write_text(json.dumps({"listen": "127.0.0.1:0", "routes": {"acme": route}}))
        file = env_file(tmp_path, f"acme_key={CANARY}-1")
        async with (
            running("run", "-c", str(routes), "--env-file", file) as process,
            client() as http,
        ):
            found = re.search(r"on (http://[0-9.:]+)", process.err)
            assert found is not None
            async with http.get(f"{found[1]}/acme/") as answer:
                assert answer.status == 200
            env_file(tmp_path, f"acme_key={CANARY}-2")
            await process.said("Reloaded: route acme has other secrets.")
            async with http.get(f"{found[1]}/acme/") as answer:
                assert answer.status == 200
    assert [
        f"X-Api-Key: {CANARY}-{turn}\r\n".encode() in head
        for turn, head in zip((1, 2), received, strict=True)
    ] == [True, True]
