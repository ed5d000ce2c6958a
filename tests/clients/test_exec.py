"""SDKs in a program that `keyrelay exec` runs: they find the address, and no key."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MISSING
from tests.emulators import HUME_KEY, HumeEmulator
from tests.support.command import CANARY, Done, keyrelay
from tests.support.keyrelay import raw_provider, read_head

pytestmark = pytest.mark.clients

HUME = """
import os
from hume import HumeClient
client = HumeClient(api_key="dummy", base_url=os.environ["HUME_BASE_URL"])
print(client.empathic_voice.configs.list_configs(page_size=1).items)
"""
# It reads the address by itself.
OPENAI = """
from openai import OpenAI
print([one.id for one in OpenAI(api_key="dummy").models.list()])
"""


async def execute(folder: Path, routes: dict[str, Any], program: str, **variables: str) -> Done:
    """Run a program of this Python beside keyrelay."""
    file = folder / "routes.yaml"
    file.write_text(json.dumps({"routes": routes}))
    # What the libraries warn of is their makers' affair.
    command = ("exec", "-c", str(file), "--", sys.executable, "-W", "ignore", "-c", program)
    variables = {"NO_PROXY": "*", "no_proxy": "*", **variables}
    return await asyncio.to_thread(keyrelay, *command, variables=variables)


async def test_hume(tmp_path: Path) -> None:
    """The emulator takes the real key only, and gets it."""
    pytest.importorskip("hume", reason=MISSING)
    async with HumeEmulator(strategy="key") as hume:
        route = {"provider": "hume", "upstream": hume.origin}
        done = await execute(tmp_path, {"hume": route}, HUME, HUME_API_KEY=HUME_KEY)
        assert done == Done(0, "[]\n", "")
        assert hume.faults == []
        assert [one.path for one in hume.requests] == ["/v0/evi/configs"]


async def test_openai(tmp_path: Path) -> None:
    """Without a word about addresses in the program."""
    pytest.importorskip("openai", reason=MISSING)
    received: list[bytes] = []
    models = {"object": "list", "data": [{"id": "dummy-1", "object": "model", "created": 1}]}
    body = json.dumps(models).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_head(reader))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async with raw_provider(serve) as provider:
        route = {"provider": "openai", "upstream": provider.url}
        done = await execute(tmp_path, {"openai": route}, OPENAI, OPENAI_API_KEY=CANARY)
    assert done == Done(0, "['dummy-1']\n", "")
    (head,) = received
    assert head.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer %b\r\n" % CANARY.encode() in head
