"""``exec:command args``: what a program prints, run without a shell.

For whatever has a command-line tool of its own: password managers, vaults, clouds. What it says on
stderr is not repeated, as it may quote the secret.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress

from proxy.secrets.env import environment_without
from proxy.secrets.source import LIMIT_BYTES, SourceError, without_line_end

_OUTPUT_LIMIT = LIMIT_BYTES + len("\r\n")
# A killed program is waited for, but not one that cannot be killed (seconds).
_KILL_SECONDS = 1.0


def read_command(line: str, timeout_seconds: float, hidden: Collection[str] = frozenset()) -> bytes:
    """What the command prints, without one line end. Raises SourceError if it fails in any way.

    It inherits keyrelay's environment but for the variables in ``hidden``, has nothing on stdin,
    and leads a process group of its own, which is ended with it when it takes longer than
    ``timeout_seconds`` or prints too much.
    """
    words = shlex.split(line)
    name = words[0]
    try:
        program = subprocess.Popen(  # noqa: S603  the configuration names it; there is no shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment_without(hidden),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SourceError(f"install {name}, or write its whole path: command not found") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SourceError(f"make {name} a program that can be run: {reason}") from None
    assert program.stdout is not None
    try:
        output = _output(program, program.stdout.fileno(), time.monotonic() + timeout_seconds)
    except TimeoutError:
        raise SourceError(
            f"run {name} by hand to see what it waits for, or raise timeout_seconds: "
            f"it timed out after {timeout_seconds:g} s"
        ) from None
    finally:
        _end(program)
        program.stdout.close()
    if len(output) > _OUTPUT_LIMIT:
        raise SourceError(f"name another command: {name} prints more than 64 KiB")
    status = program.returncode
    if status < 0:
        raise SourceError(f"run {name} by hand to see why: it was ended by signal {-status}")
    if status > 0:
        raise SourceError(f"run {name} by hand to see why: it exited with {status}")
    value = without_line_end(output)
    if not value:
        raise SourceError(f"run {name} by hand to see why: what it printed is empty")
    return value


def _output(program: subprocess.Popen[bytes], descriptor: int, deadline: float) -> bytes:
    """All that it prints, once it has ended, or too much of it before it has.

    Raises TimeoutError at the deadline (monotonic clock).
    """
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise TimeoutError
            piece = os.read(descriptor, LIMIT_BYTES)
            if not piece:
                break
            output += piece
            if len(output) > _OUTPUT_LIMIT:
                return bytes(output)
    try:
        program.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return bytes(output)


def _end(program: subprocess.Popen[bytes]) -> None:
    """End it and what it has started, unless it has ended as it should.

    Until it is waited for, its number stays that of the group, even if the program itself has gone.
    """
    if program.returncode is not None:
        return
    # Not permitted for sudo and the like.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        program.wait(_KILL_SECONDS)
