"""Calls by which a client could have the provider issue a credential to it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from proxy.config.presets import presets
from tests.support.keyrelay import preset_keyrelay, raw_provider, read_head
from tests.support.provider_facts import minting, spellings

NOTHING = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def status_of(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str
) -> int:
    """The status of the response to one request on a connection that stays open."""
    writer.write(
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Of-Client: 1\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    async with asyncio.timeout(30):
        head = await read_head(reader)
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    return int(head.split(b" ", 2)[1])


async def test_t51_calls_that_mint_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every listed call of every preset is refused, however its path is spelled, before the
    request is forwarded; other calls of the same route arrive.
    """
    entries = minting()
    for settings in presets().values():
        for secret in settings.secrets.values():
            for reference in secret.references:
                if reference.startswith("env:"):
                    monkeypatch.setenv(reference.removeprefix("env:"), "dummy-unused")
    arrived: list[bytes] = []  # of the client; keyrelay's own token calls arrive as well

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await read_head(reader)
                if b"X-Of-Client" in head:
                    arrived.append(head)
                writer.write(NOTHING)

    async with raw_provider(serve) as provider:
        upstream = f"http://127.0.0.1:{provider.port}"
        listed = [name for name, entry in entries.items() if "calls" in entry]
        routes = {name: {"provider": name, "upstream": upstream, "spares": 0} for name in listed}
        async with preset_keyrelay(routes) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            tried = 0
            for name in listed:
                for method, _, path in (one.partition(" ") for one in entries[name]["calls"]):
                    for spelled in (*spellings(path), f"{path}?x=1"):
                        status = await status_of(reader, writer, method, f"/{name}{spelled}")
                        refused = {400, 403} if spelled.startswith("//") else {403}
                        assert status in refused, (name, method, spelled)
                        tried += 1
            assert tried > 1_000
            assert arrived == []
            assert await status_of(reader, writer, "POST", "/openai/v1/responses") == 200
            assert await status_of(reader, writer, "GET", "/elevenlabs/v1/voices") == 200
            assert len(arrived) == 2
            writer.close()
            await writer.wait_closed()
