"""The Redis server: runs scripts there, and knows whether the server can be used.

While it cannot, every call fails at once, so that no request waits for it; a check in the
background finds out when it can be used again. One line reports each change. Nothing of what the
server writes is repeated but the first word of an error.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proxy.auth.shared.trouble import PUBLIC, Trouble, explain
from proxy.clock import Clock
from proxy.config.token_sharing import RedisAddress
from proxy.errors import KeyrelayError, SecretUnavailable
from proxy.secrets import resolver
from proxy.secrets.secret import Secret
from proxy.upstream.address_policy import dialled_address

PASSWORD = "tokens.password"  # noqa: S105  its name
# Most that a connection, and the response to a script, may take (seconds).
_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 1.0
# Connections at the same time. Scripts take a fraction of a millisecond.
_CONNECTIONS = 4
# Pauses between two checks (seconds): while the server can be used, and, on average, while it
# cannot: a refresh token's successor may wait for it.
_CHECK_SECONDS = 10.0
_RETRY_SECONDS = 1.0
# What the scripts do: read the time and write. A server that refuses either is of no use.
_CHECK = "redis.call('TIME') return redis.call('SET', KEYS[1], '1', 'PX', 60000)"


class ServerUnavailable(KeyrelayError):
    """The server cannot be used. The reason can be shown to clients."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of the server.

    usable         None before the first call
    since_seconds  how long it has been so
    failures       calls that failed because the server could not be used
    """

    usable: bool | None
    since_seconds: float
    reason: str
    advice: str
    failures: int


def may_send_plain(address: str | None) -> bool:
    """Whether a password may be sent without TLS: to loopback and private addresses alone."""
    return address is not None and not dialled_address(address).is_global


class RedisServer:
    """Runs scripts on a Redis or Valkey server.

    address     the server
    password    its password
    source      reads the password again when it is refused; blocking, raises SecretUnavailable
    tls         the context for ``rediss``, which verifies
    check_key   name of a key for checks
    changed     receives the trouble when the server cannot be used any more, with None and the
                seconds that it lasted when it can be again
    timeouts    seconds for a connection, and for a response

    Raises KeyrelayError if the extra is not installed.
    """

    def __init__(
        self,
        address: RedisAddress,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        check_key: str,
        password: Secret | None = None,
        source: Callable[[], Secret] | None = None,
        tls: ssl.SSLContext | None = None,
        changed: Callable[[Trouble | None, float], object] = lambda _trouble, _seconds: None,
        timeouts: tuple[float, float] = (_CONNECT_SECONDS, _ANSWER_SECONDS),
    ) -> None:
        try:
            self._library: Any = importlib.import_module("redis.asyncio.connection")
            self._errors: Any = importlib.import_module("redis.exceptions")
        except ImportError:
            raise KeyrelayError(
                "tokens: needs the package redis: pip install --editable '.[redis]'"
            ) from None
        self.address = address
        self._clock = clock
        self._spawn = spawn
        self._check_key = check_key
        self._password = password
        self._source = source
        self._tls = tls
        self._changed = changed
        self._timeouts = timeouts
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._idle: list[Any] = []
        self._calls: set[asyncio.Task[Any]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self._trouble: Trouble | None = None
        self._usable: bool | None = None
        self._since = clock.monotonic()
        self._failures = 0
        self._back = asyncio.Event()
        self._wake = asyncio.Event()

    # -- calls ---------------------------------------------------------------------------------

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        """Run a script in Lua and return its reply. Raises ServerUnavailable.

        The script has to bear being run twice: a connection may break after the first time.
        Cancelling leaves it to run to its end, as a connection is not used again otherwise.
        """
        if self._trouble is not None or self._closed:
            self._failures += 1
            raise ServerUnavailable("" if self._trouble is None else self._trouble.reason)
        return await self._call(script, keys, arguments)

    async def available(self, seconds: float) -> bool:
        """Wait until the server can be used, at most ``seconds``. Whether it can."""
        if self._trouble is None:
            return not self._closed
        try:
            async with asyncio.timeout(seconds):
                await self._back.wait()
        except TimeoutError:
            return False
        return not self._closed

    async def check(self) -> ServerState:
        """Try now whether the server can be used."""
        with suppress(ServerUnavailable):  # the state has the reason
            await self._call(_CHECK, [self._check_key], check=True)
        return self.state()

    async def _call(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Any] = (),
        *,
        check: bool = False,
    ) -> Any:
        command = ("EVAL", script, len(keys), *keys, *arguments)
        call = asyncio.get_running_loop().create_task(self._settled(command, check=check))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def _settled(self, command: Sequence[Any], *, check: bool) -> Any:
        """Send a command, and note whether the server can be used."""
        async with self._slots:
            if self._trouble is not None and not check:
                # It came while this call waited.
                self._failures += 1
                raise ServerUnavailable(self._trouble.reason)
            try:
                reply = await self._twice(command)
            except Exception as error:  # noqa: BLE001  whatever the library raises: go on without it
                trouble = explain(error, self._errors, password=self._password is not None)
                self._failures += 1
                self._note_trouble(trouble)
                raise ServerUnavailable(trouble.reason) from None
            self._note_usable()
            return reply

    async def _twice(self, command: Sequence[Any]) -> Any:
        """Send a command; once more if a kept connection broke, or the password is another now."""
        reused = bool(self._idle)
        try:
            return await self._once(command)
        except self._errors.AuthenticationError:
            if not await self._read_password():
                raise
        except self._errors.ConnectionError:
            if not reused:
                raise
        await self._drop_idle()
        return await self._once(command)

    async def _once(self, command: Sequence[Any]) -> Any:
        connection = await self._connection()
        done = False
        try:
            await connection.send_command(*command)
            reply = await connection.read_response()
            done = True
            return reply
        finally:
            # Also after an error of the server: after a failover it is a replica now.
            if done and not self._closed:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)

    async def _connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            closed = True
            with suppress(self._errors.RedisError):
                closed = await connection.can_read()  # true at the end of the stream, too
            if not closed:
                return connection
            await connection.disconnect(nowait=True)
        connection = self._new_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _new_connection(self) -> Any:
        address = self.address
        common = {
            "db": address.database,
            "username": address.username or None,
            "password": None if self._password is None else self._password.reveal(),
            "socket_connect_timeout": self._timeouts[0],
            "socket_timeout": self._timeouts[1],
            "driver_info": None,
            # RESP2, which every server has, and no notifications.
            "protocol": 2,
        }
        if address.scheme == "unix":
            return self._library.UnixDomainSocketConnection(path=address.place, **common)
        place = {"host": address.place, "port": address.port}
        if address.scheme == "redis":
            return self._library.Connection(**place, redis_connect_func=self._check_plain, **common)
        connection = self._library.SSLConnection(**place, **common)
        # The library's own would write session keys to SSLKEYLOGFILE.
        connection.ssl_context.context = self._tls
        return connection

    async def _check_plain(self, connection: Any) -> None:
        """Before a password is sent without TLS: the address must be a private one."""
        if not may_send_plain(connection.getpeername()):
            raise self._errors.ConnectionError(PUBLIC)
        await connection.on_connect()

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(self._errors.RedisError):
                await connection.disconnect()

    async def _read_password(self) -> bool:
        """Read the password again. Whether it is another one now."""
        if self._source is None:
            return False
        try:
            found = await resolver.in_thread(self._source)
        except SecretUnavailable:
            return False
        if self._password is not None and found.digest() == self._password.digest():
            return False
        self._password = found
        return True

    # -- state ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Check regularly whether the server can be used."""
        if self._watch is None and not self._closed:
            self._watch = self._spawn(self._watching())

    async def _watching(self) -> None:
        while True:
            await self.check()
            self._wake.clear()
            if self._trouble is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await self._wake.wait()
            if self._trouble is not None:
                await asyncio.sleep(_RETRY_SECONDS * (0.5 + random.random()))  # noqa: S311

    def state(self) -> ServerState:
        trouble = self._trouble or Trouble("")
        since = self._clock.monotonic() - self._since
        return ServerState(self._usable, since, trouble.reason, trouble.advice, self._failures)

    @property
    def trouble(self) -> Trouble | None:
        """Why the server cannot be used; None if it can, or was not tried."""
        return self._trouble

    def _note_usable(self) -> None:
        if self._usable:
            return
        now = self._clock.monotonic()
        lasted, self._since, self._usable = now - self._since, now, True
        if self._trouble is not None:
            self._trouble = None
            self._back.set()
            self._changed(None, lasted)

    def _note_trouble(self, trouble: Trouble) -> None:
        if self._closed:
            return
        now = self._clock.monotonic()
        if self._usable is not False:
            self._since, self._usable = now, False
            self._back.clear()
            self._wake.set()
        known, self._trouble = self._trouble, trouble
        if known is None or known.reason != trouble.reason:
            self._changed(trouble, now - self._since)

    async def close(self) -> None:
        """Wait for the calls that run, which is bounded by their timeouts, and disconnect."""
        self._closed = True
        self._back.set()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._drop_idle()
