"""Tokens that a command prints: for whatever has a command-line tool of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..clock import Clock
from .endpoint import Fields, read_token
from .tokens import Minted, MintFailed

_OUTPUT_LIMIT = 64 * 1024


class CommandMint:
    """Runs a program without a shell and reads a token from what it prints.

    JSON, or the token alone. What it says on stderr is not repeated: it may quote a secret.
    """

    def __init__(
        self, command: Sequence[str], fields: Fields, clock: Clock, *, timeout_seconds: float
    ) -> None:
        self._command = tuple(command)
        self._fields = fields
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    async def mint(self) -> Minted:
        output = await self._run()
        text = output.decode("utf-8", "replace").strip()
        document: Any
        try:
            document = json.loads(text)
        except ValueError:
            document = text
        if not isinstance(document, dict):
            document = {self._fields.token: text}
        return read_token(document, self._fields, self._clock.wall())

    async def _run(self) -> bytes:
        name = self._command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise MintFailed(f"there is no command {name}") from None
        except OSError as error:
            raise MintFailed(f"the command {name} cannot be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                assert process.stdout is not None
                output = b""
                while piece := await process.stdout.read(_OUTPUT_LIMIT):
                    output += piece
                    if len(output) > _OUTPUT_LIMIT:
                        raise MintFailed(f"the command {name} printed too much", bad_answer=True)
                status = await process.wait()
        except TimeoutError:
            raise MintFailed(f"the command {name} did not end in time") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if status != 0:
            raise MintFailed(f"the command {name} failed with exit code {status}")
        return output
