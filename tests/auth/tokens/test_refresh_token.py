"""Tests of auth/keeping.py: a file that holds a secret, and the lock beside it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from proxy.auth.token_cache import TokenError
from proxy.auth.tokens.refresh_token import RefreshTokenStore

FIRST = b"CANARY-first"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The first one until another was written; written again and again, nothing else is left."""
    store = RefreshTokenStore(tmp_path / "store", FIRST)
    assert store.read() == FIRST
    for newest in (b"CANARY-2", b'CANARY "3" \\'):
        store.write(newest)
        assert store.read() == newest
        assert RefreshTokenStore(tmp_path / "store", FIRST).read() == newest
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_another_first_one_makes_it_out_of_date(tmp_path: Path) -> None:
    """What descends from another sign-in is not used."""
    RefreshTokenStore(tmp_path / "store", FIRST).write(b"CANARY-2")
    assert RefreshTokenStore(tmp_path / "store", b"CANARY-other").read() == b"CANARY-other"


async def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask, and whatever lay in its place before."""
    for name in ("store", "store.new"):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0o666)
    old = os.umask(0)
    try:
        store = RefreshTokenStore(tmp_path / "store", FIRST)
        store.write(b"CANARY-2")
        os.close(await store.lock())
    finally:
        os.umask(old)
    assert mode(tmp_path / "store") == 0o600
    assert mode(tmp_path / "store.lock") == 0o600


async def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in the place of the new file or of the lock leads nowhere."""
    aim = tmp_path / "aim"
    aim.write_text("precious")
    (tmp_path / "store.new").symlink_to(aim)
    (tmp_path / "store.lock").symlink_to(tmp_path / "made")
    store = RefreshTokenStore(tmp_path / "store", FIRST)
    store.write(b"CANARY-2")
    assert aim.read_text() == "precious"
    with pytest.raises(TokenError, match="cannot be used"):
        await store.lock()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"CANARY",
        b'{"began"',
        b"\xff\xfe",
        b'{"began": BEGAN}',
        b'{"began": BEGAN, "refresh_token": 17}',
        '{"began": BEGAN, "refresh_token": "é"}'.encode(),
    ],
)
def test_a_store_that_is_broken(text: bytes, tmp_path: Path) -> None:
    """It is said, and not taken for an empty one: the first refresh token may be spent."""
    store = RefreshTokenStore(tmp_path / "store", FIRST)
    store.write(b"CANARY-2")
    began = json.dumps(json.loads((tmp_path / "store").read_text())["began"])
    (tmp_path / "store").write_bytes(text.replace(b"BEGAN", began.encode()))
    with pytest.raises(TokenError) as caught:
        store.read()
    assert "CANARY" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [b"[]", b"null", b'"CANARY"', b"{}"])
def test_a_store_of_something_else(text: bytes, tmp_path: Path) -> None:
    """A file that says nothing of where it began is out of date."""
    (tmp_path / "store").write_bytes(text)
    assert RefreshTokenStore(tmp_path / "store", FIRST).read() == FIRST


async def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """A directory that is missing, or in the way."""
    store = RefreshTokenStore(tmp_path / "missing" / "store", FIRST)
    with pytest.raises(TokenError, match="No such file"):
        await store.lock()
    with pytest.raises(TokenError, match="No such file"):
        store.write(b"CANARY-2")
    (tmp_path / "store").mkdir()
    with pytest.raises(TokenError, match="IsADirectoryError"):
        RefreshTokenStore(tmp_path / "store", FIRST).read()


async def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    """Until its descriptor is closed; who waits may go away and leaves nothing open."""
    store, other = (RefreshTokenStore(tmp_path / "store", FIRST) for _ in range(2))
    held = await store.lock()
    before = open_files()
    waiting = asyncio.ensure_future(other.lock())  # noqa: TID251
    await asyncio.sleep(0.03)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert open_files() == before
    os.close(held)
    async with asyncio.timeout(1):
        os.close(await other.lock())


async def test_a_lock_that_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stuck process is waited for half a minute, then it is said."""
    store = RefreshTokenStore(tmp_path / "store", FIRST)
    held = await store.lock()
    before = open_files()
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    waiting = asyncio.ensure_future(store.lock())  # noqa: TID251
    await asyncio.sleep(0.03)
    ahead = 31.0
    with pytest.raises(TokenError, match="another process holds the lock"):
        await waiting
    assert open_files() == before
    os.close(held)
