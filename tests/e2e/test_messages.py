"""Credentials in WebSocket messages end to end: refused tokens, rotation, reload and the inspector.

The services are strict: a session without the right credential in the right message ends at once.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.emulators.in_band import Asking, FirstMessage, Gateway
from tests.support.command import CANARY
from tests.support.command import running as running_command
from tests.support.keyrelay import Running, both_loops, keyrelay, preset_keyrelay, until
from tests.support.reloading import changing

pytestmark = both_loops

ASKED = {
    "send": {"type": "auth", "access_token": "{token}"},
    "after": {"type": "auth_required"},
    "refused": {"message": {"type": "auth_invalid"}},
}
IN_GATEWAY = {
    "set": "/d/token",
    "value": "{token}",
    "when": {"op": [2, 6]},
    "within": 3,
    "refused": {"close": [4004]},
}


class Endpoint:
    """Issues numbered tokens."""

    def __init__(self) -> None:
        self.issued = 0
        self.url = ""

    async def issue(self, _request: web.Request) -> web.Response:
        self.issued += 1
        token = {"access_token": f"dummy-token-{self.issued}", "token_type": "Bearer"}
        return web.json_response({**token, "expires_in": 3600})


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/token", endpoint.issue)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    endpoint.url = f"http://{host}:{port}/token"
    yield endpoint
    await runner.cleanup()


def token_route(upstream: str, endpoint: Endpoint, message: Any) -> dict[str, Any]:
    """A route whose token is in a message."""
    token = {
        "type": "oauth2_client_credentials",
        "url": endpoint.url,
        "client_id": "dummy",
        "client_secret": "{key}",
    }
    return {
        "upstream": upstream,
        "spares": 0,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [{"name": "t", "token": token, "websocket": {"message": message}}],
    }


async def opens(running: Running, first: str) -> bool:
    """Whether the service accepts a session whose client sends this message with its dummy."""
    async with running.websocket("/a/x") as client:
        try:
            await client.recv()
            await client.send(first)
            greeting = json.loads(await client.recv())
            if greeting.get("type") == "auth_invalid":
                assert "dummy-token" not in str(greeting)
                return False
            await client.send("1")
            return await client.recv() == "1"
        except ConnectionClosed:
            if client.close_code != 4004:
                raise
            return False


@pytest.mark.parametrize("form", ["send", "set"])
async def test_a_refused_token_is_replaced(dummy_key: bytes, endpoint: Endpoint, form: str) -> None:
    """By a message or a close code that the settings name: the next session has another token; a
    session that was accepted stays as it is.
    """
    service = (Asking if form == "send" else Gateway)({"dummy-token-1"})
    message = ASKED if form == "send" else IN_GATEWAY
    first = {
        "send": '{"type":"auth","access_token":"dummy"}',
        "set": '{"op":2,"d":{"token":"dummy"}}',
    }[form]
    async with (
        service.running(),
        keyrelay({"a": token_route(service.origin, endpoint, message)}) as running,
    ):
        assert await opens(running, first)
        assert await opens(running, first)
        assert endpoint.issued == 1
        service.keys = {"dummy-token-2"}
        assert not await opens(running, first)
        assert await opens(running, first)
        assert endpoint.issued == 2
        await until(lambda: len("".join(running.lines).splitlines()) == 4)
        lines = "".join(running.lines).splitlines()
        assert [("credential-refused" in line) for line in lines] == [False, False, True, False]
        assert "dummy-token" not in "".join(lines)
    for session in service.sessions:
        assert '"dummy"' not in str(session)


async def test_another_end_does_not_replace_the_token(dummy_key: bytes, endpoint: Endpoint) -> None:
    """A close code that the settings do not name says nothing about the token."""
    service = Gateway({"another"})
    message = {**IN_GATEWAY, "refused": {"close": [4999]}}
    async with (
        service.running(),
        keyrelay({"a": token_route(service.origin, endpoint, message)}) as running,
    ):
        for _ in range(2):
            assert not await opens(running, '{"op":2,"d":{"token":"dummy"}}')
        assert endpoint.issued == 1


async def test_a_rotated_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first of two keys is refused, the next session has the second."""
    monkeypatch.setenv("DUMMY_OLD", "dummy-old-key")
    monkeypatch.setenv("DUMMY_NEW", "dummy-new-key")
    service = Gateway({"dummy-new-key"})
    message = {**IN_GATEWAY, "value": "{key}"}
    route = {
        "secrets": {"key": ["env:DUMMY_OLD", "env:DUMMY_NEW"]},
        "auth": [{"name": "k", "websocket": {"message": message}}],
    }
    identify = '{"op":2,"d":{"token":"dummy"}}'
    async with (
        service.running(),
        keyrelay({"a": {"upstream": service.origin, **route}}) as running,
    ):
        assert [await opens(running, identify) for _ in range(3)] == [False, True, True]


