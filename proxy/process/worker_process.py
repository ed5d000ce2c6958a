"""A worker process as the supervisor handles it: start, configuration, end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from proxy.process.ipc import Answer, Channel, ChannelClosed, Message
from proxy.process.worker_config import WorkerConfig

# Time limit for putting a configuration in force (seconds).
_TAKE_SECONDS = 30.0
_SNAPSHOT_SECONDS = 2.0
# Time beyond the drain time within which a worker has to end (seconds).
_GRACE_SECONDS = 5.0
# A worker that has not confirmed a connection for so long (seconds), or so many of them, is stuck.
# The number is what a stopped worker withholds of a burst.
_CONFIRM_SECONDS = 1.0
_MOST_UNCONFIRMED = 8


class WorkerProcess:
    """A worker process. Made by ``start``.

    index  number of the worker, from 0; its replacement has the same
    """

    def __init__(
        self, index: int, workers: int, process: asyncio.subprocess.Process, channel: Channel
    ) -> None:
        self.index = index
        self._workers = workers
        self._process = process
        self._channel = channel
        self._serves: WorkerConfig | None = None
        # When each unconfirmed connection was offered, the oldest first.
        self._offered: dict[asyncio.Future[Message], float] = {}

    @classmethod
    async def start(
        cls,
        index: int,
        workers: int,
        command: Sequence[str],
        answer: Answer,
        environment: Mapping[str, str],
    ) -> WorkerProcess:
        """Start one of ``workers`` workers, without a configuration. Raises OSError.

        command      the command line, without the descriptor of the channel
        answer       as for ``Channel``
        environment  its variables: other programs can read them until it has sealed its memory

        If this is cancelled, the process ends by itself.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # The terminal's signals (Ctrl-C) must reach the supervisor only.
                    start_new_session=True,
                    env=environment,
                )
        except BaseException:
            ours.close()
            raise
        return cls(index, workers, process, Channel(ours, answer))

    def __str__(self) -> str:
        return f"worker {self.index + 1} (pid {self._process.pid})"

    @property
    def gone(self) -> bool:
        """Whether its channel is closed."""
        return self._channel.closed.done()

    @property
    def unconfirmed(self) -> int:
        """Number of connections that it was offered and has not replied to."""
        return len(self._offered)

    @property
    def stuck(self) -> bool:
        """Whether it does not confirm connections: stopped, or busy with something else."""
        now = time.monotonic()
        late = now - next(iter(self._offered.values()), now) > _CONFIRM_SECONDS
        return late or len(self._offered) >= _MOST_UNCONFIRMED or self._channel.waiting

    def offer(self, message: Message, descriptor: int) -> asyncio.Future[Message]:
        """Offer a connection. ``owned`` in the reply: the worker has it, and has read nothing yet.

        The reply fails with ChannelClosed or DescriptorsLost. Raises ChannelClosed, OSError.
        """
        reply = self._channel.request("connection", message, [descriptor])
        self._offered[reply] = time.monotonic()
        reply.add_done_callback(self._offered.pop)
        return reply

    def send(self, kind: str, message: Message, *descriptors: int) -> bool:
        """Send a message without a reply. Returns whether the channel was open."""
        try:
            self._channel.send(kind, message, descriptors)
        except ChannelClosed:
            return False
        return True

    async def take(self, current: Callable[[], WorkerConfig]) -> str:
        """Send the current configuration, which may change meanwhile.

        Returns the reason why the worker cannot serve it, "" if it can.
        """
        while self._serves is not (worker_config := current()):
            message = {
                "handover": worker_config.as_json(),
                "index": self.index,
                "workers": self._workers,
                "at": time.time(),
            }
            try:
                async with asyncio.timeout(_TAKE_SECONDS):
                    answer = await self._channel.ask("configuration", message)
            except ChannelClosed as error:
                return str(error)
            except TimeoutError:
                return f"it took longer than {_TAKE_SECONDS:.0f} s"
            if "failed" in answer:
                return str(answer["failed"])
            self._serves = worker_config
        return ""

    async def snapshot(self) -> Message:
        """Return its snapshot, empty if there is no reply within _SNAPSHOT_SECONDS."""
        return await self.ask("snapshot", {})

    async def ask(self, kind: str, message: Message) -> Message:
        """Return its reply, empty if there is none within _SNAPSHOT_SECONDS."""
        try:
            async with asyncio.timeout(_SNAPSHOT_SECONDS):
                return await self._channel.ask(kind, message)
        except (ChannelClosed, TimeoutError):
            return {}

    async def ended(self) -> str:
        """Wait until the process has ended. Returns how it ended."""
        code = await self._process.wait()
        self._channel.close()
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name}"

    async def retire(self, seconds: float) -> None:
        """Let it drain for ``seconds``, and wait for its end; kill it if it takes longer.

        To be called again with a shorter time if this is cancelled.
        """
        self.send("end", {"seconds": seconds})
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """Kill the process and close its channel."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._channel.close()


def lock_file() -> int:
    """Return the descriptor of an unnamed file, to be locked by one process at a time."""
    if sys.platform == "linux":
        # No directory may be writable.
        return os.memfd_create("keyrelay")
    else:  # noqa: RET505  so that mypy sees two platforms
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
