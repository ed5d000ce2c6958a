"""The wheel of this checkout in an environment of its own, and its command run from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import listed_files
from tests.support.command import CANARY

ROOT = Path(__file__).resolve().parent.parent.parent
_INSTALL_SECONDS = 600.0
_COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and its outputs."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Served:
    """A command that serves: ``url`` of its first listener."""

    url: str


@dataclass(frozen=True)
class Installation:
    """An environment that holds the wheel and its pinned requirements, and nothing else.

    folder  where commands run, which is also the user's home
    """

    environment: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def keyrelay(
        self, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run a command that ends by itself."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._variables(variables),
            input=stdin,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        _inspect(outcome.out + outcome.err)
        return outcome

    @contextmanager
    def serving(
        self, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> Iterator[Served]:
        """Run a command that serves; SIGTERM ends it with exit code 0."""
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.folder,
            env=self._variables(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        killer = threading.Timer(_COMMAND_SECONDS, process.kill)
        killer.start()
        with process:
            assert process.stderr is not None
            try:
                banner = process.stderr.readline()
                found = re.search(r"keyrelay \S+ on (http://127\.0\.0\.1:\d+)", banner)
                assert found, banner + process.stderr.read()
                yield Served(found[1])
                process.terminate()
                rest = process.stderr.read()
            finally:
                process.kill()
                killer.cancel()
            assert process.wait() == 0, rest
            _inspect(banner + rest)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [str(self.environment / "bin" / "keyrelay"), *arguments]

    def _variables(self, more: Mapping[str, str] | None) -> dict[str, str]:
        """A login's, and none of this process: no PYTHONPATH leads back to the checkout."""
        return {
            "HOME": str(self.folder),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            **(more or {}),
        }


def build_and_install(folder: Path) -> Installation:
    """Build the wheel from what git tracks or would track, and install it below ``folder``."""
    source = folder / "source"
    for name in listed_files():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    _pip(Path(sys.executable), "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    [wheel] = folder.glob("keyrelay-*.whl")
    environment, home = folder / "environment", folder / "home"
    subprocess.run(
        [sys.executable, "-m", "venv", environment], check=True, timeout=_INSTALL_SECONDS
    )
    installation = Installation(environment, home)
    _pip(installation.python, "install", "--require-hashes", "-r", ROOT / "requirements.txt")
    _pip(installation.python, "install", "--no-deps", "--no-index", wheel)
    shutil.rmtree(source)
    home.mkdir()
    return installation


def _pip(python: Path, *arguments: str | Path) -> None:
    subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments],
        check=True,
        timeout=_INSTALL_SECONDS,
    )


def _inspect(text: str) -> None:
    """No traceback, no warning of Python's, no secret."""
    assert "Traceback" not in text, text
    assert "Warning" not in text, text
    assert CANARY not in text, text
