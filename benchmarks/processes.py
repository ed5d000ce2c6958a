"""Starting and ending servers on loopback: by their process id, whatever happens."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
_POLL_SECONDS = 0.001
_END_SECONDS = 5.0


class NotStarted(Exception):
    """A server did not answer; the message has the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, and what it needs in its environment beside ours."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(launch: Launch, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block. What it prints goes into files of ``folder``.

    It has a session of its own, so that Ctrl-C reaches it through us, once.
    """
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(
            launch.arguments,
            env={**os.environ, **launch.environment},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def first_answer(process: subprocess.Popen[bytes], port: int, target: str, folder: Path) -> float:
    """Seconds until a GET of ``target`` is answered with 200. NotStarted if it never is."""
    began = time.perf_counter()
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    answer = b""
    while process.poll() is None and time.perf_counter() - began < START_SECONDS:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as client:
                client.sendall(request.encode())
                answer = client.recv(65_536)
            if answer.startswith(b"HTTP/1.1 200"):
                return time.perf_counter() - began
        except ConnectionError:
            pass  # it does not listen yet
        time.sleep(_POLL_SECONDS)
    printed = [path.read_text(errors="replace") for path in sorted(folder.glob("*.err"))]
    answered, _, _ = answer.decode("latin-1").partition("\r\n")
    raise NotStarted(f"{answered} {_last(''.join(printed))}".strip())


def first_line(process: subprocess.Popen[bytes], folder: Path, name: str) -> str:
    """The first line that a process prints. NotStarted if it ends before."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < START_SECONDS:
        line, newline, _ = (folder / f"{name}.out").read_text().partition("\n")
        if newline:
            return line
        time.sleep(_POLL_SECONDS)
    raise NotStarted(_last((folder / f"{name}.err").read_text()))


def _last(printed: str) -> str:
    """The last line of what was printed, where the reason stands."""
    return printed.strip().rpartition("\n")[2]
