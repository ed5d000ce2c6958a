"""An HTTP proxy on loopback that serves CONNECT, keeps every byte of it, and can refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.keyrelay import raw_provider, read_head

REFUSED = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno"


@dataclass
class ConnectProxy:
    """``heads`` are the requests as they came; ``ports`` leads names to ports of loopback."""

    ports: Mapping[str, int] = field(default_factory=dict)
    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def connect_proxy(
    ports: Mapping[str, int],
    *,
    credentials: bytes = b"",
    response: bytes = b"",
    established: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
) -> AsyncIterator[ConnectProxy]:
    """Run a proxy until the block ends.

    credentials  the value of Proxy-Authorization that it wants, none by default
    response     the response to every request, in place of a tunnel
    established  the response with which a tunnel begins
    """
    proxy = ConnectProxy(ports)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        proxy.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if response:
            writer.write(response)
            return
        assert method == b"CONNECT"
        if credentials and b"\r\nProxy-Authorization: %b\r\n" % credentials not in head:
            writer.write(REFUSED % 407)
            return
        host = target.decode().rpartition(":")[0].strip("[]")
        if host not in ports:
            writer.write(REFUSED % 502)
            return
        there = await asyncio.open_connection("127.0.0.1", ports[host])
        writer.write(established)
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    async with raw_provider(serve) as running:
        proxy.port = running.port
        yield proxy


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
