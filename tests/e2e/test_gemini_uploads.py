"""Uploads of Google's npm package, which drops the path of a base URL for them."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.keyrelay import exchange, preset_keyrelay, raw_provider, read_head

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("path", ["/gemini/upload/v1beta/files", "/upload/v1beta/files"])
async def test_both_addresses_of_an_upload_reach_the_provider(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the second route of the preset's notes, an upload arrives with the key either way."""
    monkeypatch.setenv("GOOGLE_API_KEY", "dummy-gemini")
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        await reader.readexactly(2)
        writer.write(DONE)

    async with raw_provider(serve) as provider:
        routes = {
            "gemini": {"provider": "gemini", "upstream": provider.url, "spares": 0},
            "gemini-upload": {
                "provider": "gemini",
                "path": "/upload",
                "upstream": f"{provider.url}/upload",
                "spares": 0,
            },
        }
        async with preset_keyrelay(routes) as running:
            request = f"POST {path}?upload_id=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            request += "x-goog-api-key: dummy-client\r\nContent-Length: 2\r\n\r\nhi"
            answer = await exchange(running.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    (head,) = heads
    assert head.startswith(b"POST /upload/v1beta/files?upload_id=1 HTTP/1.1\r\n")
    assert head.count(b"x-goog-api-key: dummy-gemini\r\n") == 1
    assert b"dummy-client" not in head
