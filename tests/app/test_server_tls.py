"""The certificate in force; the listener itself: tests.e2e.test_tls_listener."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from proxy.app.server_tls import ServerTls
from proxy.app.supply import Timeouts
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.secrets.certificates import new_authority
from proxy.secrets.key_pair import KeyPair
from proxy.server.connection_limit import ConnectionLimit
from tests.support.clock import ManualClock


def settings(listen: str) -> Settings:
    return Settings.model_validate({"listen": listen, "routes": {"demo": {"provider": "demo"}}})


def server_tls(pair: KeyPair | None, clock: ManualClock) -> ServerTls:
    def read(_settings: Settings, _now: float) -> KeyPair | None:
        return pair

    notices: list[Any] = []
    return ServerTls(read, ConnectionLimit(9), set(), Timeouts(10, 10), clock, notices.append)


async def test_without_a_tls_listener_there_is_none() -> None:
    """Nothing is read, and nothing is due."""
    tls = server_tls(KeyPair(b"", b""), ManualClock())
    assert await tls.prepare(settings("127.0.0.1:8080")) is None
    tls.put_in_force(None)
    assert tls.pair is None
    assert not tls.due
    tls.stop()


async def test_a_certificate_that_does_not_fit_is_refused() -> None:
    """With the setting's name, and without anything of the key."""
    tls = server_tls(KeyPair(b"no certificate", b"dummy-private-key"), ManualClock())
    with pytest.raises(KeyrelayError, match="tls: ") as caught:
        await tls.prepare(settings("https://127.0.0.1:8443"))
    assert "dummy" not in str(caught.value)


async def test_the_renewal_is_due_and_can_be_postponed() -> None:
    """By the wall clock, as certificates are; after a failure it is due again later."""
    clock = ManualClock()
    issued = new_authority("dummy", ["localhost"], time.time(), 2).issue(
        ["localhost"], time.time(), 1
    )
    pair = replace(issued, renew_at=clock.wall() + 100)
    tls = server_tls(pair, clock)
    tls.put_in_force(await tls.prepare(settings("https://127.0.0.1:8443")))
    assert tls.pair is pair
    due = [tls.due]
    await clock.advance(100)
    due.append(tls.due)
    tls.postpone()
    due.append(tls.due)
    await clock.advance(3600)
    due.append(tls.due)
    assert due == [False, True, False, True]
