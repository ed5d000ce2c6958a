"""A provider that moves bytes and nothing else, in a process of its own: `-m benchmarks.stub`.

Prints its port, serves until its standard input ends.

    GET  /down/BYTES            answers with that many bytes, as fast as they are taken
    GET  /chunks/BYTES          the same in chunks
    POST /up/BYTES/BURSTS       reads the body, pausing that many times; 0: as fast as it comes
    GET  /socket/BYTES          a WebSocket that sends that many bytes in messages of 1 MiB

Plain asyncio streams, so that nothing here buffers more than it says.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys

from benchmarks.pacing import BLOCK_BYTES, framing, read_body, write_body

MESSAGE_BYTES = 1024 * 1024
# RFC 6455 section 5.2: final, binary, unmasked, the length in eight bytes.
_FRAME_HEAD = b"\x82\x7f" + MESSAGE_BYTES.to_bytes(8, "big")
FRAME_BYTES = len(_FRAME_HEAD) + MESSAGE_BYTES
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: requests one after another, until the client leaves."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            _, target, _ = head.split(" ", 2)
            _, kind, size, *bursts = target.split("/")
            lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
            fields = {name.lower(): value for name, _, value in lines}
            if kind == "socket":
                await _talk(writer, fields["sec-websocket-key"], int(size))
                return
            if kind == "up":
                chunked = "transfer-encoding" in fields
                await read_body(reader, int(size), int(bursts[0]), chunked=chunked)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                chunked = kind == "chunks"
                announced = framing(int(size), chunked=chunked)
                writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % announced)
                await write_body(writer, int(size), chunked=chunked)
    except (asyncio.IncompleteReadError, ConnectionError):
        return  # the client has left; it is told by what it did not get
    finally:
        writer.close()


async def _talk(writer: asyncio.StreamWriter, key: str, size: int) -> None:
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )
    for _ in range(size // MESSAGE_BYTES):
        writer.write(_FRAME_HEAD)
        await write_body(writer, MESSAGE_BYTES, chunked=False)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=BLOCK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Its end is the end of whoever started this.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
