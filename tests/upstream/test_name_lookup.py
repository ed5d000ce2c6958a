"""Lookups of names: one at a time for all that wait, none for an address."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.upstream.name_lookup import NameLookup


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A literal is returned as it is, without a resolver thread."""

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise AssertionError("an address was looked up")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    (found,) = await NameLookup(host, 443).addresses()
    assert found[4][:2] == (host, 443)


async def test_all_that_wait_share_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lookup serves them all, also if the first of them gives up; the next one is new."""
    release, calls = asyncio.Event(), 0
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        nonlocal calls
        calls += 1
        await release.wait()
        return [address]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    lookup = NameLookup("api.example", 443)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lookup.addresses()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(lookup.addresses()) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
    assert [one.result() for one in waiting] == [[address]] * 3
    assert calls == 1
    await lookup.addresses()
    assert calls == 2


async def test_a_name_that_does_not_resolve() -> None:
    """The error of the resolver reaches each that waits."""
    with pytest.raises(socket.gaierror):
        await NameLookup("api.invalid", 443).addresses()
