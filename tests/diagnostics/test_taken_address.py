"""An address that is taken: the report names the setting, its place, and what has the address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command import keyrelay, running

ROUTES = """\
listen: 127.0.0.1:0
routes:
  demo:
    provider: demo
    listen: {address}
"""


@pytest.fixture
def taken() -> Iterator[str]:
    """An address of another program, which never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def write(folder: Path, text: str) -> Path:
    file = folder / "routes.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_the_listener_of_a_route_is_reported_with_its_line(tmp_path: Path, taken: str) -> None:
    """File and line of the setting, the route, and what to change."""
    file = write(tmp_path, ROUTES.format(address=taken))
    done = keyrelay("run", "-c", str(file))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"keyrelay: {file}:5: {taken} is in use by another program; stop")
    assert "change listen of the route demo" in done.err


def test_the_shared_listener_is_reported_with_its_line(tmp_path: Path, taken: str) -> None:
    """File and line of ``listen``, and the option that replaces it."""
    file = write(tmp_path, f"listen: {taken}\nroutes: {{demo: {{provider: demo}}}}\n")
    done = keyrelay("run", "-c", str(file))
    assert done.err.startswith(f"keyrelay: {file}:1: {taken} is in use by another program; stop")
    assert "--listen" in done.err


def test_a_listener_of_the_shipped_routes_is_reported_as_theirs() -> None:
    """There is no file that its reader could change: what to do instead."""
    with socket.socket() as taken:
        with suppress(OSError):  # another program has it, which is as good
            taken.bind(("127.0.0.1", 8082))
            taken.listen()
        variables = {"AIGNE_HUB_API_KEY": "dummy-key"}
        done = keyrelay("run", "--listen", "127.0.0.1:0", variables=variables)
    assert done.code == 1
    assert done.err.startswith("keyrelay: the shipped routes: 127.0.0.1:8082 is in use by another")
    assert "keyrelay run NAME" in done.err


async def test_a_second_keyrelay_is_recognised() -> None:
    """What has the port is keyrelay itself: no advice to stop an unknown program."""
    async with running("run", "demo", "--listen", "127.0.0.1:0") as first:
        done = keyrelay("run", "demo", "--listen", f"127.0.0.1:{first.port}")
    assert done.code == 1
    assert " is in use by another keyrelay; use that one, stop it first, or choose" in done.err
    assert "another program" not in done.err


async def test_a_route_that_is_not_ready_opens_no_listener(tmp_path: Path, taken: str) -> None:
    """A taken port of a route without its secret does not stop the start."""
    text = ROUTES.format(address=taken) + "    secrets: {key: env:ABSENT_KEY}\n"
    text = text.replace("provider: demo", "upstream: https://api.acme.example").replace(
        "    secrets:", "    auth: [{header: X-Api-Key, value: '{key}'}]\n    secrets:"
    )
    text += "  other: {provider: demo}\n"
    async with running("run", "-c", str(write(tmp_path, text))) as process:
        assert "demo   not ready  set ABSENT_KEY" in process.err
        assert keyrelay("health", f"http://127.0.0.1:{process.port}").code == 0
