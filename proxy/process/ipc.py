"""Messages between the supervisor and one of its workers, over a pair of unix sockets.

Each message is JSON, preceded by its length. A request has a number, which its reply repeats.
Descriptors may accompany a message (``SCM_RIGHTS``, unix(7)). Both ends are the same program and no
other process has the sockets, so messages are trusted. They may hold credentials: none is logged.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.errors import KeyrelayError

Message = dict[str, Any]
Answer = Callable[[str, Message, list[int]], Awaitable[Message]]
"""Handles a message of a kind and returns the reply. Owns the descriptors that came with it."""

_LENGTH = struct.Struct("!I")
_READ_BYTES = 1 << 18
_MOST_DESCRIPTORS = 16


class ChannelClosed(KeyrelayError):
    """The peer has closed the channel, or failed to handle the request."""


class Channel:
    """One end of the channel. To be used from the loop's thread.

    answer  handles the peer's messages, in the order in which they were sent
    closed  done once the peer has closed the channel or ``close`` was called
    """

    def __init__(self, sock: socket.socket, answer: Answer) -> None:
        self._sock = sock
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken = bytearray()
        self._descriptors: deque[int] = deque()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    async def ask(self, kind: str, message: Message, descriptors: Sequence[int] = ()) -> Message:
        """Send a request and return the peer's reply. Raises ChannelClosed. Cancelling is safe.

        The descriptors, 16 at most, remain the caller's.
        """
        self._number += 1
        number = self._number
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._asked[number] = answer
        try:
            self._send({"kind": kind, "ask": number, "message": message}, descriptors)
            return await answer
        finally:
            del self._asked[number]

    def send(self, kind: str, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message without a reply. Raises ChannelClosed."""
        self._send({"kind": kind, "message": message}, descriptors)

    def close(self) -> None:
        """Close the channel. Pending requests raise ChannelClosed. Idempotent."""
        if self.closed.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        left = [*self._descriptors, *(one for _, several in self._unsent for one in several)]
        for descriptor in left:
            os.close(descriptor)
        self._descriptors.clear()
        self._unsent.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_gone())
        for task in self._tasks:
            task.cancel()
        self.closed.set_result(None)

    @property
    def waiting(self) -> bool:
        """Whether messages are queued unsent: the peer does not read."""
        return bool(self._unsent)

    # -- sending -------------------------------------------------------------------------------

    def _send(self, frame: Message, descriptors: Sequence[int] = ()) -> None:
        if self.closed.done():
            raise _gone()
        text = json.dumps({**frame, "descriptors": len(descriptors)}).encode("ascii")
        data = _LENGTH.pack(len(text)) + text
        # Duplicates, so that the caller may close its own before these are sent.
        copies = [os.dup(one) for one in descriptors]
        self._unsent.append((data, copies))
        self._write()

    def _write(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                else:
                    sent = self._sock.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._write)
                return
            except OSError:
                self.close()
                return
            for descriptor in descriptors:
                os.close(descriptor)
            if sent < len(data):
                self._unsent[0] = (data[sent:], [])
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    # -- receiving -----------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _READ_BYTES, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for one in descriptors:
            os.set_inheritable(one, False)
        self._descriptors.extend(descriptors)
        self._taken += data
        while (frame := self._frame()) is not None and not self.closed.done():
            self._take(frame)
        if not data:
            self.close()

    def _frame(self) -> Message | None:
        """Return the next complete message, None if it is still incomplete."""
        if len(self._taken) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._taken)[0]
        if len(self._taken) < end:
            return None
        frame: Message = json.loads(self._taken[_LENGTH.size : end])
        del self._taken[:end]
        return frame

    def _take(self, frame: Message) -> None:
        descriptors = [self._descriptors.popleft() for _ in range(frame["descriptors"])]
        if "answer" not in frame:
            task = self._loop.create_task(self._work(frame, descriptors))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        answer = self._asked.get(frame["answer"])
        if answer is None or answer.done():
            return  # the request was cancelled
        if "message" in frame:
            answer.set_result(frame["message"])
        else:
            answer.set_exception(ChannelClosed("it could not answer"))

    async def _work(self, frame: Message, descriptors: list[int]) -> None:
        reply: Message = {"answer": frame.get("ask")}
        try:
            reply["message"] = await self._answer(frame["kind"], frame["message"], descriptors)
        except Exception as error:  # noqa: BLE001  the peer must receive a failure
            text = f"a message of kind {frame['kind']} failed ({type(error).__name__})"
            self._loop.call_exception_handler({"message": text})
        if "ask" in frame and not self.closed.done():
            self._send(reply)


def _gone() -> ChannelClosed:
    return ChannelClosed("it has ended")
