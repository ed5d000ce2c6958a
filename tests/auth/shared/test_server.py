"""Tests of auth/shared/server.py: whether the Redis server can be used, and what is reported."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.auth.shared.server import RedisServer, ServerUnavailable, may_send_plain
from proxy.auth.shared.trouble import Trouble
from proxy.clock import SystemClock
from proxy.config.token_sharing import parse_redis_url
from proxy.errors import KeyrelayError
from proxy.secrets.secret import Secret
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.redis_server import needs_redis, redis_process

pytestmark = needs_redis
PASSWORD = "dummy-redis-password"
ECHO = "return ARGV[1]"


class Client:
    """A ``RedisServer`` with what it reported."""

    def __init__(self) -> None:
        self.reported: list[Trouble | None] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.servers: list[RedisServer] = []

    def to(self, url: str, *, answer_seconds: float = 10.0, **more: Any) -> RedisServer:
        server = RedisServer(
            parse_redis_url(url),
            SystemClock(),
            self._spawn,
            check_key="keyrelay:check",
            changed=lambda trouble, _seconds: self.reported.append(trouble),
            timeouts=(10.0, answer_seconds),
            **more,
        )
        self.servers.append(server)
        return server

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def refused(self, server: RedisServer) -> Trouble:
        """The one trouble that a call has."""
        with pytest.raises(ServerUnavailable):
            await server.run(ECHO, [], ["dummy"])
        (trouble,) = self.reported
        assert trouble is not None
        return trouble


@pytest.fixture
async def connect() -> AsyncIterator[Client]:
    made = Client()
    yield made
    for server in made.servers:
        await server.close()


def secret(value: str) -> Secret:
    return Secret("tokens.password", value.encode(), "env:DUMMY")


async def test_scripts_run_by_tcp_and_unix_socket(connect: Client, tmp_path: Path) -> None:
    """Both addresses reach it; bytes stay bytes; the database is the one that is named."""
    async with redis_process(tmp_path) as redis:
        for url in (redis.url, f"unix:{redis.path}", f"redis://localhost:{redis.port}/3"):
            server = connect.to(url)
            assert await server.run(ECHO, [], [b"\x00\xff\r\n:"]) == b"\x00\xff\r\n:"
            assert (await server.check()).usable
        assert await redis.command("GET", "keyrelay:check") == b"1"
        await redis.command("SELECT", "3")
    assert connect.reported == []


async def test_many_calls_use_few_connections(connect: Client, tmp_path: Path) -> None:
    """A hundred calls at once are all made, over at most four connections."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url)
        replies = await asyncio.gather(*(server.run(ECHO, [], [one]) for one in range(100)))
        assert replies == [b"%d" % one for one in range(100)]
        clients = (await redis.command("CLIENT", "LIST")).count(b" addr=127.0.0.1")
        assert 1 <= clients <= 4


async def test_it_ends_and_comes_back(connect: Client, tmp_path: Path) -> None:
    """One report for each change; while it is gone calls fail at once, without being tried."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url)
        server.start()
        await server.run(ECHO, [], ["dummy"])
        await redis.kill()
        for _ in range(50):
            with pytest.raises(ServerUnavailable, match="cannot be reached"):
                await server.run(ECHO, [], ["dummy"])
        assert server.state().usable is False
        assert server.state().failures >= 50
        await redis.start()
        assert await server.available(60)
        assert await server.run(ECHO, [], ["dummy"]) == b"dummy"
        assert connect.reported == [Trouble("Redis cannot be reached"), None]


async def test_a_restart_between_two_calls_is_not_noticed(connect: Client, tmp_path: Path) -> None:
    """A kept connection that the server has closed costs no error."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url)
        await server.run(ECHO, [], ["dummy"])
        await redis.kill()
        await redis.start()
        assert await server.run(ECHO, [], ["dummy"]) == b"dummy"
    assert connect.reported == []


