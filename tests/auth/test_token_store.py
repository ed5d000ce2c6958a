"""Tests of auth/token_store.py: a file that holds secrets, and the lock beside it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from proxy.auth.token import TokenError
from proxy.auth.token_store import FileTokenStore, StoredToken, StoredTokens

FIRST = b"CANARY-first"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def write(store: FileTokenStore, refresh_token: bytes = b"CANARY-2") -> None:
    await store.reserve()
    await store.write(StoredTokens(refresh_token))


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Nothing until something was written; written again and again, nothing else is left."""
    store = FileTokenStore(tmp_path / "store", FIRST)
    assert await store.read() == StoredTokens()
    for newest in (b"CANARY-2", b'CANARY "3" \\'):
        kept = StoredTokens(newest, {"one": StoredToken(b"CANARY-access", 17.5, 60.0)})
        await store.reserve()
        await store.write(kept)
        assert await store.read() == kept
        assert await FileTokenStore(tmp_path / "store", FIRST).read() == kept
    assert [path.name for path in sorted(tmp_path.glob("*"))] == ["store"]  # noqa: ASYNC240


async def test_another_first_one_makes_it_out_of_date(tmp_path: Path) -> None:
    """What descends from another sign-in is not used."""
    await write(FileTokenStore(tmp_path / "store", FIRST))
    assert await FileTokenStore(tmp_path / "store", b"CANARY-other").read() == StoredTokens()


async def test_room_is_made_before_it_is_needed(tmp_path: Path) -> None:
    """What was reserved is as large as what may be written, and is used for it."""
    store = FileTokenStore(tmp_path / "store", FIRST)
    await store.reserve()
    assert (tmp_path / "store.new").stat().st_size == 64 * 1024
    await store.write(StoredTokens(b"CANARY-2"))
    assert (tmp_path / "store").stat().st_size < 1024


async def test_a_change_is_known_without_the_lock(tmp_path: Path) -> None:
    """By another process, or one that is about to make it; not one of its own."""
    store, other = (FileTokenStore(tmp_path / "store", FIRST) for _ in range(2))
    assert not await store.changed()
    await write(store)
    assert not await store.changed()
    assert await other.changed()
    await other.read()
    assert not await other.changed()
    async with other.lock():
        assert await store.changed()
    assert not await store.changed()
    await write(other, b"CANARY-3")
    assert await store.changed()


async def test_a_store_that_cannot_be_looked_at_has_not_changed(tmp_path: Path) -> None:
    """The next use of it reports why."""
    assert not await FileTokenStore(tmp_path / "missing" / "store", FIRST).changed()


async def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask, and whatever lay in its place before."""
    for name in ("store", "store.new"):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0o666)
    old = os.umask(0)
    try:
        store = FileTokenStore(tmp_path / "store", FIRST)
        async with store.lock():
            await write(store)
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
    store = FileTokenStore(tmp_path / "store", FIRST)
    await write(store)
    assert aim.read_text() == "precious"
    with pytest.raises(TokenError, match="cannot be used"):
        async with store.lock():
            pass
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
async def test_a_store_that_is_broken(text: bytes, tmp_path: Path) -> None:
    """It is said, and not taken for an empty one: the first refresh token may be spent."""
    store = FileTokenStore(tmp_path / "store", FIRST)
    await write(store)
    began = json.dumps(json.loads((tmp_path / "store").read_text())["began"])
    (tmp_path / "store").write_bytes(text.replace(b"BEGAN", began.encode()))
    with pytest.raises(TokenError) as caught:
        await store.read()
    assert "CANARY" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [b"[]", b"null", b'"CANARY"', b"{}"])
async def test_a_store_of_something_else(text: bytes, tmp_path: Path) -> None:
    """A file that says nothing of where it began is out of date."""
    (tmp_path / "store").write_bytes(text)
    assert await FileTokenStore(tmp_path / "store", FIRST).read() == StoredTokens()


@pytest.mark.parametrize(
    "odd",
    [
        b'"x"',
        b"[]",
        b'{"one": "CANARY"}',
        b'{"one": {"token": 17, "expires_at": 1}}',
        b'{"one": {"token": "t", "expires_at": "soon"}}',
    ],
)
async def test_access_tokens_that_cannot_be_read_are_left_out(odd: bytes, tmp_path: Path) -> None:
    """The refresh token counts; another access token can be had for it."""
    store = FileTokenStore(tmp_path / "store", FIRST)
    await write(store)
    content = (
        (tmp_path / "store")
        .read_bytes()
        .replace(b'"access_tokens": {}', b'"access_tokens": ' + odd)
    )
    (tmp_path / "store").write_bytes(content)
    assert await store.read() == StoredTokens(b"CANARY-2")


async def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """A directory that is missing, or in the way."""
    store = FileTokenStore(tmp_path / "missing" / "store", FIRST)
    with pytest.raises(TokenError, match="No such file"):
        async with store.lock():
            pass
    with pytest.raises(TokenError, match="No such file"):
        await store.reserve()
    (tmp_path / "store").mkdir()
    with pytest.raises(TokenError, match="IsADirectoryError"):
        await FileTokenStore(tmp_path / "store", FIRST).read()


async def take(store: FileTokenStore) -> None:
    async with store.lock():
        pass


async def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    """Until its block ends; a cancelled waiter leaves nothing open."""
    store, other = (FileTokenStore(tmp_path / "store", FIRST) for _ in range(2))
    async with store.lock():
        before = open_files()
        waiting = asyncio.ensure_future(take(other))  # noqa: TID251
        await asyncio.sleep(0.03)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert open_files() == before
    async with asyncio.timeout(1):
        await take(other)


async def test_a_lock_that_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stuck process is waited for as long as its call may take and a while, not for ever."""
    store = FileTokenStore(tmp_path / "store", FIRST, call_seconds=30)
    async with store.lock():
        before = open_files()
        loop = asyncio.get_running_loop()
        real, ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + ahead)
        waiting = asyncio.ensure_future(take(store))  # noqa: TID251
        await asyncio.sleep(0.03)
        ahead = 49.0
        await asyncio.sleep(0.03)
        assert not waiting.done()
        ahead = 51.0
        with pytest.raises(TokenError, match="another process holds the lock"):
            await waiting
        assert open_files() == before
