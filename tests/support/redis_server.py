"""A real redis-server on loopback, which tests stop, freeze, flush and start again."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.keyrelay import until

PROGRAM = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(
    PROGRAM is None or find_spec("redis") is None,
    reason="needs redis-server and the package redis: apt-get install redis-server, make test",
)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class RedisProcess:
    """One server, by TCP and by a unix socket; without persistence.

    arguments  further ones, such as ``--requirepass``
    password   for this test's own commands
    tls        whether the port is for TLS; ``arguments`` have the certificate
    """

    def __init__(
        self, folder: Path, *arguments: str, password: str = "", tls: bool = False
    ) -> None:
        self._folder = folder
        self._arguments = arguments
        self.password = password
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()
        self._tls = tls
        self.path = folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        assert PROGRAM is not None
        port = ("--port", "0", "--tls-port") if self._tls else ("--port",)
        self._process = await asyncio.create_subprocess_exec(
            *(
                PROGRAM,
                *port,
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--unixsocket",
                str(self.path),
            ),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
            *self._arguments,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as one, suppress(OSError):
            one.settimeout(1)
            one.connect(str(self.path))
            one.sendall(b"PING\r\n")
            # PONG, or NOAUTH; another error while it loads its data.
            return one.recv(2) in {b"+P", b"-N"}
        return False

    def freeze(self) -> None:
        """Stop it as it is: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it; what it had is lost."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process = None

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()

    async def command(self, *words: bytes | str | int) -> Any:
        """Run a command over the unix socket, and return its reply as the protocol has it."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            if self.password:
                await self._ask(reader, writer, ("AUTH", self.password))
            return await self._ask(reader, writer, words)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        words: tuple[bytes | str | int, ...],
    ) -> Any:
        pieces = [one if isinstance(one, bytes) else str(one).encode() for one in words]
        writer.write(b"*%d\r\n" % len(pieces))
        writer.writelines(b"$%d\r\n%b\r\n" % (len(one), one) for one in pieces)
        async with asyncio.timeout(30):
            return await self._reply(reader)

    async def _reply(self, reader: asyncio.StreamReader) -> Any:
        line = (await reader.readuntil(b"\r\n"))[:-2]
        kind, rest = line[:1], line[1:]
        match kind:
            case b":":
                return int(rest)
            case b"$":
                if rest == b"-1":
                    return None
                return (await reader.readexactly(int(rest) + 2))[:-2]
            case b"*":
                return [await self._reply(reader) for _ in range(int(rest))]
            case b"-":
                raise AssertionError(rest.decode())
        return rest

    async def flush(self) -> None:
        """Lose everything."""
        await self.command("FLUSHALL")

    async def keys(self) -> dict[str, bytes]:
        """All keys with their values."""
        return {
            name.decode(): await self.command("GET", name)
            for name in await self.command("KEYS", "*")
        }


@asynccontextmanager
async def redis_process(
    folder: Path, *arguments: str, password: str = "", tls: bool = False
) -> AsyncIterator[RedisProcess]:
    """Run a server until the block ends."""
    server = RedisProcess(folder, *arguments, password=password, tls=tls)
    try:
        await server.start()
        yield server
    finally:
        await server.close()
