from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from proxy.secrets.command import read_command
from proxy.secrets.source import LIMIT_BYTES, SourceError


def python(code: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-c", code, *arguments])


@pytest.mark.parametrize("end", ["", "\\n", "\\r\\n"])
def test_what_is_printed_is_the_value(end: str) -> None:
    """One line end is left out, as most programs print one."""
    assert read_command(python(f"print('dummy', end='{end}')"), 10) == b"dummy"


def test_there_is_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are parted as a shell does it, and nothing else is; the environment is inherited."""
    monkeypatch.setenv("DUMMY_KEY", "dummy-inherited")
    line = python("import os, sys; print(sys.argv[1], os.environ['DUMMY_KEY'])", "$HOME; `id` *")
    assert read_command(line, 10) == b"$HOME; `id` * dummy-inherited"


def test_a_command_reads_nothing() -> None:
    """One that asks for a password gets an end of input, not the terminal."""
    assert read_command(python("import sys; print(repr(sys.stdin.read()))"), 10) == b"''"


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    """A file that is no program is told from one that is not there."""
    with pytest.raises(SourceError, match="command not found"):
        read_command(f"{tmp_path}/none", 10)
    with pytest.raises(SourceError, match="executable: Permission denied"):
        read_command(str(tmp_path), 10)


def test_a_command_that_fails() -> None:
    """Its exit code or signal is told, what it printed is not."""
    with pytest.raises(SourceError, match=r"exited with 7$") as caught:
        read_command(python("print('dummy'); raise SystemExit(7)"), 10)
    assert "dummy" not in caught.value.args[0]
    with pytest.raises(SourceError, match=r"ended by signal 15$"):
        read_command(python("import os; os.kill(os.getpid(), 15)"), 10)


def test_a_command_that_prints_too_much() -> None:
    """One that never stops printing is ended; a line end does not count."""
    line = python(f"print('x' * {LIMIT_BYTES})")
    assert len(read_command(line, 10)) == LIMIT_BYTES
    with pytest.raises(SourceError, match="more than 64 KiB"):
        read_command("yes", 10)


@pytest.mark.parametrize(
    "script",
    ["exec 3>{fifo}; sleep 60 & wait", "exec 3>{fifo}; sleep 60 & echo dummy", "sleep 60 3>{fifo}"],
)
def test_a_command_that_does_not_end(tmp_path: Path, script: str) -> None:
    """It is ended with all that it has started, also if it has gone itself."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(SourceError, match=r"timed out after 0.5 s"):
            read_command(shlex.join(["sh", "-c", script.format(fifo=fifo)]), 0.5)
        os.set_blocking(reading, True)
        assert os.read(reading, 1) == b""  # ends once nobody holds the other side
    finally:
        os.close(reading)


def test_a_command_that_closes_its_output_and_stays() -> None:
    """The end of the output is not the end of the program."""
    with pytest.raises(SourceError, match="timed out"):
        read_command(shlex.join(["sh", "-c", "exec sleep 60 >&-"]), 0.2)


def test_variables_that_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program sees all but them."""
    monkeypatch.setenv("DUMMY_KEY", "dummy-of-another-route")
    monkeypatch.setenv("DUMMY_SESSION", "dummy-session")
    line = python("import os; print(os.environ.get('DUMMY_KEY'), os.environ['DUMMY_SESSION'])")
    assert read_command(line, 10, {"DUMMY_KEY"}) == b"None dummy-session"
