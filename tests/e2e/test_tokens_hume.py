"""Hume with and without its secret key: what gets a token, what the key, and what neither.

The clients here bring dummies everywhere, and the emulator takes one credential in one place only.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus
from yarl import URL

from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator, Recorded
from tests.emulators.hume import TOKEN_PATH
from tests.support.keyrelay import Running, both_loops, client, preset_keyrelay, until

pytestmark = both_loops

DUMMIES = [
    ("X-Hume-Api-Key", "client-dummy-key"),
    ("X-API-Key", "client-dummy-key"),
    ("Authorization", "Bearer client-dummy-token"),
    ("Cookie", "session=client-dummy-cookie"),
]
QUERY = "api_key=client-dummy-key&x=1&access_token=client-dummy-token&apiKey=client-dummy-key"

# Where Hume takes tokens, and where the key alone.
TOKEN_REST = [
    ("GET", "/v0/evi/configs"),
    ("GET", "/v0/evi/chats"),
    ("POST", "/v0/evi/tools/x/version"),
    ("POST", "/v0/tts/stream/file"),
    ("POST", "/v0/tts/stream/json"),
    ("DELETE", "/v0/tts/voices"),
]
KEY_REST = [
    ("GET", "/v0/batch/jobs"),
    ("POST", "/v0/batch/jobs"),
    ("GET", "/v0/registry/models"),
    ("GET", "/v0/evix/configs"),
    ("GET", "/v1/anything"),
]
TOKEN_SOCKETS = ["/v0/evi/chat", "/v0/evi/chat/c1/connect", "/v0/tts/stream/input"]
KEY_SOCKETS = ["/v0/stream/models"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)


@pytest.fixture
def both(key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, and the secret that makes tokens of it."""
    monkeypatch.setenv("HUME_SECRET_KEY", HUME_SECRET)


@pytest.fixture
async def hume() -> AsyncIterator[HumeEmulator]:
    """Takes key and token alike on EVI and TTS, so that the choice is keyrelay's."""
    async with HumeEmulator(strategy="either") as emulator:
        yield emulator


def route(hume: HumeEmulator, **more: str) -> dict[str, dict[str, str]]:
    return {"hume": {"provider": "hume", "upstream": hume.origin, **more}}


async def ask(running: Running, method: str, path: str) -> int:
    url = URL(f"{running.url}/hume{path}?{QUERY}", encoded=True)
    async with client() as http, http.request(method, url, headers=DUMMIES) as answer:
        await answer.read()
        return answer.status


async def open_socket(running: Running, path: str) -> None:
    async with running.websocket(f"/hume{path}?{QUERY}", DUMMIES) as socket:
        if path.startswith("/v0/evi/"):
            assert json.loads(await socket.recv())["type"] == "chat_metadata"
        await socket.send("hello")
        assert await socket.recv() == "hello"


async def served(
    routes: dict[str, dict[str, str]], rest: list[tuple[str, str]], sockets: list[str]
) -> None:
    """A keyrelay with these routes serves every one of these requests and WebSockets."""
    async with preset_keyrelay(routes) as running:
        for method, path in rest:
            assert await ask(running, method, path) == 200
        for path in sockets:
            await open_socket(running, path)


def credential(recorded: Recorded) -> tuple[list[str], list[str], str]:
    """The values of both headers, and the query."""
    return recorded.values("Authorization"), recorded.values("X-Hume-Api-Key"), recorded.query


@pytest.mark.usefixtures("both")
async def test_with_a_secret_evi_and_tts_get_tokens(hume: HumeEmulator) -> None:
    """A header over HTTP, a parameter on sockets, one token for all; the key does not leave."""
    await served(route(hume), TOKEN_REST, TOKEN_SOCKETS)
    count = len(TOKEN_REST)
    for recorded in hume.asked[:count]:
        assert credential(recorded) == (["Bearer dummy-token-1"], [], "x=1")
    for recorded in hume.asked[count:]:
        assert recorded.websocket
        assert credential(recorded) == ([], [], "x=1&access_token=dummy-token-1")
    assert len(hume.asked) == count + len(TOKEN_SOCKETS)
    assert (len(hume.fetched), hume.faults) == (1, [])


@pytest.mark.usefixtures("both")
async def test_with_a_secret_everything_else_gets_the_key(hume: HumeEmulator) -> None:
    """Other products take no token, so they are never given one."""
    await served(route(hume), KEY_REST, KEY_SOCKETS)
    count = len(KEY_REST)
    for recorded in hume.asked[:count]:
        assert credential(recorded) == ([], [HUME_KEY], "x=1")
    for recorded in hume.asked[count:]:
        assert credential(recorded) == ([], [], f"x=1&api_key={HUME_KEY}")
    assert hume.faults == []


