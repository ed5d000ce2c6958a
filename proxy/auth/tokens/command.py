"""Tokens that a command prints: for whatever has a command-line tool of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from proxy.auth.token import FetchedToken, TokenError
from proxy.auth.tokens.response import TokenFields, read_token
from proxy.clock import Clock
from proxy.secrets.resolver import environment_without

# What is printed without JSON: one word, and neither a text in quotes nor the beginning of JSON.
_ALONE = re.compile(r'[^"\[{\s][\x21-\x7e]*')
_OUTPUT_LIMIT = 64 * 1024
# A killed process is waited for, but not one that cannot be killed (seconds).
_KILL_SECONDS = 1.0


class CommandTokenSource:
    """Runs a program without a shell and reads a token from what it prints.

    JSON, or the token alone. Its stderr is not repeated: it may quote a secret. It
    inherits the environment but for the variables that ``hidden`` has when it is started.
    """

    def __init__(
        self,
        command: Sequence[str],
        fields: TokenFields,
        clock: Clock,
        *,
        timeout_seconds: float,
        hidden: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._command = tuple(command)
        self._fields = fields
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._hidden = hidden

    async def fetch(self) -> FetchedToken:
        output = await self._run()
        text = output.decode("utf-8", "replace").strip()
        document: Any
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = text
        if isinstance(document, dict):
            return read_token(document, self._fields, self._clock.wall())
        if _ALONE.fullmatch(text) is None:
            raise TokenError("the output holds no usable token", invalid_response=True)
        alone = replace(self._fields, token="token")  # noqa: S106  a name
        return read_token({"token": text}, alone, self._clock.wall())

    async def _run(self) -> bytes:
        name = self._command[0]
        loop = asyncio.get_running_loop()
        try:
            # Leads a group of its own, so that what it has started can be ended with it.
            transport, program = await loop.subprocess_exec(
                lambda: _Program(loop),
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env=environment_without(self._hidden()),
            )
        except FileNotFoundError:
            raise TokenError(f"there is no command {name}") from None
        except OSError as error:
            raise TokenError(f"the command {name} cannot be run ({type(error).__name__})") from None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await program.closed
                if len(program.output) <= _OUTPUT_LIMIT:
                    await program.exited
        except TimeoutError:
            raise TokenError(f"the command {name} did not end in time") from None
        finally:
            if not program.exited.done():
                # Not permitted for sudo and the like.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
                await asyncio.wait({program.exited}, timeout=_KILL_SECONDS)
            transport.close()
        if len(program.output) > _OUTPUT_LIMIT:
            raise TokenError(f"the command {name} printed too much", invalid_response=True)
        if (status := transport.get_returncode()) != 0:
            raise TokenError(f"the command {name} failed with exit code {status}")
        return bytes(program.output)


class _Program(asyncio.SubprocessProtocol):
    """A running program. asyncio's own ``Process`` ends only when all holders of its output have.

    closed  its output has ended, or is too long
    exited  it has ended
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = bytearray()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.output) <= _OUTPUT_LIMIT:
            self.output += data
        if len(self.output) > _OUTPUT_LIMIT:
            _settle(self.closed)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        _settle(self.closed)

    def process_exited(self) -> None:
        _settle(self.exited)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
