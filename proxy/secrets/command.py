"""Secret source ``exec:command args``: the output of a program, run without a shell.

For password managers, vaults and clouds with a command-line tool. The program's stderr is
discarded: it may quote the secret.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from contextvars import ContextVar

from proxy.secrets.env import environment_without
from proxy.secrets.source import LIMIT_BYTES, SourceError, strip_line_end

_OUTPUT_LIMIT = LIMIT_BYTES + len("\r\n")
# Seconds to wait for a killed program: one in an uninterruptible call never ends.
_KILL_SECONDS = 1.0


class Programs:
    """The programs that one thread runs, one at a time, so that another thread can end them.

    A context manager of the thread that runs them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._ended = False

    def __enter__(self) -> None:
        _PROGRAMS.set(self)

    def __exit__(self, *_: object) -> None:
        _PROGRAMS.set(None)

    def end(self) -> None:
        """Kill the program that runs, and every later one at its start."""
        with self._lock:
            self._ended = True
            if self._running is not None:
                _kill_group(self._running)

    def runs(self, program: subprocess.Popen[bytes] | None) -> None:
        """Note the program that runs, None before it is waited for."""
        with self._lock:
            self._running = program
            if program is not None and self._ended:
                _kill_group(program)


_PROGRAMS: ContextVar[Programs | None] = ContextVar("_PROGRAMS", default=None)


def read_command(line: str, timeout_seconds: float, hidden: Collection[str] = frozenset()) -> bytes:
    """Run a command and return its output without one trailing line end. Blocking.

    The command inherits keyrelay's environment except the variables in ``hidden``, reads an empty
    stdin, and leads its own process group, which is killed when the command runs longer than
    ``timeout_seconds`` or prints more than 64 KiB.

    Raises SourceError if the command cannot start, fails, times out, or prints nothing or too much.
    """
    arguments = shlex.split(line)
    name = arguments[0]
    try:
        program = subprocess.Popen(  # noqa: S603  the configuration names it; there is no shell
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment_without(hidden),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SourceError(f"install {name}, or write its full path: command not found") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SourceError(f"make {name} executable: {reason}") from None
    assert program.stdout is not None
    programs = _PROGRAMS.get()
    if programs is not None:
        programs.runs(program)
    try:
        deadline = time.monotonic() + timeout_seconds
        output = _read_output(program, program.stdout.fileno(), deadline)
    except TimeoutError:
        raise SourceError(
            f"run {name} by hand to find what it waits for, or raise timeout_seconds: "
            f"it timed out after {timeout_seconds:g} s"
        ) from None
    finally:
        if programs is not None:
            programs.runs(None)
        _kill_unfinished(program)
        program.stdout.close()
    if len(output) > _OUTPUT_LIMIT:
        raise SourceError(f"use another command: {name} prints more than 64 KiB")
    status = program.returncode
    if status < 0:
        raise SourceError(f"run {name} by hand to find the cause: it was ended by signal {-status}")
    if status > 0:
        raise SourceError(f"run {name} by hand to find the cause: it exited with {status}")
    value = strip_line_end(output)
    if not value:
        raise SourceError(f"run {name} by hand to find the cause: its output is empty")
    return value


def _read_output(program: subprocess.Popen[bytes], descriptor: int, deadline: float) -> bytes:
    """Return the complete output after the program ends, or more than the limit before that.

    Raises TimeoutError at ``deadline`` (seconds of the monotonic clock).
    """
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not selector.select(remaining):
                raise TimeoutError
            chunk = os.read(descriptor, LIMIT_BYTES)
            if not chunk:
                break
            output += chunk
            if len(output) > _OUTPUT_LIMIT:
                return bytes(output)
    try:
        program.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return bytes(output)


def _kill_unfinished(program: subprocess.Popen[bytes]) -> None:
    """Kill the program's process group unless the program has been waited for.

    Before ``wait`` the kernel does not reuse the process ID, so it still names the group even if
    the program itself has exited.
    """
    if program.returncode is not None:
        return
    _kill_group(program)
    with suppress(subprocess.TimeoutExpired):
        program.wait(_KILL_SECONDS)


def _kill_group(program: subprocess.Popen[bytes]) -> None:
    if program.returncode is None:
        # PermissionError: programs such as sudo run as another user.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program.pid, signal.SIGKILL)
