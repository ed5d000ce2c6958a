"""Tests of diagnostics/sharing.py: what doctor finds about shared tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config.loader import load_text
from proxy.diagnostics.doctor import run_checks
from proxy.diagnostics.route_check import Result
from tests.support.redis_server import needs_redis, redis_process
from tests.support.rotating_service import VARIABLES, rotating_service, routes

pytestmark = needs_redis


async def found(origin: str, **tokens: Any) -> list[Result]:
    results: list[Result] = []
    document = {"tokens": tokens, "routes": routes(origin)}
    await run_checks(load_text(json.dumps(document), "routes.yaml"), results.append)
    return results


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


async def test_a_server_that_can_be_used(tmp_path: Path) -> None:
    """It is tried; tokens are obtained through it, so that a second check takes them over, and a
    rotating refresh token is redeemed once.
    """
    async with rotating_service() as service, redis_process(tmp_path) as redis:
        for _ in range(2):
            results = await found(service.origin, share=redis.url)
            assert (results[0].what, results[0].mark) == ("tokens.share", "ok")
            assert results[0].finding.startswith(f"{redis.url} in ")
            tokens = [one for one in results if one.what == "token"]
            assert [one.mark for one in tokens] == ["ok", "ok"]
        assert service.calls == {"plain": 1, "rotating": 1}


async def test_a_server_that_cannot_be_used(tmp_path: Path) -> None:
    """It is a failure with the reason, and no refresh token is redeemed."""
    async with rotating_service() as service, redis_process(tmp_path) as redis:
        await redis.kill()
        results = await found(service.origin, share=redis.url)
        assert results[0].mark == "fail"
        assert results[0].finding == f"{redis.url}: Redis cannot be reached"
        marks = {one.route: one.mark for one in results if one.what == "token"}
        assert marks == {"plain": "ok", "rotating": "fail"}
        assert service.redeemed == []


async def test_a_secret_that_is_missing() -> None:
    """It is a failure with the remedy, and no refresh token is redeemed."""
    async with rotating_service() as service:
        results = await found(service.origin, share="redis://127.0.0.1:1", password="env:DUMMY_NO")
        assert (results[0].mark, results[0].finding) == ("fail", "set DUMMY_NO")
        marks = {one.route: one.mark for one in results if one.what == "token"}
        assert marks == {"plain": "ok", "rotating": "skip"}
        assert service.redeemed == []
