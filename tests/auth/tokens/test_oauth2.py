"""Tests of auth/oauth2.py: what a server gets to see, and refresh tokens that change."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest

from proxy.auth.token_cache import FetchedToken, TokenError
from proxy.auth.tokens.client import TokenClient, TokenRequest
from proxy.auth.tokens.oauth2 import RequestTokenSource, oauth2_call, oauth2_fields
from proxy.auth.tokens.refresh_token import RefreshTokenSource
from proxy.upstream.dialer import tls_context
from tests.support.keyrelay import RawProvider, raw_provider, read_head, until

ROOT = Path(__file__).resolve().parents[3]
FIRST = b"CANARY-first"


def form_of(call: TokenRequest) -> dict[str, list[str]]:
    assert call.body is not None
    return parse_qs(call.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)


# -- the call -------------------------------------------------------------------------------------


def test_basic_carries_id_and_secret_form_encoded() -> None:
    """RFC 6749 section 2.3.1: an odd secret arrives as it is, and is not in the body as well."""
    client, secret = "id with:colon", "a:b%+é &="
    call = oauth2_call(
        "https://token.example/",
        {"grant_type": b"client_credentials", "scope": "é b".encode(), "audience": None},
        client_auth="basic",
        client_id=client.encode(),
        client_secret=secret.encode(),
    )
    scheme, _, coded = call.headers["Authorization"].partition(" ")
    first, _, second = base64.b64decode(coded, validate=True).decode("ascii").partition(":")
    assert scheme == "Basic"
    assert (unquote_plus(first), unquote_plus(second)) == (client, secret)
    assert form_of(call) == {"grant_type": ["client_credentials"], "scope": ["é b"]}
    assert call.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert (call.method, call.url) == ("POST", "https://token.example/")


def test_the_form_carries_id_and_secret() -> None:
    """For servers that want it so; then there is no Authorization."""
    call = oauth2_call(
        "https://token.example/",
        {"grant_type": b"client_credentials"},
        client_auth="form",
        client_id=b"dummy-id",
        client_secret="a&b=é%".encode(),
    )
    assert form_of(call) == {
        "grant_type": ["client_credentials"],
        "client_id": ["dummy-id"],
        "client_secret": ["a&b=é%"],
    }
    assert "Authorization" not in call.headers


@pytest.mark.parametrize("client_auth", ["basic", "form"])
def test_public_clients_have_an_id_only(client_auth: str) -> None:
    """Without a secret there is nothing to authorize with (RFC 6749 section 3.2.1)."""
    call = oauth2_call(
        "https://token.example/",
        {"grant_type": b"refresh_token"},
        client_auth=client_auth,
        client_id=b"dummy-id",
        client_secret=None,
    )
    assert form_of(call) == {"grant_type": ["refresh_token"], "client_id": ["dummy-id"]}
    assert "Authorization" not in call.headers


async def test_the_same_call_each_time() -> None:
    """Made anew each time, so that signed ones are never sent twice; its answer is the token."""
    made: list[TokenRequest] = []

    def make() -> TokenRequest:
        made.append(TokenRequest("GET", f"https://x/{len(made)}"))
        return made[-1]

    async def ask(call: TokenRequest) -> tuple[Any, float]:
        assert call is made[-1]
        return {"access_token": call.url[-1], "expires_at": 1_800_000_060}, 1_800_000_000.0

    token_source = RequestTokenSource(ask, make, oauth2_fields(300))
    assert (await token_source.token_source()).value == b"0"
    fetched = await token_source.token_source()
    assert (fetched.value, fetched.lifetime_seconds) == (b"1", 60)


# -- refresh tokens -------------------------------------------------------------------------------


class Family:
    """A server's side of refresh tokens: each good for one use; using one again burns them all."""

    def __init__(self, *, rotating: bool = True) -> None:
        self.rotating = rotating
        self.current = FIRST.decode()
        self.seen: list[str] = []
        self.burned = False
        self.more: dict[str, Any] = {}
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
        """An ``Ask`` without a network in between."""
        status, document = self.answer(form_of(call)["refresh_token"][0])
        await self.open.wait()
        if status != 200:
            raise TokenError("the token endpoint answered 400, invalid_grant")
        return document, 0.0

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
    return oauth2_call(
        "https://token.example/",
        {"grant_type": b"refresh_token", "refresh_token": refresh_token},
        client_auth="form",
        client_id=b"dummy-id",
        client_secret=None,
    )


def refreshing(
    family: Family,
    store: Path | None = None,
    *,
    first: bytes = FIRST,
    make: Callable[[bytes], TokenRequest] = call_for,
) -> RefreshTokenSource:
    return RefreshTokenSource(family.ask, make, oauth2_fields(300), first=first, store=store)


async def values(token_source: RefreshTokenSource, count: int) -> list[bytes]:
    return [(await token_source.token_source()).value for _ in range(count)]


@pytest.mark.parametrize("stored", [False, True])
async def test_the_newest_refresh_token_is_sent(stored: bool, tmp_path: Path) -> None:
    """Each answer may replace it; the old one is never seen again."""
    family = Family()
    token_source = refreshing(family, tmp_path / "store" if stored else None)
    assert await values(token_source, 4) == [b"access-1", b"access-2", b"access-3", b"access-4"]
    assert len(set(family.seen)) == 4