async def test_a_server_that_stands_still(connect: Client, tmp_path: Path) -> None:
    """It costs the time limit once; then it is in use again by itself."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url, answer_seconds=0.3)
        server.start()
        await server.run(ECHO, [], ["dummy"])
        redis.freeze()
        with pytest.raises(ServerUnavailable, match="does not respond in time"):
            await server.run(ECHO, [], ["dummy"])
        redis.thaw()
        assert await server.available(60)
        assert await server.run(ECHO, [], ["dummy"]) == b"dummy"


async def test_a_wrong_password(connect: Client, tmp_path: Path) -> None:
    """It is reported with the setting, and without its value; so is a missing one."""
    async with redis_process(tmp_path, "--requirepass", PASSWORD, password=PASSWORD) as redis:
        server = connect.to(redis.url, password=secret("dummy-wrong"))
        trouble = await connect.refused(server)
        assert trouble.reason == "Redis refuses the password"
        assert "tokens.password" in trouble.advice
        assert "dummy" not in f"{trouble}{server.state()}{server!r}{vars(server)}"
        connect.reported.clear()
        assert (await connect.refused(connect.to(redis.url))).reason == "Redis requires a password"
        right = connect.to(redis.url, password=secret(PASSWORD))
        assert await right.run(ECHO, [], ["dummy"]) == b"dummy"


async def test_a_password_that_changes(connect: Client, tmp_path: Path) -> None:
    """One that was replaced at its source is read again when the old one is refused."""
    async with redis_process(tmp_path, "--requirepass", PASSWORD, password=PASSWORD) as redis:
        source = [PASSWORD]
        server = connect.to(redis.url, password=secret(PASSWORD), source=lambda: secret(source[0]))
        await server.run(ECHO, [], ["dummy"])
        await redis.command("CONFIG", "SET", "requirepass", "dummy-new-password")
        redis.password = source[0] = "dummy-new-password"
        await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await server.run(ECHO, [], ["dummy"]) == b"dummy"
    assert connect.reported == []


async def test_a_user_with_few_rights(connect: Client, tmp_path: Path) -> None:
    """A user of the server's list can do what is documented; one that cannot is reported."""
    async with redis_process(tmp_path) as redis:
        rights = ("~keyrelay:*", "+eval", "+get", "+set", "+del", "+pttl", "+pexpire", "+time")
        await redis.command("ACL", "SETUSER", "relay", "on", f">{PASSWORD}", *rights, "+exists")
        url = f"redis://relay@127.0.0.1:{redis.port}/0"
        server = connect.to(url, password=secret(PASSWORD))
        assert (await server.check()).usable
        await redis.command("ACL", "SETUSER", "relay", "-eval")
        assert "denies the user a command" in (await connect.refused(server)).reason


async def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(KeyrelayError, match=r"pip install --editable '\.\[redis\]'"):
        RedisServer(
            parse_redis_url("redis://127.0.0.1"),
            SystemClock(),
            asyncio.get_running_loop().create_task,
            check_key="keyrelay:check",
        )


def test_plain_connections_stay_private() -> None:
    """Without TLS nothing is sent to a public address, in whatever form it is written."""
    for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"):
        assert may_send_plain(address)
    for address in ("8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert not may_send_plain(address)
    assert not may_send_plain(None)


async def test_tls_is_verified(connect: Client, authority: Authority, tmp_path: Path) -> None:
    """A certificate of another authority, or for another name, is refused; the right one serves."""
    authority.server("127.0.0.1")
    (pem,) = tmp_path.glob("server-*.pem")  # noqa: ASYNC240
    async with redis_process(
        tmp_path,
        *("--tls-cert-file", str(pem), "--tls-key-file", str(pem)),
        *("--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "no"),
        tls=True,
    ) as redis:
        url = f"rediss://127.0.0.1:{redis.port}/0"
        trusting = tls_context(authority.file.read_text())
        server = connect.to(url, tls=trusting)
        assert await server.run(ECHO, [], ["dummy"]) == b"dummy"
        trouble = await connect.refused(connect.to(url, tls=tls_context()))
        assert trouble.reason == "the certificate of Redis is not valid"
        connect.reported.clear()
        other = connect.to(f"rediss://localhost:{redis.port}/0", tls=trusting)
        assert (await connect.refused(other)).reason == "the certificate of Redis is not valid"


async def test_a_replica_is_of_no_use(connect: Client, tmp_path: Path) -> None:
    """A server that refuses to be written to is reported as such, also by the check."""
    async with redis_process(tmp_path, "--replicaof", "127.0.0.1 1") as redis:
        state = await connect.to(redis.url).check()
        assert state.reason == "Redis is a read-only replica"


async def test_a_full_server_is_of_no_use(connect: Client, tmp_path: Path) -> None:
    """A server without memory for a value is reported as such."""
    async with redis_process(tmp_path, "--maxmemory", "1") as redis:
        server = connect.to(redis.url)
        state = await server.check()
        assert state.reason == "Redis has no memory left"


async def test_no_call_after_the_end(connect: Client, tmp_path: Path) -> None:
    """Closing waits for a call that runs, and refuses others; nothing is reported then."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url)
        server.start()
        call = asyncio.get_running_loop().create_task(server.run(ECHO, [], ["dummy"]))
        await asyncio.sleep(0)
        await server.close()
        assert await call == b"dummy"
        with pytest.raises(ServerUnavailable):
            await server.run(ECHO, [], ["dummy"])
        assert all(task.done() for task in connect.tasks)
    assert connect.reported == []


async def test_a_cancelled_call_harms_no_other(connect: Client, tmp_path: Path) -> None:
    """No reply reaches the wrong caller after a call was cancelled at any moment."""
    async with redis_process(tmp_path) as redis:
        server = connect.to(redis.url)
        for turn in range(50):
            call = asyncio.get_running_loop().create_task(server.run(ECHO, [], ["cancelled"]))
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            call.cancel()
            assert await server.run(ECHO, [], [turn]) == b"%d" % turn
            await asyncio.gather(call, return_exceptions=True)
