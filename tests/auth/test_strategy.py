"""Which requests a strategy serves, and the defaults of credentials."""

from __future__ import annotations

import pytest

from proxy.auth.credential import Credential, IssuedToken, StaticCredential
from proxy.auth.injection import Injection, Placements
from proxy.auth.strategy import EVERY_PATH, Strategy
from proxy.config.placement import HeaderPlacement, QueryPlacement
from proxy.http.path_patterns import PatternSet

HEADER = (HeaderPlacement(header="X-Api-Key", value="{key}"),)
QUERY = (QueryPlacement(query="api_key", value="{key}"),)
INJECTION = Injection(headers=b"X-Api-Key: CANARY-dummy\r\n")


class Least(Credential):
    """Only the abstract methods, for HTTP alone."""

    def ready(self, *, websocket: bool) -> Injection | None:
        return INJECTION

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        return INJECTION


def strategy(*paths: str, http: bool = True, websocket: bool = True) -> Strategy:
    placements = Placements(HEADER if http else None, QUERY if websocket else None)
    credential = StaticCredential(placements.inject({"key": b"dummy-key"}))
    return Strategy("key", PatternSet(paths) if paths else None, placements, credential)


def test_a_credential_is_not_renewable_by_default() -> None:
    """No response of a provider makes a request go out twice."""
    one = Least()
    assert not one.renewable
    assert one.replays == 0
    for status in (200, 400, 401, 403, 407, 500):
        assert not one.rejects(status)
        assert not one.on_response(INJECTION, status)


async def test_a_key_is_never_issued() -> None:
    """Only tokens are: a call for another credential is an error."""
    assert not Least().vends
    with pytest.raises(NotImplementedError, match="only tokens") as caught:
        await Least().vend()
    assert "CANARY" not in str(caught.value)


async def test_there_is_nothing_to_start_or_to_end() -> None:
    """Starting, waiting and closing any number of times changes nothing; there is no state."""
    one = Least()
    for _ in range(2):
        one.start()
        await one.wait_ready()
        one.reset()
        one.close()
    assert one.ready(websocket=False) is INJECTION
    assert one.describe() == ""
    assert one.state() is None
    assert one.active_injections() == ()


@pytest.mark.parametrize("paths", [(), ("/**",), ("/v0/*",)])
@pytest.mark.parametrize("websocket", [False, True])
def test_a_strategy_serves_only_kinds_with_a_placement(
    paths: tuple[str, ...], websocket: bool
) -> None:
    """Without a placement a request would leave without credential, whatever its path."""
    one = strategy(*paths, http=not websocket, websocket=websocket)
    assert one.serves("GET", "/v0/x", websocket=websocket)
    assert not one.serves("GET", "/v0/x", websocket=not websocket)


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v0/tts", True),
        ("/v0/tts/stream", True),
        ("/v0/t%74s/x", True),
        ("/v0/ttsx", False),
        ("/V0/tts", True),
        ("/v0/tts/../evi", True),
        ("/", False),
    ],
)
def test_a_strategy_serves_its_paths_alone(path: str, served: bool) -> None:
    """In any reading of the path: what the provider may fold into its paths is its own."""
    one = strategy("/v0/tts/**")
    assert one.serves("POST", path, websocket=False) is served
    assert one.serves("DELETE", path, websocket=False) is served
    assert one.serves("GET", path, websocket=True) is served
    assert one.scope == "/v0/tts/**"


def test_without_paths_a_strategy_serves_all() -> None:
    """The usual case: one key for everything."""
    assert strategy().serves("DELETE", "/anything/%2F", websocket=False)
    assert strategy().scope == EVERY_PATH


def test_neither_strategies_nor_tokens_print_what_they_hold() -> None:
    """T37: neither repr nor str prints a credential."""
    one = IssuedToken(b"CANARY-dummy", 60)
    assert "CANARY" not in f"{one!r}{one}"
    assert one != IssuedToken(b"CANARY-dummy", 60)
    assert strategy().name == "key"
    assert "dummy" not in f"{strategy()!r} {strategy()} {strategy().credential!r}"


def test_a_credential_is_complete_or_not_at_all() -> None:
    """One that cannot be injected cannot be created."""
    with pytest.raises(TypeError, match="abstract"):
        Credential()  # type: ignore[abstract]
