"""Rows T49, T53, T55 and T76: a token belongs to its route, no page gets a secret in one, a
secret's last value goes no other way, and token calls share a lookup.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.auth.token import TokenError
from proxy.auth.tokens.client import TokenClient, TokenRequest
from proxy.config import loader
from proxy.errors import ConfigError
from proxy.upstream.tls import tls_context
from tests.security.scene import GET, HOST, Provider, problem, routes, stage, status, token_answer
from tests.support.keyrelay import (
    answering,
    both_loops,
    exchange,
    keyrelay,
    raw_provider,
    static_route,
    until,
)
from tests.support.reloading import changing, keyed_provider, put

CLAIM = "dummy-claim-secret-6d"
VEND = b"POST /-/token/minted HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n"


def signed(**more: Any) -> dict[str, Any]:
    """Settings of a route whose token is a JWT that is signed here."""
    token = {"type": "jwt", "algorithm": "HS256", "key": "{signing}", **more}
    return {
        "vend": True,
        "secrets": {"signing": "env:DUMMY_SIGNING", "hidden": "env:DUMMY_CLAIM"},
        "auth": [{"token": token, "header": "Authorization", "value": "Bearer {token}"}],
    }


DISCLOSING = [
    {"claims": {"iss": "{hidden}"}},
    {"claims": {"a": [{"b": "x{hidden}y"}]}},
    {"claims": {}, "key_id": "{hidden}"},
]


@pytest.fixture
def signing(secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_SIGNING", "dummy-signing-key-" * 2)
    monkeypatch.setenv("DUMMY_CLAIM", CLAIM)


@both_loops
@pytest.mark.parametrize("more", DISCLOSING)
async def test_t53_no_token_with_a_secret_is_issued(signing: None, more: dict[str, Any]) -> None:
    """The token serves requests of the route; pages do not get it."""
    async with stage(fetched=signed(**more)) as one:
        assert status(await one.ask(GET.replace(b"/api", b"/minted"))) == 200
        got = await one.ask(VEND)
        assert (status(got), problem(got)) == (403, "nothing-to-vend")


@pytest.mark.parametrize("more", DISCLOSING)
def test_t53_a_file_that_would_issue_it_is_refused(more: dict[str, Any]) -> None:
    """At the start already, with the name of the secret."""
    document = {"routes": {"minted": {"upstream": "https://api.acme.test", **signed(**more)}}}
    with pytest.raises(ConfigError, match="claims contain hidden"):
        loader.load_text(json.dumps(document), "routes.yaml")


@both_loops
async def test_t53_other_tokens_are_issued(signing: None) -> None:
    """A JWT whose claims are written in the file."""
    async with stage(fetched=signed(claims={"iss": "dummy"})) as one:
        got = await one.ask(VEND)
    assert status(got) == 200
    assert b'"token": "ey' in got


@both_loops
async def test_t49_equal_routes_have_a_token_each(secrets: None) -> None:
    """Whose settings differ in the name only; workers ask for tokens by the same digest."""
    provider = Provider()
    async with (
        raw_provider(provider.serve) as place,
        raw_provider(answering(token_answer())) as endpoint,
    ):
        minted = routes(place.url, endpoint.url)["minted"]
        async with keyrelay({"one": minted, "two": minted}) as running:
            for name in (b"one", b"two"):
                request = GET.replace(b"/api", b"/" + name) + b"\r\n"
                assert status(await exchange(running.port, request)) == 200
        assert endpoint.connections == 2


async def test_t55_no_last_value_for_another_way(tmp_path: Path) -> None:
    """A secret that has become unreadable is not kept for a route that a reload sends through
    another egress proxy: the reload is refused, and the old configuration stays.
    """
    key = tmp_path / "key"
    put(key, "dummy-first-key")
    async with keyed_provider("dummy-first-key") as provider:
        route = static_route(provider.url, secrets={"key": f"file:{key}"})
        async with changing(tmp_path, {"api": route}) as running:
            key.unlink()
            assert (await running.change(api={**route, "methods": ["GET"]})).findings == ()
            proxied = {**route, "egress_proxy": "http://proxy.example:3128"}
            (finding,) = (await running.change(api=proxied)).findings
            assert "not ready" in finding
            assert running.app._services.in_force["api"].settings.egress_proxy is None


@both_loops
async def test_t76_token_calls_share_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of an endpoint whose name servers do not respond end at their limits of time and leave
    one lookup behind; its error reaches the call that waits then, and the next call begins another.
    """
    lookups: list[str] = []
    gate = asyncio.Event()

    async def getaddrinfo(host: str, port: int, **hints: object) -> list[object]:
        lookups.append(host)
        await gate.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "dummy")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    client = TokenClient(tls_context(), time.time, allow_private=False, call_seconds=0.2)
    request = TokenRequest("POST", "https://token.example/token", {}, b"")
    for _ in range(5):
        with pytest.raises(TokenError, match="in time"):
            await client(request)
    assert lookups == ["token.example"]
    gate.set()
    await until(lambda: client._resolver._lookups["token.example", 443]._lookup is None)
    with pytest.raises(TokenError, match="cannot be resolved"):
        await client(request)
    assert len(lookups) == 2
