"""A route in force: what tells two of it apart, and the limits that it keeps."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from proxy.auth.credential import Credential
from proxy.auth.injection import Injection, Placements
from proxy.auth.strategy import Strategy
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.errors import Refusal
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.routing.route_service import (
    _DESTINATION_SETTINGS,
    _NOT_DESTINATION_SETTINGS,
    RouteService,
    limiter_for,
    limits_for,
)
from proxy.secrets.secret import Secret
from proxy.upstream.dialer import Dialer
from proxy.upstream.pool import Pool
from proxy.upstream.tls import tls_context
from tests.support.keyrelay import static_route

UPSTREAM = "https://api.example.com"


def settings(**more: Any) -> RouteSettings:
    document = {"routes": {"api": static_route(UPSTREAM, **more)}}
    return Settings.model_validate(document).routes["api"]


def found(
    value: str = "dummy-key", reference: str = "env:DUMMY_KEY", **lacking: str
) -> ResolvedSecrets:
    return ResolvedSecrets({"key": (Secret("key", value.encode(), reference),)}, lacking)


async def route_service(last: RouteService | None = None, **more: Any) -> RouteService:
    """A service of the route ``api``, behind ``last`` if there was one."""
    own, secrets = settings(**more), found()
    route = compile_route("api", own, secrets)
    dialer = Dialer(route.origin, connect_seconds=1, allow_private=False, tls=tls_context())
    loop = asyncio.get_running_loop()
    pool = Pool(dialer, loop, idle_seconds=50, silence_seconds=1)
    limiter = limiter_for("api", own, last)
    return RouteService(route, own, secrets, pool, limiter, limits_for(own, limiter))


def post(length: int | None = None) -> Request:
    fields = [] if length is None else [("Content-Length", str(length))]
    return Request.of("POST", "/api/x", fields)


async def test_it_fits_what_it_was_made_of() -> None:
    """The same settings and the same values from the same places; anything else is another one."""
    one = await route_service()
    assert one.matches(settings(), found())
    assert not one.matches(settings(methods=["GET"]), found())
    assert not one.matches(settings(idle_seconds=1), found())
    assert not one.matches(settings(), found("dummy-other-key"))
    assert not one.matches(settings(), found(reference="env:DUMMY_OTHER"))
    assert not one.matches(settings(), ResolvedSecrets({}, {"key": "set DUMMY_KEY"}))
    assert not one.matches(settings(), found(other="set DUMMY_OTHER"))
    two = ResolvedSecrets(
        {"key": (*found().secrets["key"], *found("dummy-old").secrets["key"])}, {}
    )
    assert not one.matches(settings(), two)


def test_each_setting_is_a_destination_or_is_not() -> None:
    """A setting that is new counts as a destination until it is listed; each listed one exists."""
    names = set(RouteSettings.model_fields)
    assert names >= _NOT_DESTINATION_SETTINGS
    assert set(_DESTINATION_SETTINGS) == names - _NOT_DESTINATION_SETTINGS
    assert set(_DESTINATION_SETTINGS) >= {
        "upstream", "auth", "strategy", "allow_private", "allow_plaintext", "vend", "egress_proxy",
        "ca_file",
    }  # fmt: skip


async def test_a_body_within_its_bound() -> None:
    """What is announced counts, and what has come of a body without a length."""
    one = await route_service(max_body_bytes=5)
    for length, arrived in ((None, 0), (None, 5), (5, 0), (0, 0)):
        one.enter(post(length), arrived)
    for length, arrived in ((6, 0), (None, 6), (6, 2)):
        with pytest.raises(Refusal) as caught:
            one.enter(post(length), arrived)
        assert caught.value.status == 413


async def test_a_refused_body_does_not_count() -> None:
    """A request that is too large uses up nothing of what the route may do."""
    one = await route_service(max_body_bytes=5, concurrency=1, rate="1/hour")
    with pytest.raises(Refusal):
        one.enter(post(6), 0)
    one.enter(post(5), 0)
    with pytest.raises(Refusal) as caught:
        one.enter(post(5), 0)
    assert caught.value.status == 503
    assert one.limits.leave is not None
    one.limits.leave()
    with pytest.raises(Refusal) as caught:
        one.enter(post(5), 0)
    assert caught.value.status == 429


async def test_without_bounds_nothing_is_counted() -> None:
    """Any number of requests with any body."""
    one = await route_service()
    assert one.limiter is None
    one.enter(post(1 << 40), 0)
    assert one.limits.leave is None


async def test_limits_include_redaction_of_bodies() -> None:
    """``mask_bodies`` reaches each exchange."""
    assert (await route_service(mask_bodies=True)).limits.mask_bodies
    assert not (await route_service()).limits.mask_bodies


async def test_an_allowance_goes_on_where_its_bounds_are_the_same() -> None:
    """Whatever else is different. With other limits it begins anew; without any there is none."""
    first = await route_service(concurrency=1, rate="5/hour")
    assert first.limiter is not None
    same = await route_service(first, concurrency=1, rate="5/hour", methods=["GET"])
    assert same.limiter is first.limiter
    for more in ({"concurrency": 2, "rate": "5/hour"}, {"concurrency": 1}, {"rate": "5/hour"}):
        other = await route_service(first, **more)
        assert other.limiter is not None
        assert other.limiter is not first.limiter
    assert (await route_service(first)).limiter is None
    assert (await route_service(await route_service(), concurrency=1)).limiter is not None


async def test_it_has_the_time_of_its_creation() -> None:
    """On the clock by which exchanges say when they began."""
    before = time.perf_counter()
    assert before <= (await route_service()).created <= time.perf_counter()


class Closable(Credential):
    """Counts calls of ``close``."""

    closed = 0

    def ready(self, *, websocket: bool) -> Injection:
        return Injection()

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        return Injection()

    def close(self) -> None:
        self.closed += 1


async def test_retiring_is_not_closing() -> None:
    """What is under way may still need the credential; only ``close`` forgets it."""
    one, credentials = await route_service(), (Closable(), Closable())
    strategies = tuple(
        Strategy(name, None, Placements(None, None), credential)
        for name, credential in zip("ab", credentials, strict=True)
    )
    one = replace(one, route=replace(one.route, strategies=strategies))
    one.retire()
    assert [credential.closed for credential in credentials] == [0, 0]
    one.close()
    assert [credential.closed for credential in credentials] == [1, 1]