@pytest.mark.parametrize("stored", [False, True])
async def test_a_server_that_keeps_refresh_tokens(stored: bool, tmp_path: Path) -> None:
    """The same one is sent again, and nothing is written down."""
    family = Family(rotating=False)
    token_source = refreshing(family, tmp_path / "store" if stored else None)
    await values(token_source, 3)
    assert family.seen == [FIRST.decode()] * 3
    assert not (tmp_path / "store").exists()


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
    token_source = refreshing(family, tmp_path / "store" if stored else None)
    for _ in range(2):
        with pytest.raises(TokenError, match="not bearer"):
            await token_source.token_source()
    family.more = {}
    assert await values(token_source, 1) == [b"access-3"]
    assert not family.burned


async def test_a_new_process_goes_on_from_the_store(tmp_path: Path) -> None:
    """The configuration still has the first refresh token, which the server refuses by now."""
    family = Family()
    await values(refreshing(family, tmp_path / "store"), 2)
    await values(refreshing(family, tmp_path / "store"), 2)
    assert not family.burned


async def test_signing_in_anew_beats_the_store(tmp_path: Path) -> None:
    """Another refresh token in the configuration makes what is stored out of date."""
    old, new = Family(), Family()
    await values(refreshing(old, tmp_path / "store"), 2)
    new.current = "CANARY-signed-in-anew"
    await values(refreshing(new, tmp_path / "store", first=b"CANARY-signed-in-anew"), 2)
    assert not new.burned


async def test_what_cannot_be_stored_is_not_forgotten(tmp_path: Path) -> None:
    """While the store is full the newest refresh token is kept in memory and stored later."""
    family, directory = Family(), tmp_path / "directory"
    directory.mkdir()
    blocked = directory / "store.new"
    token_source = refreshing(family, directory / "store")
    blocked.mkdir()  # a file cannot be made there
    for _ in range(3):
        with pytest.raises(TokenError, match="cannot be written"):
            await token_source.token_source()
    blocked.rmdir()
    family.rotating = False
    assert await values(token_source, 1) == [b"access-4"]
    assert await values(refreshing(family, directory / "store"), 1) == [b"access-5"]
    assert not family.burned


async def test_cancelling_waits_for_what_has_begun(tmp_path: Path) -> None:
    """A refresh token that is on its way is spent: its successor is stored whoever goes away."""
    family = Family()
    token_source = refreshing(family, tmp_path / "store")
    family.open.clear()
    task = asyncio.ensure_future(token_source.token_source())  # noqa: TID251
    await until(lambda: family.seen)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    family.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await values(refreshing(family, tmp_path / "store"), 1) == [b"access-2"]
    assert not family.burned


async def test_cancelling_a_failing_call_is_quiet(tmp_path: Path) -> None:
    """Nobody is left to hear of the failure, and nobody does."""
    unretrieved: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unretrieved.append(what))
    family = Family()
    family.burned = True
    family.open.clear()
    task = asyncio.ensure_future(refreshing(family, tmp_path / "store").token_source())  # noqa: TID251
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
    token_sources = [refreshing(family, tmp_path / "store") for _ in range(4)]
    results = await asyncio.gather(*(values(token_source, 3) for token_source in token_sources))
    assert len({value for one in results for value in one}) == 12
    assert not family.burned


PROCESS = """
import asyncio, sys
from pathlib import Path
from proxy.auth.tokens.client import Endpoint
from proxy.auth.tokens.refresh_token import RefreshTokenSource, oauth2_call, oauth2_fields
from proxy.upstream.dialer import tls_context

async def main(url, store, count):
    def make(token):
        form = {"grant_type": b"refresh_token", "refresh_token": token}
        return oauth2_call(url, form, client_auth="form", client_id=b"id", client_secret=None)
    ask = Endpoint(tls_context(), lambda: 0.0, allow_private=False)
    mint = RefreshTokenSource(
        ask, make, oauth2_fields(300), first=b"CANARY-first", store=Path(store)
    )
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(count)):
        print((await mint.mint()).value.decode(), flush=True)

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
    assert len({line for stdout, _ in outputs for line in stdout.split()}) == 16
    assert not family.burned
    assert len(family.seen) == len(set(family.seen)) == 16


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
    token_source = refreshing(family, tmp_path / "store")
    fetched: FetchedToken = await token_source.token_source()
    family.burned = True
    with pytest.raises(TokenError) as caught:
        await token_source.token_source()
    assert "CANARY" not in f"{token_source!r}{token_source}{fetched!r}{caught.value!r}{caplog.text}"
    text = (tmp_path / "store").read_text()
    assert FIRST.decode() not in text
    assert hashlib.sha256(FIRST).hexdigest() not in text


async def test_the_whole_way_over_a_connection() -> None:
    """A real call to a server that replaces refresh tokens, without a store."""
    family = Family()
    async with raw_provider(family.serve) as provider:
        token_source = RefreshTokenSource(
            TokenClient(tls_context(), lambda: 0.0, allow_private=False),
            lambda token: TokenRequest(
                "POST",
                provider.url + "/token",
                call_for(token).headers,
                call_for(token).body,
            ),
            oauth2_fields(300),
            first=FIRST,
            store=None,
        )
        assert await values(token_source, 3) == [b"access-1", b"access-2", b"access-3"]
        family.burned = True
        with pytest.raises(TokenError) as caught:
            await token_source.token_source()
    assert caught.value.reason == "the token endpoint answered 400, invalid_grant"
    assert caught.value.pause_seconds == 60
