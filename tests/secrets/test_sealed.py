from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from proxy.secrets.envelope import SealBinding, seal_binding
from proxy.secrets.keyfile import VARIABLE, write_key
from proxy.secrets.sealed import read_sealed
from proxy.secrets.sealing import PublicKey, SealingKey
from proxy.secrets.source import SourceError
from tests.support.keyrelay import (
    answering,
    client,
    exchange,
    keyrelay,
    raw_provider,
    read_head,
    static_route,
)
from tests.support.reloading import changing, token_route

VALUE = b"dummy-sealed-key"
PLACE = SealBinding("acme", "https://api.acme.dev:443")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASK = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublicKey:
    """The public part of a key that keyrelay has."""
    key = SealingKey.generate(datetime.date(2026, 11, 21))
    write_key(tmp_path / "keys", key)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "keys"))
    return key.public


async def test_a_sealed_key_reaches_its_provider(public: PublicKey) -> None:
    """It opens for the route and the host that it was sealed for, in a running keyrelay."""
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async with raw_provider(serve) as provider:
        sealed = str(public.seal(VALUE, seal_binding("acme", provider.url), "key"))
        route = static_route(f"{provider.url}/v2", secrets={"key": sealed})
        async with (
            keyrelay({"acme": route}) as running,
            client() as session,
            session.get(f"{running.url}/acme/x") as got,
        ):
            assert got.status == 204
    (head,) = heads
    assert b"X-Api-Key: " + VALUE + b"\r\n" in head


async def test_nothing_leaves_for_another_host(public: PublicKey) -> None:
    """After a change of the upstream there is an error with the reason, and no connection."""
    async with raw_provider(answering(b"")) as provider:
        sealed = str(public.seal(VALUE, PLACE, "key"))
        route = static_route(provider.url, secrets={"key": sealed})
        async with (
            keyrelay({"acme": route}) as running,
            client() as session,
            session.get(f"{running.url}/acme/x") as got,
        ):
            assert got.status == 503
            said = await got.text()
        assert "sealed for another host" in said
        assert provider.connections == 0


def test_only_secrets_of_routes_can_be_sealed(public: PublicKey) -> None:
    """What belongs to no route has no origin for which it would open."""
    sealed = str(public.seal(VALUE, PLACE, "key"))
    assert read_sealed(sealed, "key", PLACE) == VALUE
    with pytest.raises(SourceError, match="only secrets of routes"):
        read_sealed(sealed, "key", None)


async def test_another_upstream_does_not_get_the_last_good_value(
    tmp_path: Path, public: PublicKey
) -> None:
    """A reload that only points the route elsewhere is not taken, as the value does not open for
    that; the old provider goes on being served.
    """
    async with raw_provider(answering(OK)) as provider, raw_provider(answering(OK)) as other:
        sealed = str(public.seal(VALUE, seal_binding("api", provider.url), "key"))
        route = static_route(provider.url, secrets={"key": sealed})
        async with changing(tmp_path, {"api": route}) as proxy:
            report = await proxy.change(api={**route, "upstream": other.url})
            assert any("for another host" in one for one in report.findings)
            assert (await exchange(proxy.port, ASK)).startswith(b"HTTP/1.1 200")
        assert (provider.connections, other.connections) == (1, 0)


async def test_a_token_endpoint_elsewhere_gets_no_value(public: PublicKey) -> None:
    """An editor of the routes file without the key does not learn a value by naming a place
    to which it is sent for a token.
    """
    async with raw_provider(answering(OK)) as provider, raw_provider(answering(OK)) as other:
        sealed = str(public.seal(VALUE, seal_binding("api", provider.url), "client_secret"))
        route = token_route(provider.url, sealed)
        route["secrets"]["client_id"] = "builtin:demo"
        route["auth"][0]["token"]["url"] = f"{other.url}/token"
        async with keyrelay({"api": route}) as proxy:
            answer = await exchange(proxy.port, ASK)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"no value can be sealed" in answer
        assert (provider.connections, other.connections) == (0, 0)
