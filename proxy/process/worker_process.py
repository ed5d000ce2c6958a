"""One worker, seen from the process that started it."""

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

# One that cannot take a configuration in this time (seconds) is given up.
_TAKE_SECONDS = 30.0
_SNAPSHOT_SECONDS = 2.0
# Beyond the time that work in flight has, it may take this long to end (seconds).
_GRACE_SECONDS = 5.0


class WorkerProcess:
    """A process that serves. Made by ``start``.

    index  counts the workers from 0; whoever replaces it has the same
    """

    def __init__(
        self, index: int, workers: int, process: asyncio.subprocess.Process, channel: Channel
    ) -> None:
        self.index = index
        self._workers = workers
        self._process = process
        self._channel = channel
        self._serves: WorkerConfig | None = None

    @classmethod
    async def start(
        cls,
        index: int,
        workers: int,
        command: Sequence[str],
        answer: Answer,
        environment: Mapping[str, str],
    ) -> WorkerProcess:
        """One of so many; it has been told nothing yet. Raises OSError.

        command      what to run, but for the descriptor of its channel
        answer       as of ``Channel``
        environment  what it gets of variables: others can read them until it has sealed itself

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
                    # What a terminal sends to all (Ctrl-C) is for the supervisor to decide on.
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
        """Whether it can be told nothing any more."""
        return self._channel.closed.done()

    @property
    def stuck(self) -> bool:
        """Whether it does not even read what it was told."""
        return self._channel.waiting

    def tell(self, kind: str, message: Message, *descriptors: int) -> bool:
        """Whether that could be sent."""
        try:
            self._channel.tell(kind, message, descriptors)
        except ChannelClosed:
            return False
        return True

    async def take(self, current: Callable[[], WorkerConfig]) -> str:
        """Serve by the configuration in force, which may change meanwhile; why not, or ""."""
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
        """How it is; empty if it does not say so in time."""
        try:
            async with asyncio.timeout(_SNAPSHOT_SECONDS):
                return await self._channel.ask("snapshot", {})
        except (ChannelClosed, TimeoutError):
            return {}

    async def ended(self) -> str:
        """Wait for its end; how that was."""
        code = await self._process.wait()
        self._channel.close()
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name}"

    async def retire(self, seconds: float) -> None:
        """Let it end what is in flight within that time, and wait for its end.

        To be called again with less if this is cancelled.
        """
        self.tell("end", {"seconds": seconds})
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._channel.close()


def lock_file() -> int:
    """A descriptor of a file without a name, to be locked by one process at a time."""
    if sys.platform == "linux":
        # There may be no place to write a file.
        return os.memfd_create("keyrelay")
    else:  # noqa: RET505  so that mypy sees two platforms
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
