"""A provider as cheap as Python can be, in a process of its own: `-m benchmarks.provider`.

Prints two ports, plain and (with ``--certificate``) TLS or 0; serves until its input ends.

    GET, POST /v1/…            1 KB of JSON
    GET  /down/BYTES           that many bytes, as fast as they are taken
    POST /up                   reads the body, whatever its size
    GET  /events/COUNT         server-sent events, one each 2 ms, each with the time it was sent at
    GET  /socket               a WebSocket; each message is answered with one of its size
    GET  /check                200 if the key came along, once; else 400

It speaks just enough HTTP for what the benchmarks send through.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import re
import ssl
import sys
import time
from typing import cast

import uvloop

from benchmarks.configs import BODY, KEY, KEY_HEADER

EVENT_SECONDS = 0.002
_BLOCK = bytes(256 * 1024)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LENGTH = re.compile(rb"\r\n(?i:content-length): *(\d+)\r\n")
_SOCKET_KEY = re.compile(rb"\r\n(?i:sec-websocket-key): *(\S+)\r\n")
_KEYS = re.compile(rb"\r\n(?i:%b): *(\S*)\r\n" % KEY_HEADER.encode())
_CLOSE = 8  # opcode, RFC 6455 section 5.5.1
_CLOSED = b"\x88\x02" + (1000).to_bytes(2, "big")


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, head, body)


def frame(size: int) -> bytes:
    """A whole binary message of ``size`` bytes, unmasked, as servers send it."""
    if size < 126:
        head = b"\x82%c" % size
    elif size < 65_536:
        head = b"\x82\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x82\x7f" + size.to_bytes(8, "big")
    return head + bytes(size)


def masked_frame_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Sizes of a client's frame and of its payload; None if too little has arrived to tell."""
    if len(data) < 2:
        return None
    length = data[1] & 0x7F
    extended = {126: 2, 127: 8}.get(length, 0)
    if len(data) < 2 + extended:
        return None
    if extended:
        length = int.from_bytes(data[2 : 2 + extended], "big")
    return 2 + extended + 4 + length, length


_ANSWER = answer(BODY)


class Provider(asyncio.Protocol):
    """One connection. ``idle_seconds``: hang up after that long without a request; 0: never."""

    transport: asyncio.Transport

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._data = bytearray()
        self._target = b""
        self._body = 0  # bytes of the request's body that are still to come
        self._socket = False
        self._frames: dict[int, bytes] = {}
        self._to_send = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._to_send = 0
        if self._timer is not None:
            self._timer.cancel()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._idle_seconds and not self._socket:
            self._timer = self._loop.call_later(self._idle_seconds, self.transport.close)

    def data_received(self, data: bytes) -> None:
        if self._socket:
            self._message(data)
            return
        if self._body:
            self._body -= len(data)
            if self._body <= 0:
                self._respond(b"")
            return
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[: end + 4])
        received = len(self._data) - len(head)
        self._data.clear()
        self._target = head.split(b" ", 2)[1]
        length = _LENGTH.search(head)
        self._body = int(length[1]) - received if length else 0
        if self._body <= 0:
            self._respond(head)

    def _respond(self, head: bytes) -> None:
        self._body = 0
        _, kind, *rest = self._target.split(b"/")
        if kind == b"v1":
            self.transport.write(_ANSWER)
        elif kind == b"up":
            self.transport.write(answer(b"{}"))
        elif kind == b"down":
            self._to_send = int(rest[0])
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._to_send)
            self.resume_writing()
        elif kind == b"events":
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            self._loop.call_later(0.05, self._event, int(rest[0]))
        elif kind == b"socket":
            self._open_socket(head)
        elif kind == b"check" and _KEYS.findall(head) == [KEY.encode()]:
            self.transport.write(answer(b"{}"))
        else:
            self.transport.write(answer(repr(head).encode(), b"400 Bad Request"))
        self._rest()

    def _event(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(b"0\r\n\r\n")
            return
        self._loop.call_later(EVENT_SECONDS, self._event, left - 1)
        event = b"data: %d\n\n" % time.monotonic_ns()
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))

    def _open_socket(self, head: bytes) -> None:
        key = _SOCKET_KEY.search(head)
        if key is None:
            self.transport.write(answer(b"{}", b"400 Bad Request"))
            return
        digest = hashlib.sha1(key[1] + _GUID, usedforsecurity=False).digest()
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
        )
        self._socket = True

    def _message(self, data: bytes) -> None:
        self._data += data
        while (sizes := masked_frame_size(self._data)) and len(self._data) >= sizes[0]:
            whole, payload = sizes
            if self._data[0] & 0x0F == _CLOSE:
                self.transport.write(_CLOSED)
                self.transport.close()
                return
            del self._data[:whole]
            if payload not in self._frames:
                self._frames[payload] = frame(payload)
            self.transport.write(self._frames[payload])

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        while self._to_send and not self._paused:
            size = min(self._to_send, len(_BLOCK))
            self._to_send -= size
            self.transport.write(_BLOCK[:size])


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.provider")
    parser.add_argument("--certificate", help="PEM file with key and certificate, for TLS")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds until it hangs up")
    given = parser.parse_args()
    loop = asyncio.get_running_loop()
    ports = []
    contexts: list[ssl.SSLContext | None] = [None]
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate)
        contexts.append(context)
    for tls in contexts:
        server = await loop.create_server(
            lambda: Provider(given.idle), "127.0.0.1", 0, ssl=tls, backlog=4096
        )
        ports.append(server.sockets[0].getsockname()[1])
    print(*(ports if given.certificate else [*ports, 0]), flush=True)
    # Its end is the end of whoever started this.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
