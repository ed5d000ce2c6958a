"""Tests of auth/tokens/refresh_token.py: a token that is spent is spent once, and never lost."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from proxy.auth.token import FetchedToken, TokenError
from proxy.auth.token_store import FileTokenStore, StoredToken, StoredTokens
from proxy.auth.tokens.client import TokenClient, TokenEndpointFailure, TokenRequest
from proxy.auth.tokens.oauth2 import EXPIRY, ClientAuthentication, token_request
from proxy.auth.tokens.refresh_token import RefreshTokenSource
from proxy.auth.tokens.response import TokenFields
from proxy.upstream.tls import tls_context
from tests.support.keyrelay import RawProvider, raw_provider, read_head, until

ROOT = Path(__file__).resolve().parents[3]
FIRST = b"CANARY-first"
FIELDS = TokenFields("access_token", EXPIRY, 300)


def form_of(request: TokenRequest) -> dict[str, list[str]]:
    assert request.body is not None
    return parse_qs(request.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)


class Family:
    """A server's side of refresh tokens: each good for one use; using one again burns them all."""

    def __init__(self, *, rotating: bool = True) -> None:
        self.rotating = rotating
        self.current = FIRST.decode()
        self.seen: list[str] = []
        self.burned = False
        self.more: dict[str, Any] = {}
        self.now = 0.0
        self.open = asyncio.Event()
        self.open.set()

    def answer(self, refresh_token: str) -> tuple[int, dict[str, Any]]:
        """Status and document for a refresh token."""
        self.seen.append(refresh_token)
        self.burned = self.burned or refresh_token != self.current
        if self.burned:
            return 400, {"error": "invalid_grant"}
        document: dict[str, Any] = {"access_token": f"access-{len(self.seen)}", "expires_in": 60}
        if self.rotating:
            self.current = f"CANARY-refresh-{len(self.seen)}"
            document["refresh_token"] = self.current
        return 200, {**document, **self.more}

    async def ask(self, call: TokenRequest) -> tuple[Any, float]:
        """A ``SendTokenRequest`` without a network in between."""
        status, document = self.answer(form_of(call)["refresh_token"][0])
        await self.open.wait()
        if status != 200:
            raise TokenEndpointFailure(
                400, "invalid_grant", "the token endpoint answered 400, invalid_grant"
            )
        return document, self.now

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A ``Serve`` for a raw provider."""
        head = await read_head(reader)
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        form = parse_qs((await reader.readexactly(length)).decode("ascii"))
        status, document = self.answer(form["refresh_token"][0])
        body = json.dumps(document).encode()
        writer.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


def call_for(refresh_token: bytes) -> TokenRequest:
    form = (("grant_type", b"refresh_token"), ("refresh_token", refresh_token))
    return token_request("https://token.example/", form, ClientAuthentication("form", b"dummy-id"))


def refreshing(
    family: Family,
    store: Path | None = None,
    *,
    first: bytes = FIRST,
    identity: str = "settings",
    warn: Callable[[str], object] = lambda _line: None,
) -> RefreshTokenSource:
    return RefreshTokenSource(
        family.ask,
        call_for,
        FIELDS,
        first=first,
        store=None if store is None else FileTokenStore(store, first),
        identity=identity,
        wall=lambda: family.now,
        warn=warn,
    )


async def values(mint: RefreshTokenSource, count: int) -> list[bytes]:
    return [(await mint.fetch()).value for _ in range(count)]


@pytest.mark.parametrize("stored", [False, True])
async def test_the_newest_refresh_token_is_sent(stored: bool, tmp_path: Path) -> None:
    """Each answer may replace it; the old one is never seen again."""
    family = Family()
    mint = refreshing(family, tmp_path / "store" if stored else None)
    assert await values(mint, 4) == [b"access-1", b"access-2", b"access-3", b"access-4"]
    assert len(set(family.seen)) == 4


@pytest.mark.parametrize("stored", [False, True])
async def test_a_server_that_keeps_refresh_tokens(stored: bool, tmp_path: Path) -> None:
    """The same one is sent again."""
    family = Family(rotating=False)
    mint = refreshing(family, tmp_path / "store" if stored else None)
    await values(mint, 3)
    assert family.seen == [FIRST.decode()] * 3


@pytest.mark.parametrize("newer", ["", None, 17, "é", "a\nb", ["x"]])
async def test_what_is_no_refresh_token_replaces_none(newer: Any, tmp_path: Path) -> None:
    """An answer with nonsense in its place leaves the one there is."""
    family = Family(rotating=False)
    family.more = {"refresh_token": newer}
    await values(refreshing(family, tmp_path / "store"), 2)
    assert family.seen == [FIRST.decode()] * 2


@pytest.mark.parametrize("stored", [False, True])
async def test_a_bad_access_token_does_not_lose_the_refresh_token(
    stored: bool, tmp_path: Path
) -> None:
    """The server has replaced it all the same."""
    family = Family()
    family.more = {"token_type": "mac"}
    mint = refreshing(family, tmp_path / "store" if stored else None)
    for _ in range(2):
        with pytest.raises(TokenError, match="needs a proof"):
            await mint.fetch()
    family.more = {}
    assert await values(mint, 1) == [b"access-3"]
    assert not family.burned


async def test_a_new_process_goes_on_from_the_store(tmp_path: Path) -> None:
    """The configuration still has the first refresh token, which the server refuses by now."""
    family = Family()
    await values(refreshing(family, tmp_path / "store"), 2)
    assert await values(refreshing(family, tmp_path / "store"), 2) == [b"access-2", b"access-3"]
    assert not family.burned


async def test_signing_in_anew_beats_the_store(tmp_path: Path) -> None:
    """Another refresh token in the configuration makes what is stored out of date."""
    old, new = Family(), Family()
    await values(refreshing(old, tmp_path / "store"), 2)
    new.current = "CANARY-signed-in-anew"
    await values(refreshing(new, tmp_path / "store", first=b"CANARY-signed-in-anew"), 2)
    assert not new.burned


async def test_nothing_is_spent_that_could_not_be_stored(tmp_path: Path) -> None:
    """Room for the successor is made before the server is asked."""
    family, directory = Family(), tmp_path / "directory"
    directory.mkdir()
    blocked = directory / "store.new"
    mint = refreshing(family, directory / "store")
    blocked.mkdir()  # a file cannot be made there
    for _ in range(3):
        with pytest.raises(TokenError, match="cannot be written"):
            await mint.fetch()
    assert not family.seen
    blocked.rmdir()
    assert await values(mint, 1) == [b"access-1"]
    assert await values(refreshing(family, directory / "store"), 1) == [b"access-1"]
    assert not family.burned


async def test_cancelling_waits_for_what_has_begun(tmp_path: Path) -> None:
    """A refresh token that was sent is spent: its successor is stored despite a cancellation."""
    family = Family()
    mint = refreshing(family, tmp_path / "store")
    family.open.clear()
    task = asyncio.ensure_future(mint.fetch())  # noqa: TID251
    await until(lambda: family.seen)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    family.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await values(refreshing(family, tmp_path / "store"), 2) == [b"access-1", b"access-2"]
    assert not family.burned


async def test_cancelling_a_failing_call_is_quiet(tmp_path: Path) -> None:
    """The failure has no waiter left, and is not reported."""
    unretrieved: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unretrieved.append(what))
    family = Family()
    family.burned = True
    family.open.clear()
    task = asyncio.ensure_future(refreshing(family, tmp_path / "store").fetch())  # noqa: TID251
    await until(lambda: family.seen)
    task.cancel()
    await asyncio.sleep(0)
    family.open.set()
    await asyncio.wait({task})
    assert task.cancelled()
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert not unretrieved


async def test_mints_of_one_process_take_turns(tmp_path: Path) -> None:
    """After a reload the old route and the new one may both be at it."""
    family = Family()
    mints = [refreshing(family, tmp_path / "store") for _ in range(4)]
    results = await asyncio.gather(*(values(mint, 3) for mint in mints))
    for one in results:
        assert len(set(one)) == 3  # never the one it had
    assert not family.burned
    assert len(family.seen) < 12


PROCESS = """
import asyncio, sys
from pathlib import Path
from proxy.auth.token_store import FileTokenStore
from proxy.auth.tokens.client import TokenClient
from proxy.auth.tokens.oauth2 import EXPIRY, ClientAuthentication, token_request
from proxy.auth.tokens.refresh_token import RefreshTokenSource
from proxy.auth.tokens.response import TokenFields
from proxy.upstream.tls import tls_context

