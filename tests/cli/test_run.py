"""The commands that serve: what of their options reaches the server.

How it serves, and how it ends, is tested in test_serving.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.command import keyrelay, running
from tests.support.keyrelay import exchange


async def test_the_demo_prints_what_to_paste() -> None:
    """demo: one route, no key, three commands that hold the port it got."""
    async with running("demo", "--listen", "127.0.0.1:0", until="A WebSocket:") as process:
        assert f"{process.urls[0]}/demo/echo/hello" in process.err
        request = b"GET /demo/echo/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert (await exchange(process.port, request)).startswith(b"HTTP/1.1 200 ")
        assert "Ctrl-C here stops it." in process.err


async def test_the_demo_opens_the_inspector() -> None:
    """Where it can have an address: a taken one is no error, as it is only a default."""
    listen = ("--listen", "127.0.0.1:0")
    async with (
        running("demo", *listen, until="A WebSocket:") as one,
        running("demo", *listen, until="A WebSocket:") as other,
    ):
        for process in (one, other):
            assert re.search(r"^  inspector  http://127\.0\.0\.1:\d+ ", process.err, re.MULTILINE)


def test_providers_and_a_file_exclude_each_other() -> None:
    """Two of them are an error: neither wins."""
    done = keyrelay("run", "hume", "-c", "routes.yaml")
    assert done.code == 2
    assert "Name providers or give a file, not both." in done.err


def test_a_route_that_is_not_ready(tmp_path: Path) -> None:
    """As docs/commands.md has it: exit 1 of run --strict and check --strict, 2 of exec."""
    path = tmp_path / "routes.yaml"
    path.write_text("listen: 127.0.0.1:0\nroutes: {hume: {provider: hume}}\n")
    for code, *arguments in (
        (1, "run", "--strict", "-c", str(path)),
        (1, "check", "--strict", "-c", str(path)),
        (2, "exec", "hume", "-c", str(path), "--", "true"),
    ):
        done = keyrelay(*map(str, arguments))
        assert done.code == code
        assert "set HUME_API_KEY" in done.err