async def test_a_reload_concerns_the_next_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An open session goes on, one that waits for its message uses what was in force when it
    began, and the next one uses the new key.
    """
    monkeypatch.setenv("DUMMY_OLD", "dummy-old-key")
    monkeypatch.setenv("DUMMY_NEW", "dummy-new-key")
    service = FirstMessage({"dummy-old-key", "dummy-new-key"})

    def settings(variable: str) -> dict[str, Any]:
        message = {"set": "/X-API-Key", "value": "{key}"}
        return {
            "upstream": service.origin,
            "secrets": {"key": f"env:{variable}"},
            "auth": [{"name": "k", "websocket": {"message": message}}],
        }

    async with (
        service.running(),
        changing(tmp_path, {"a": settings("DUMMY_OLD")}) as running,
    ):
        async with running.websocket("/a/x") as one, running.websocket("/a/x") as waiting:
            await one.send("{}")
            await one.send("1")
            assert await one.recv() == "1"
            await running.change(a=settings("DUMMY_NEW"))
            await waiting.send("{}")
            await waiting.send("2")
            assert await waiting.recv() == "2"
            await one.send("1")
            assert await one.recv() == "1"
            async with running.websocket("/a/x") as after:
                await after.send("{}")
                await after.send("3")
                assert await after.recv() == "3"
        keys = [json.loads(session[0])["X-API-Key"] for session in service.sessions]
        assert sorted(keys) == ["dummy-new-key", "dummy-old-key", "dummy-old-key"]


@pytest.mark.parametrize("provider", ["lmnt", "home-assistant", "discord-gateway"])
async def test_the_presets(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """The services of the presets get the key, and nothing of the client's dummy."""
    variable, service, path, first = {
        "lmnt": ("LMNT_API_KEY", FirstMessage, "/v1/ai/speech/stream", '{"X-API-Key":"dummy-sdk"}'),
        "home-assistant": (
            "HASS_TOKEN",
            Asking,
            "/api/websocket",
            '{"type":"auth","access_token":"dummy-sdk"}',
        ),
        "discord-gateway": (
            "DISCORD_TOKEN",
            Gateway,
            "/?v=10&encoding=json",
            '{"op":6,"d":{"token":"dummy-sdk","seq":1}}',
        ),
    }[provider]
    monkeypatch.setenv(variable, "dummy-real-key")
    emulator = service({"dummy-real-key"})
    async with emulator.running():
        routes = {provider: {"provider": provider, "upstream": emulator.origin}}
        async with (
            preset_keyrelay(routes) as running,
            running.websocket(f"/{provider}{path}") as client,
        ):
            if provider != "lmnt":
                await client.recv()
            await client.send(first)
            await client.send("later")
            while await client.recv() != "later":
                pass
    assert "dummy-sdk" not in str(emulator.sessions)
    assert "dummy-real-key" in str(emulator.sessions)


