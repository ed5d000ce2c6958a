"""What a strategy does that says nothing else."""

from __future__ import annotations

import pytest

from proxy.auth.injection import Injection
from proxy.auth.strategy import IssuedToken, Strategy
from proxy.http.path_patterns import PatternSet

INJECTION = Injection(headers=b"X-Api-Key: CANARY-dummy\r\n")


class Least(Strategy):
    """Only what has to be said, for HTTP alone."""

    def carries(self, *, websocket: bool) -> bool:
        return not websocket

    def ready(self, *, websocket: bool) -> Injection | None:
        return INJECTION

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        return INJECTION


def test_a_credential_is_not_renewable_by_default() -> None:
    """So no answer of a provider, whatever it says, makes a request go out twice."""
    one = Least("least", None)
    assert not one.renewable
    for status in (200, 400, 401, 403, 407, 500):
        assert not one.refused(INJECTION, status)


async def test_a_key_is_never_handed_out() -> None:
    """Whoever asks a strategy without tokens has made a mistake, and gets nothing."""
    with pytest.raises(NotImplementedError, match="never handed out") as caught:
        await Least("least", None).vend()
    assert "CANARY" not in str(caught.value)


async def test_there_is_nothing_to_start_or_to_end() -> None:
    """Starting, settling and closing any number of times changes nothing; there is no state."""
    one = Least("least", None)
    for _ in range(2):
        one.start()
        await one.wait_ready()
        one.close()
    assert one.ready(websocket=False) is INJECTION
    assert one.describe() == ""


@pytest.mark.parametrize("paths", [None, PatternSet(["/**"]), PatternSet(["/v0/*"])])
def test_a_strategy_serves_what_itcarries(paths: PatternSet | None) -> None:
    """No path makes up for a placement that is missing."""
    one = Least("least", paths)
    assert one.serves("GET", "/v0/x", websocket=False)
    assert not one.serves("GET", "/v0/x", websocket=True)


def test_a_strategy_serves_its_paths() -> None:
    """None stands for all of them; the method makes no difference."""
    assert Least("least", None).serves("POST", "/a/b", websocket=False)
    one = Least("least", PatternSet(["/v0/*"]))
    assert one.serves("DELETE", "/v0/x", websocket=False)
    assert not one.serves("DELETE", "/v1/x", websocket=False)


def test_neither_strategies_nor_tokens_print_what_they_hold() -> None:
    """In no form that a log or a traceback would take."""
    one = IssuedToken(b"CANARY-dummy", 60)
    assert "CANARY" not in f"{one!r}{one}"
    assert one != IssuedToken(b"CANARY-dummy", 60)
    assert "CANARY" not in f"{Least('least', None)!r}"


def test_a_strategy_is_complete_or_not_at_all() -> None:
    """One without a placement cannot even be made."""
    with pytest.raises(TypeError, match="abstract"):
        Strategy("none", None)  # type: ignore[abstract]
