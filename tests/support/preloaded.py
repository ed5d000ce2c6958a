"""Runs the command in processes that start quickly: forks of one that has imported the package.

Most of a command's time is the import of its modules, which is the same each time. Each command
still has a process, an environment, a directory and descriptors of its own. A command that depends
on how the interpreter starts is run by an interpreter of its own instead.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

# Variables that an interpreter reads at its start.
_AT_START = ("PYTHON", "COVERAGE", "LANG", "LC_", "LD_", "MALLOC_")
_MESSAGE_BYTES = 1 << 20
_DESCRIPTORS = 4  # stdin, stdout, stderr, and the one that the process's end is reported on


@dataclass(frozen=True)
class _Order:
    """What a process has to run."""

    arguments: list[str]
    folder: str
    variables: dict[str, str]


def suits(variables: Mapping[str, str]) -> bool:
    """Whether a command with this environment can run in a fork."""
    found = _at_start(variables)
    return found == _at_start(_Template.variables()) and not any(
        name.startswith("COVERAGE") for name in found
    )


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_AT_START) and not name.startswith("PYTHON_")
    }


class _Template:
    """The process that is forked: started at its first use, ended with this process."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.preloaded", str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                env=self.variables(),
                cwd=ROOT,
            )
        self._socket = ours
        atexit.register(self._close)

    @staticmethod
    def variables() -> dict[str, str]:
        """The template's environment, as that of a command without variables of its own."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

    def start(self, order: _Order, descriptors: Sequence[int]) -> None:
        message = json.dumps([order.arguments, order.folder, order.variables]).encode()
        socket.send_fds(self._socket, [message], descriptors)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=10)


ROOT = Path(__file__).resolve().parents[2]
_templates: list[_Template] = []


def run(
    arguments: Sequence[str],
    *,
    folder: Path | None,
    variables: Mapping[str, str],
    stdin: bytes,
    seconds: float,
) -> subprocess.CompletedProcess[bytes]:
    """As ``subprocess.run`` of ``python -m proxy``. Raises TimeoutExpired after ``seconds``."""
    if not _templates:
        _templates.append(_Template())
    pairs = [os.pipe() for _ in range(_DESCRIPTORS)]
    reading, writing = [one for one, _ in pairs], [one for _, one in pairs]
    given = [reading[0], *writing[1:]]
    try:
        _templates[0].start(
            _Order(list(arguments), str(folder or Path.cwd()), dict(variables)), given
        )
    finally:
        for descriptor in given:
            os.close(descriptor)
    feeding = threading.Thread(target=_feed, args=(writing[0], stdin))
    feeding.start()
    out, err, end = _collect(reading[1:], [*arguments], seconds)
    feeding.join()
    return subprocess.CompletedProcess([*arguments], int(end.split()[1]), out, err)


def _feed(descriptor: int, data: bytes) -> None:
    """Write all of it, unless the command does not read so much; then close it."""
    with suppress(BrokenPipeError), open(descriptor, "wb", buffering=0) as pipe:
        while data:
            data = data[pipe.write(data) :]


def _collect(descriptors: Sequence[int], arguments: list[str], seconds: float) -> list[bytes]:
    """What comes on each of them until all have ended."""
    found = dict.fromkeys(descriptors, b"")
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        try:
            while selector.get_map():
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if not ready:
                    os.kill(int(found[descriptors[-1]].split()[0]), signal.SIGKILL)
                    raise subprocess.TimeoutExpired(arguments, seconds)
                for key, _ in ready:
                    data = os.read(key.fd, 65_536)
                    found[key.fd] += data
                    if not data:
                        selector.unregister(key.fd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
    return list(found.values())


# -- the template ------------------------------------------------------------------------------


def _serve(orders: socket.socket) -> _Order | None:
    """Fork for each order; returns it in the fork, and None at the end in the template."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, _MESSAGE_BYTES, _DESCRIPTORS)
        if not message:
            return None
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        *standard, report = descriptors
        child = os.fork()
        if child:
            # The fork in between waits for the command: its status is no one else's to collect.
            for descriptor in (orders.fileno(), *standard, 0, 1, 2):
                os.close(descriptor)
            os.write(report, b"%d " % child)
            _, status = os.waitpid(child, 0)
            os.write(report, b"%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        os.close(report)
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return _Order(*json.loads(message))


def _stream(before: TextIO, descriptor: int, mode: str) -> TextIOWrapper:
    """A standard stream, with encoding and errors as the interpreter chose them."""
    binary = open(descriptor, f"{mode}b", closefd=False)  # noqa: SIM115  for good
    return TextIOWrapper(
        binary, encoding=before.encoding, errors=before.errors, line_buffering=descriptor == 2
    )


def _become(order: _Order) -> None:
    """Be a process that was started as ``python -m proxy``."""
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.variables)
    sys.path[0] = order.folder
    sys.argv[1:] = order.arguments
    sys.orig_argv = [sys.executable, "-m", "proxy", *order.arguments]
    # Those of the template know what its descriptors were: whether they can seek, or are terminals.
    sys.stdin = _stream(sys.stdin, 0, "r")
    sys.stdout = _stream(sys.stdout, 1, "w")
    sys.stderr = _stream(sys.stderr, 2, "w")
    runpy.run_module("proxy", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    from proxy.cli.main import main

    # Each is imported when it is first used; a fork would have to do that anew.
    assert all(main.commands.values())
    # No fork writes to the pages of what all have in common.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        order = _serve(orders)
    if order is not None:
        _become(order)
