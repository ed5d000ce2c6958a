"""Messages between the supervisor and one of its workers, over a pair of unix sockets.

Each message is JSON, preceded by its length. A request has a number, which its reply repeats.
Descriptors may accompany a message (``SCM_RIGHTS``, unix(7)). A process at its limit of open
descriptors receives the message without some of them; each set is therefore assigned to its message
by its position in the stream. Both ends are the same program and no other process has the sockets,
so messages are trusted. They may hold credentials: none is logged.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from proxy.errors import KeyrelayError

Message = dict[str, Any]
Answer = Callable[[str, Message, list[int]], Awaitable[Message]]
"""Handles a message of a kind and returns the reply. Owns the descriptors that came with it."""

_LENGTH = struct.Struct("!I")
_READ_BYTES = 1 << 18
_MOST_DESCRIPTORS = 16


class ChannelClosed(KeyrelayError):
    """The peer has closed the channel, or failed to handle the request."""


class DescriptorsLost(KeyrelayError):
    """The peer received the message without its descriptors: it may open no more."""


class _Batch(NamedTuple):
    """Descriptors that came with the bytes of the stream from ``begin`` to ``end``.

    The system ends a read behind bytes with which descriptors were sent. So of the messages that
    begin there, one at most has descriptors.
    """

    begin: int
    end: int
    descriptors: list[int]


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
        # Position in the stream of the first byte of ``_taken``.
        self._position = 0
        self._batches: deque[_Batch] = deque()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    async def ask(self, kind: str, message: Message, descriptors: Sequence[int] = ()) -> Message:
        """Send a request and return the peer's reply. Cancelling is safe.

        The descriptors, 16 at most, remain the caller's. Raises ChannelClosed; DescriptorsLost if
        the peer received too few of them; OSError if the message has to wait and this process may
        not open the duplicates that wait with it.
        """
        return await self.request(kind, message, descriptors)

    def request(
        self, kind: str, message: Message, descriptors: Sequence[int] = ()
    ) -> asyncio.Future[Message]:
        """Send a request as ``ask`` does. Returns the reply to come, which may be cancelled."""
        self._number += 1
        number = self._number
        self._send({"kind": kind, "ask": number, "message": message}, descriptors)
        answer: asyncio.Future[Message] = self._loop.create_future()
        if self.closed.done():
            answer.set_exception(_gone())
            return answer
        self._asked[number] = answer
        answer.add_done_callback(lambda _: self._asked.pop(number))
        return answer

    def send(self, kind: str, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message without a reply. Raises ChannelClosed, and OSError as ``ask`` does."""
        self._send({"kind": kind, "message": message}, descriptors)

    def close(self) -> None:
        """Close the channel. Pending requests raise ChannelClosed. Idempotent."""
        if self.closed.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, copies in self._unsent:
            _close(copies)
        for batch in self._batches:
            _close(batch.descriptors)
        self._unsent.clear()
        self._batches.clear()
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
        if not self._unsent:
            sent = self._send_now(data, descriptors)
            if sent is None or sent == len(data):
                return
            if sent:
                data, descriptors = data[sent:], ()
            self._loop.add_writer(self._sock, self._write)
        # Duplicates, so that the caller may close its own before these are sent.
        self._unsent.append((data, _duplicates(descriptors)))

    def _send_now(self, data: bytes, descriptors: Sequence[int]) -> int | None:
        """Send what the socket takes. Returns the number of bytes; None if the channel is closed.

        The descriptors go with the first byte.
        """
        try:
            if descriptors:
                return socket.send_fds(self._sock, [data], descriptors)
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return None

    def _write(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            sent = self._send_now(data, descriptors)
            if not sent:
                return
            _close(descriptors)
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
        if descriptors:
            for one in descriptors:
                os.set_inheritable(one, False)
            end = self._position + len(self._taken)
            self._batches.append(_Batch(end, end + len(data), descriptors))
        self._taken += data
        while not self.closed.done():
            begin = self._position
            frame = self._frame()
            if frame is None:
                break
            self._take(frame, begin)
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
        self._position += end
        return frame

    def _take(self, frame: Message, begin: int) -> None:
        """Dispatch a message that begins at position ``begin`` of the stream."""
        descriptors = self._descriptors_at(begin) if frame["descriptors"] else []
        if len(descriptors) != frame["descriptors"]:
            _close(descriptors)
            self._refuse(frame)
            return
        if "answer" not in frame:
            task = self._loop.create_task(self._work(frame, descriptors))
            self._tasks.add(task)
            task.add_done_callback(partial(self._worked, descriptors))
            return
        answer = self._asked.get(frame["answer"])
        if answer is None or answer.done():
            return  # the request was cancelled
        if "message" in frame:
            answer.set_result(frame["message"])
        elif "lost" in frame:
            answer.set_exception(DescriptorsLost("it may open no more descriptors"))
        else:
            answer.set_exception(ChannelClosed("it could not answer"))

    def _descriptors_at(self, begin: int) -> list[int]:
        """The descriptors that came with the byte at ``begin``; empty without any."""
        while self._batches and self._batches[0].end <= begin:
            _close(self._batches.popleft().descriptors)
        if self._batches and self._batches[0].begin <= begin:
            return self._batches.popleft().descriptors
        return []

    def _refuse(self, frame: Message) -> None:
        """A message has lost descriptors on its way: it is not handled."""
        if "ask" in frame:
            self._send({"answer": frame["ask"], "lost": True})
        else:
            text = f"a message of kind {frame['kind']} lost its descriptors"
            self._loop.call_exception_handler({"message": text})

    async def _work(self, frame: Message, descriptors: list[int]) -> None:
        reply: Message = {"answer": frame.get("ask")}
        # From here on they are the handler's.
        taken = descriptors.copy()
        descriptors.clear()
        try:
            reply["message"] = await self._answer(frame["kind"], frame["message"], taken)
        except Exception as error:  # noqa: BLE001  the peer must receive a failure
            text = f"a message of kind {frame['kind']} failed ({type(error).__name__})"
            self._loop.call_exception_handler({"message": text})
        if "ask" in frame and not self.closed.done():
            self._send(reply)

    def _worked(self, descriptors: list[int], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Still some if the handler was cancelled before it began.
        _close(descriptors)


def _gone() -> ChannelClosed:
    return ChannelClosed("it has ended")


def _duplicates(descriptors: Sequence[int]) -> list[int]:
    """Duplicates of all descriptors. Raises OSError, with none left open."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(one) for one in descriptors)
    except OSError:
        _close(copies)
        raise
    return copies


def _close(descriptors: Sequence[int]) -> None:
    for one in descriptors:
        os.close(one)
