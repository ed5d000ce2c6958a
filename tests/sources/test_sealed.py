from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import pytest

from proxy.envelopes import Place, place_of
from proxy.sealing import PublicKey, SealingKey
from proxy.sources.base import Unusable
from proxy.sources.keys import VARIABLE, write_key
from proxy.sources.sealed import read_sealed

from ..running import answering, client, keyrelay, raw_provider, read_head, static_route

VALUE = b"dummy-sealed-key"
PLACE = Place("acme", "https://api.acme.dev:443")


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
        sealed = str(public.seal(VALUE, place_of("acme", provider.url), "key"))
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
    """Whoever changes the upstream gets an answer that says so, and no connection."""
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
    with pytest.raises(Unusable, match="only secrets of routes"):
        read_sealed(sealed, "key", None)
