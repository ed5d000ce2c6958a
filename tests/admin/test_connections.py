"""Which connections the admin listener takes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from proxy.admin.connections import MOST_CONNECTIONS
from proxy.errors import Refusal
from tests.support.inspection import inspected
from tests.support.keyrelay import RawClient, static_route, until

ROUTES = {"api": static_route("https://api.example.com")}


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def request(port: int) -> bytes:
    return f"GET /style.css HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127", None])
async def test_idle_connections_lock_no_other_out(dummy_key: bytes, sent: bytes | None) -> None:
    """Of too many connections that send nothing, a part of a request, or nothing after a complete
    one (None), the one that has been idle longest is closed.
    """
    async with inspected(ROUTES) as running:
        port = running.admin.listener.address.port
        clients = [await RawClient.to(port) for _ in range(MOST_CONNECTIONS)]
        for one in clients:
            one.send(request(port) if sent is None else sent)
            if sent is None:
                assert (await one.answer())[0] == 200
        server = running.admin._served.server
        assert server is not None
        await until(lambda: len(server.connections) == MOST_CONNECTIONS)
        for closed in clients[:3]:
            async with await RawClient.to(port) as more:
                more.send(request(port))
                assert (await more.answer())[0] == 200
                assert await closed.rest() == b""
                assert len(server.connections) <= MOST_CONNECTIONS
            clients.append(await RawClient.to(port))
        for one in clients:
            one.reset()


async def test_so_many_requests_at_a_time_and_no_more(dummy_key: bytes) -> None:
    """While as many requests are in progress, one connection more is refused before any read."""
    async with inspected(ROUTES) as running:
        port = running.admin.listener.address.port
        server = running.admin._served.server
        assert server is not None
        clients = [await RawClient.to(port) for _ in range(MOST_CONNECTIONS)]
        await until(lambda: len(server.connections) == MOST_CONNECTIONS)
        # All of them count as idle until a request begins.
        for handler in server.connections:
            running.admin.idle.discard(handler)
        async with await RawClient.to(port) as more:
            status, head, body = await more.answer()
            assert (status, b"\r\nRetry-After: 1\r\n" in head) == (503, True)
            assert json.loads(body)["type"] == "urn:keyrelay:problem:too-many-connections"
            assert await more.rest() == b""
        clients.pop().reset()
        await until(lambda: len(server.connections) < MOST_CONNECTIONS)
        async with await RawClient.to(port) as more:
            more.send(request(port))
            assert (await more.answer())[0] == 200
        for one in clients:
            one.reset()


async def test_users_who_may_not_connect(dummy_key: bytes) -> None:
    """They are refused when they come, and with their next request if that is decided later."""
    refused = False

    def peer_refusal(_transport: asyncio.BaseTransport) -> Refusal | None:
        return Refusal(403, "peer-not-allowed", "No.") if refused else None

    async with inspected(ROUTES, peer_refusal=peer_refusal) as running:
        port = running.admin.listener.address.port
        async with await RawClient.to(port) as before:
            before.send(request(port))
            assert (await before.answer())[0] == 200
            refused = True
            async with await RawClient.to(port) as after:
                assert (await after.answer())[0] == 403
                assert await after.rest() == b""
            before.send(request(port))
            status, _, body = await before.answer()
            assert (status, json.loads(body)["type"]) == (
                403,
                "urn:keyrelay:problem:peer-not-allowed",
            )
