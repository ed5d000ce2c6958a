"""Tests of app/token_sharing.py: what ``tokens:`` needs at the start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.app.supply import Supply
from proxy.app.token_sharing import open_shared_tokens
from proxy.config.loader import load_text
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError, SecretUnavailable
from tests.support.command import ROOT
from tests.support.provider_tokens import auth_context
from tests.support.redis_server import needs_redis, redis_process

pytestmark = needs_redis


def settings(**tokens: Any) -> Settings:
    document = {"routes": {"demo": {"provider": "demo"}}}
    return load_text(json.dumps(document | ({"tokens": tokens} if tokens else {})), "routes.yaml")


async def test_nothing_without_the_setting() -> None:
    """No server is opened; a process of its own has the function by default, a worker none."""
    async with auth_context() as context:
        assert await open_shared_tokens(settings(), context) is None
    assert Supply().shared_tokens is open_shared_tokens


def test_nothing_is_loaded_without_the_setting() -> None:
    """A start without ``tokens:`` loads neither the client of Redis nor what seals."""
    program = (
        "import sys, proxy.app.app, proxy.diagnostics.doctor, proxy.process.supervisor; "
        "sys.exit(bool({'redis', 'proxy.auth.shared.entry'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0


async def test_a_secret_that_is_missing() -> None:
    """It ends the start with the remedy."""
    async with auth_context() as context:
        for name in ("password", "key"):
            tokens = {"share": "redis://127.0.0.1", name: "env:DUMMY_THAT_IS_NOT_SET"}
            with pytest.raises(SecretUnavailable, match="DUMMY_THAT_IS_NOT_SET"):
                await open_shared_tokens(settings(**tokens), context)


async def test_a_key_that_could_be_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, without its value."""
    monkeypatch.setenv("DUMMY_KEY", "CANARY")
    tokens = {"share": "redis://127.0.0.1", "key": "env:DUMMY_KEY"}
    async with auth_context() as context:
        with pytest.raises(KeyrelayError, match="fewer than 16 bytes") as raised:
            await open_shared_tokens(settings(**tokens), context)
    assert "CANARY" not in str(raised.value)


async def test_the_password_is_the_secret_s(tmp_path: Path) -> None:
    """It is read from its source, and again from there once the server refuses it."""
    file = tmp_path / "password"
    file.write_text("dummy-old-password")
    file.chmod(0o600)
    tokens = {"password": f"file:{file}"}
    password = "dummy-new-password"
    async with (
        auth_context() as context,
        redis_process(tmp_path, "--requirepass", password, password=password) as redis,
    ):
        shared = await open_shared_tokens(settings(share=redis.url, **tokens), context)
        assert shared is not None
        state = await shared.check()
        assert (state.usable, state.reason) == (False, "Redis refuses the password")
        file.write_text(password)
        assert (await shared.check()).usable
        assert "dummy" not in f"{shared.status()}"
        await shared.close()