async def test_the_inspector_marks_the_message(dummy_key: bytes) -> None:
    """It shows the message with the credential redacted, and what keyrelay did with it."""
    service = Asking({dummy_key.decode()})
    route: dict[str, Any] = {
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [
            {
                "name": "k",
                "websocket": {
                    "message": {
                        "send": {"type": "auth", "access_token": "{key}"},
                        "after": {"type": "auth_required"},
                    }
                },
            }
        ],
    }
    async with (
        service.running(),
        keyrelay({"a": {"upstream": service.origin, **route}}) as running,
    ):
        hub = running.app._context.inspector_hub
        subscription = hub.subscribe()
        try:
            async with running.websocket("/a/x") as client:
                await client.recv()
                await client.send('{"type":"auth","access_token":"dummy"}')
                await client.recv()
            await until(lambda: running.app.exchange_log.recent)
        finally:
            hub.unsubscribe(subscription)
        conversation = hub.conversation(running.app.exchange_log.recent[-1])
        assert conversation is not None
        said = [(one.sender, one.kind, one.text) for one in conversation.messages]
    stars = "*" * len(dummy_key)
    assert ("client", "text", f'{{"type":"auth","access_token":"{stars}"}}') in said
    notes = [text for sender, kind, text in said if (sender, kind) == ("keyrelay", "note")]
    assert notes == [
        "The message with the credential was sent by keyrelay.",
        "The client's own message with a credential was not forwarded.",
    ]


async def test_many_sessions_at_once(dummy_key: bytes, endpoint: Endpoint) -> None:
    """Each session has its own parsers: sessions do not get each other's messages."""
    service = Gateway({"dummy-token-1"})
    async with (
        service.running(),
        keyrelay({"a": token_route(service.origin, endpoint, IN_GATEWAY)}) as running,
    ):

        async def one(number: int) -> None:
            async with running.websocket("/a/x") as client:
                await client.recv()
                await client.send(f'{{"op":2,"d":{{"token":"dummy","n":{number}}}}}')
                await client.recv()
                await client.send(str(number))
                assert await client.recv() == str(number)

        await asyncio.gather(*map(one, range(20)))
        assert endpoint.issued == 1
        numbers = {(json.loads(str(s[0]))["d"]["n"], s[1]) for s in service.sessions}
        assert numbers == {(number, str(number)) for number in range(20)}


async def test_no_credential_for_a_session_that_is_refused(
    dummy_key: bytes, endpoint: Endpoint
) -> None:
    """A client whose message cannot get the token does not cost the service a session."""
    service = Gateway({"dummy-token-1"})
    async with (
        service.running(),
        keyrelay({"a": token_route(service.origin, endpoint, IN_GATEWAY)}) as running,
        running.websocket("/a/x") as client,
    ):
        await client.recv()
        await client.send("dummy")
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        await until(lambda: service.ends)
        assert service.sessions == [[]]


async def test_workers_and_the_end(tmp_path: Path) -> None:
    """Sessions of every worker get the key; at SIGTERM sessions get 1001, those that wait for
    their message too.
    """
    service = FirstMessage({CANARY})
    async with service.running():
        file = tmp_path / "routes.yaml"
        file.write_text(
            "listen: 127.0.0.1:0\nworkers: 2\ndrain_seconds: 20\nroutes:\n"
            f"  lmnt: {{provider: lmnt, upstream: '{service.origin}'}}\n"
        )
        async with (
            running_command("run", "-c", str(file), variables={"LMNT_API_KEY": CANARY}) as process,
            AsyncExitStack() as stack,
        ):
            url = f"ws://127.0.0.1:{process.port}/lmnt/v1/ai/speech/stream"
            sessions = [
                await stack.enter_async_context(connect(url, proxy=None)) for _ in range(12)
            ]
            for session in sessions[:8]:
                await session.send('{"X-API-Key":"dummy-sdk"}')
                await session.send("later")
                assert await session.recv() == "later"
            process.signal(signal.SIGTERM)
            for session in sessions:
                async with asyncio.timeout(30):
                    await session.wait_closed()
                assert session.close_code == 1001
            assert await process.ended() == 0
    assert "dummy-sdk" not in str(service.sessions)
    assert sorted(len(one) for one in service.sessions) == [0] * 4 + [2] * 8