@pytest.mark.parametrize("pinned", [{}, {"strategy": "api_key"}], ids=["alone", "pinned"])
async def test_the_key_everywhere(
    hume: HumeEmulator, monkeypatch: pytest.MonkeyPatch, pinned: dict[str, str], key: None
) -> None:
    """Without the secret, or if the route says so: nothing is minted, no path is left out."""
    if pinned:
        monkeypatch.setenv("HUME_SECRET_KEY", HUME_SECRET)
    await served(route(hume, **pinned), TOKEN_REST + KEY_REST, TOKEN_SOCKETS + KEY_SOCKETS)
    for recorded in hume.requests:
        if recorded.websocket:
            assert credential(recorded) == ([], [], f"x=1&api_key={HUME_KEY}")
        else:
            assert credential(recorded) == ([], [HUME_KEY], "x=1")
    assert (hume.fetched, hume.faults) == ([], [])


@pytest.mark.usefixtures("both")
async def test_tokens_alone(hume: HumeEmulator) -> None:
    """``strategy: token``: what takes no token is refused here, by name; the key stays here."""
    async with preset_keyrelay(route(hume, strategy="token")) as running:
        await until(lambda: hume.fetched)
        async with client() as http:
            for method, path in KEY_REST:
                async with http.request(method, f"{running.url}/hume{path}") as answer:
                    assert (answer.status, answer.content_type) == (403, "application/problem+json")
                    problem = await answer.json()
                    assert problem["type"] == "urn:keyrelay:problem:no-strategy"
                    assert problem["detail"].endswith("for this request: it uses token.")
        for path in KEY_SOCKETS:
            with pytest.raises(InvalidStatus) as refused:
                await running.websocket(f"/hume{path}").__aenter__()
            assert refused.value.response.status_code == 403
            problem = json.loads(refused.value.response.body or b"")
            assert problem["detail"].endswith("for this WebSocket: it uses token.")
        assert hume.asked == []
        assert await ask(running, *TOKEN_REST[0]) == 200
        await open_socket(running, TOKEN_SOCKETS[0])
    assert (len(hume.requests), hume.faults) == (3, [])


async def test_tokens_alone_without_the_secret(hume: HumeEmulator, key: None) -> None:
    """There is nothing to make a token of: 503 and what to do, and no call."""
    async with (
        preset_keyrelay(route(hume, strategy="token")) as running,
        client() as http,
        http.get(f"{running.url}/hume/v0/evi/configs") as answer,
    ):
        assert answer.status == 503
        assert (await answer.json())["type"] == "urn:keyrelay:problem:route-not-ready"
    assert hume.connections == 0


@pytest.mark.usefixtures("both")
async def test_the_token_call(hume: HumeEmulator) -> None:
    """Basic from key and secret, the form as documented, on a connection of its own."""
    async with preset_keyrelay(route(hume)) as running:
        await until(lambda: hume.fetched)
        await hume.connected(0)
        assert await ask(running, "GET", "/v0/evi/configs") == 200
    call = hume.requests[0]
    pair = base64.b64encode(f"{HUME_KEY}:{HUME_SECRET}".encode()).decode()
    assert (call.method, call.target) == ("POST", TOKEN_PATH)
    assert call.values("Authorization") == [f"Basic {pair}"]
    assert call.form() == {"grant_type": "client_credentials"}
    assert hume.connections == 2


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("pinned", [{}, {"strategy": "token"}, {"strategy": "api_key"}])
async def test_no_client_reaches_the_token_endpoint(
    hume: HumeEmulator, pinned: dict[str, str]
) -> None:
    """Whatever strategy would serve it: a client gets no token that way."""
    async with preset_keyrelay(route(hume, **pinned)) as running:
        if pinned.get("strategy") != "api_key":
            await until(lambda: hume.fetched)
        calls = len(hume.requests)
        for method in ("POST", "GET"):
            assert await ask(running, method, TOKEN_PATH) == 403
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket(f"/hume{TOKEN_PATH}").__aenter__()
        assert refused.value.response.status_code == 403
        assert len(hume.requests) == calls
    assert hume.faults == []


@pytest.mark.usefixtures("both")
async def test_two_routes_have_two_tokens(hume: HumeEmulator) -> None:
    """A token is its route's, also if the other has the same key."""
    one = route(hume)["hume"]
    async with preset_keyrelay({"hume": one, "second": one}) as running:
        await until(lambda: len(hume.fetched) == 2)
        async with client() as http:
            for name in ("hume", "second"):
                async with http.get(f"{running.url}/{name}/v0/evi/configs") as answer:
                    assert answer.status == 200
    sent = {recorded.value("Authorization") for recorded in hume.asked}
    assert sent == {"Bearer dummy-token-1", "Bearer dummy-token-2"}


@pytest.mark.usefixtures("both")
async def test_a_lifetime_written_as_text() -> None:
    """Some gateways send ``expires_in`` in quotes."""
    async with HumeEmulator(strategy="token", expires_in_text=True) as hume:
        async with preset_keyrelay(route(hume)) as running:
            assert await ask(running, "GET", "/v0/evi/configs") == 200
            assert re.search(
                "renewed in 2[45] min", running.app.routes[0].strategies[0].credential.describe()
            )
        assert hume.faults == []