async def main(url, store, count):
    def make(token):
        form = (("grant_type", b"refresh_token"), ("refresh_token", token))
        return token_request(url, form, ClientAuthentication("form", b"id"))
    ask = TokenClient(tls_context(), lambda: 0.0, allow_private=False)
    first = b"CANARY-first"
    mint = RefreshTokenSource(
        ask,
        make,
        TokenFields("access_token", EXPIRY, 300),
        first=first,
        store=FileTokenStore(Path(store), first),
        identity="settings",
        wall=lambda: 0.0,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(count)):
        fetched = await mint.fetch()
        fetched.refused(True)
        print(fetched.value.decode(), fetched.counts[0], flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def process(provider: RawProvider, store: Path, count: int) -> asyncio.subprocess.Process:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PROCESS, provider.url, str(store), str(count)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    assert (await started.stdout.readline()) == b"ready\n"
    return started


async def test_processes_that_share_a_store_take_turns(tmp_path: Path) -> None:
    """Two at once, against a server that burns the family when a refresh token comes again."""
    family = Family()
    async with raw_provider(family.serve) as provider:
        both = await asyncio.gather(*(process(provider, tmp_path / "store", 8) for _ in range(2)))
        async with asyncio.timeout(30):
            outputs = await asyncio.gather(*(one.communicate(b"go\n") for one in both))
    assert [stderr for _, stderr in outputs] == [b"", b""]
    lines = [line.split() for stdout, _ in outputs for line in stdout.splitlines()]
    assert len(lines) == 16
    # Each call's token is given out by the process that made the call, and perhaps by the other.
    assert len({token for token, _ in lines}) == sum(int(calls) for _, calls in lines)
    assert not family.burned
    assert len(family.seen) == len(set(family.seen)) == len({token for token, _ in lines})


async def test_a_process_that_is_killed_frees_the_lock(tmp_path: Path) -> None:
    """Whatever it was doing, the next one is not kept waiting."""
    family, asked = Family(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await reader.read()

    async with raw_provider(silent) as provider:
        one = await process(provider, tmp_path / "store", 1)
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        async with asyncio.timeout(30):
            await asked.wait()
        one.kill()
        await one.communicate()
    async with asyncio.timeout(5):
        assert await values(refreshing(family, tmp_path / "store"), 1) == [b"access-1"]


async def test_refresh_tokens_are_never_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither they nor what is made of them; the store has the newest and only that."""
    caplog.set_level("DEBUG")
    family = Family()
    mint = refreshing(family, tmp_path / "store")
    minted: FetchedToken = await mint.fetch()
    family.burned = True
    minted.refused(True)
    with pytest.raises(TokenError) as caught:
        await mint.fetch()
    assert "CANARY" not in f"{mint!r}{mint}{minted!r}{caught.value!r}{caplog.text}"
    text = (tmp_path / "store").read_text()
    assert FIRST.decode() not in text
    assert hashlib.sha256(FIRST).hexdigest() not in text


async def test_the_whole_way_over_a_connection() -> None:
    """A real call to a server that replaces refresh tokens, without a store."""
    family = Family()
    async with raw_provider(family.serve) as provider:
        mint = RefreshTokenSource(
            TokenClient(tls_context(), lambda: 0.0, allow_private=False),
            lambda token: TokenRequest(
                "POST",
                provider.url + "/token",
                call_for(token).headers,
                call_for(token).body,
            ),
            FIELDS,
            first=FIRST,
            store=None,
            identity="settings",
            wall=lambda: 0.0,
        )
        assert await values(mint, 3) == [b"access-1", b"access-2", b"access-3"]
        family.burned = True
        with pytest.raises(TokenError) as caught:
            await mint.fetch()
    assert caught.value.reason == "the token endpoint answered 400, invalid_grant"
    assert caught.value.pause_seconds == 60


# -- what a store is for --------------------------------------------------------------------------


async def test_a_second_process_takes_the_access_token(tmp_path: Path) -> None:
    """One call serves both, for the rest of the token's life."""
    family = Family()
    first, second = (refreshing(family, tmp_path / "store") for _ in range(2))
    fetched = await first.fetch()
    family.now = 20.0
    taken = await second.fetch()
    assert (taken.value, taken.lifetime_seconds) == (fetched.value, 40.0)
    assert taken.counts == (0, 0)
    assert len(family.seen) == 1


async def test_a_token_that_was_refused_is_not_taken(tmp_path: Path) -> None:
    """The next holder of the lock takes what another process stored, unless it is the same."""
    family = Family()
    first, second = (refreshing(family, tmp_path / "store") for _ in range(2))
    (await first.fetch()).refused(True)
    (await second.fetch()).refused(True)
    assert (await first.fetch()).value == b"access-2"
    assert (await second.fetch()).value == b"access-2"
    assert len(family.seen) == 2


async def test_a_token_that_has_ended_is_not_taken(tmp_path: Path) -> None:
    """By the end that the store has, on the wall clock."""
    family = Family()
    await refreshing(family, tmp_path / "store").fetch()
    family.now = 59.5
    assert (await refreshing(family, tmp_path / "store").fetch()).value == b"access-2"


async def test_a_token_that_is_due_for_renewal_is_not_taken(tmp_path: Path) -> None:
    """In the last fifth of its life; before that with the life that it had when it was issued."""
    family = Family()
    await refreshing(family, tmp_path / "store").fetch()
    family.now = 47.0
    taken = await refreshing(family, tmp_path / "store").fetch()
    assert (taken.value, taken.lifetime_seconds, taken.whole_seconds) == (b"access-1", 13, 60)
    family.now = 49.0
    assert (await refreshing(family, tmp_path / "store").fetch()).value == b"access-2"


async def test_settings_that_differ_share_the_refresh_token_alone(tmp_path: Path) -> None:
    """A token of another scope is another token; the first one stays for its own settings."""
    family = Family()
    reading = refreshing(family, tmp_path / "store", identity="read")
    writing = refreshing(family, tmp_path / "store", identity="write")
    assert (await reading.fetch()).value == b"access-1"
    assert (await writing.fetch()).value == b"access-2"
    again = refreshing(family, tmp_path / "store", identity="read")
    assert (await again.fetch()).value == b"access-1"
    assert not family.burned


async def test_a_replaced_token_is_known_without_a_request(tmp_path: Path) -> None:
    """For requests that cannot be sent again: whether another process has replaced the token."""
    family = Family()
    first, second = (refreshing(family, tmp_path / "store") for _ in range(2))
    mine = await first.fetch()
    assert mine.superseded is not None
    assert not await mine.superseded()
    theirs = await second.fetch()
    assert not await mine.superseded()
    theirs.refused(True)
    family.open.clear()
    renewing = asyncio.ensure_future(second.fetch())  # noqa: TID251
    await until(lambda: len(family.seen) == 2)
    asking = asyncio.ensure_future(mine.superseded())  # noqa: TID251
    await asyncio.sleep(0.05)
    assert not asking.done()  # a rotation is under way: its outcome is waited for
    family.open.set()
    await renewing
    assert await asking


async def test_a_store_of_another_program_version(tmp_path: Path) -> None:
    """A file without access tokens is read for its refresh token."""
    family = Family()
    store = FileTokenStore(tmp_path / "store", FIRST)
    async with store.lock():
        await store.reserve()
        await store.write(StoredTokens(b"CANARY-kept"))
    document = json.loads((tmp_path / "store").read_text())
    del document["access_tokens"]
    (tmp_path / "store").write_text(json.dumps(document))
    family.current = "CANARY-kept"
    assert (await refreshing(family, tmp_path / "store").fetch()).value == b"access-1"


async def test_a_successor_without_a_store_is_reported_once() -> None:
    """It will be lost at the next start: loudly, with what to write, and never its value."""
    family = Family()
    lines: list[str] = []
    await values(refreshing(family, warn=lines.append), 3)
    (line,) = lines
    assert "write store: /var/lib/keyrelay/NAME.json" in line
    assert "CANARY" not in line


@pytest.mark.parametrize("stored", [False, True])
async def test_no_report_where_nothing_is_lost(stored: bool, tmp_path: Path) -> None:
    """With a store, or at a server that keeps refresh tokens, there is nothing to report."""
    family = Family(rotating=stored)
    lines: list[str] = []
    store = tmp_path / "store" if stored else None
    await values(refreshing(family, store, warn=lines.append), 3)
    assert not lines


@pytest.mark.parametrize(
    ("status", "code", "spent"),
    [
        (400, "invalid_grant", True),
        (400, "invalid_request", True),  # what a server says whose refresh tokens are JWTs
        (400, "", True),
        (401, "invalid_client", False),
        (400, "invalid_scope", False),
        (503, "", False),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
async def test_what_is_advised_when_a_refresh_token_is_refused(
    status: int, code: str, spent: bool, stored: bool, tmp_path: Path
) -> None:
    """A spent one does not become good by waiting: sign in anew, and set store: first."""

    class Refusing(Family):
        async def ask(self, call: TokenRequest) -> tuple[Any, float]:
            raise TokenEndpointFailure(status, code, "refused", probes=True)

    source = refreshing(Refusing(), tmp_path / "store" if stored else None)
    with pytest.raises(TokenError) as caught:
        await source.fetch()
    assert caught.value.lasting is spent
    assert ("sign in anew" in caught.value.advice) is spent
    assert ("set store:" in caught.value.advice) is (spent and not stored)
    assert caught.value.probes is not spent


def test_stored_tokens_are_never_printed() -> None:
    """They hold secrets."""
    stored = StoredTokens(b"CANARY", {"x": StoredToken(b"CANARY", 1.0)})
    assert "CANARY" not in f"{stored!r}{stored}"
