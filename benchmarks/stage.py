"""The stub providers, and the proxies in front of them, as processes on free ports of loopback."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import configs, peers
from benchmarks.accounting import cpu_seconds, family, resident_bytes
from benchmarks.configs import Job
from benchmarks.peers import PEERS
from benchmarks.processes import (
    Launch,
    first_answer,
    first_line,
    free_port,
    started,
)
from tests.support.certificates import Authority

DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Standing:
    """A proxy that runs, or none at all: the way straight to the providers.

    seconds  from its start to its first answer
    """

    name: str
    pids: tuple[int, ...]
    ports: dict[str, int]
    seconds: float = 0.0

    def place(self, prefix: str, path: str) -> tuple[int, str]:
        """Port and target of a request."""
        return self.ports[prefix], path if self.name == DIRECT else f"/{prefix}{path}"

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(list(self.pids))

    def resident(self) -> int:
        """Bytes of resident memory now."""
        return resident_bytes(list(self.pids))


@dataclass(slots=True)
class Stage:
    """The providers that run, and where to put what is started beside them."""

    folder: Path
    authority: Path
    ports: dict[str, int]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def direct(self) -> Standing:
        """No proxy."""
        return Standing(DIRECT, (), self.ports)

    @contextlib.contextmanager
    def proxy(self, name: str, clients: int = 1024) -> Iterator[Standing]:
        """A proxy of its own for this block. NotStarted, also if it does not do the job."""
        with self._running(name, PEERS[name].launch, "/live/check", clients) as standing:
            yield standing

    @contextlib.contextmanager
    def resting(self, name: str) -> Iterator[Standing]:
        """One to which nobody talks; keyrelay's has the routes that ship."""
        if name != "keyrelay":
            with self.proxy(name) as standing:
                yield standing
            return
        launch = peers.keyrelay_shipped
        with self._running(name, launch, "/-/health", 0) as standing:
            yield standing

    @contextlib.contextmanager
    def _running(
        self, name: str, launch: Callable[[Job], Launch], target: str, clients: int
    ) -> Iterator[Standing]:
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        port = free_port()
        ports = self.ports
        job = Job(folder, port, ports["api"], ports["live"], ports["tls"], self.authority, clients)
        with started(launch(job), folder, name) as process:
            seconds = first_answer(process, port, target, folder)
            pids = tuple(family(process.pid))
            yield Standing(name, pids, dict.fromkeys(ports, port), seconds)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """The providers: nginx where it is installed, Python for what nginx cannot say."""
    authority = Authority(folder)
    certificate = certify(authority, folder)
    with contextlib.ExitStack() as stack:
        live = python_provider(stack, folder, certificate)
        ports = {"api": live[0], "live": live[0], "tls": live[1]}
        if PEERS["nginx"].version() is not None:
            own = folder / "provider"
            own.mkdir()
            ports |= {"api": free_port(), "tls": free_port()}
            config = own / "nginx.conf"
            config.write_text(configs.nginx_provider(own, ports["api"], ports["tls"], certificate))
            process = stack.enter_context(
                started(peers.nginx_launch(str(config), own), own, "nginx")
            )
            first_answer(process, ports["api"], "/v1/", own)
        yield Stage(folder, authority.file, ports)


def certify(authority: Authority, folder: Path) -> Path:
    """A file with key and certificate for localhost."""
    authority.server("localhost", "127.0.0.1")
    (certificate,) = folder.glob("server-*.pem")
    return certificate


def python_provider(
    stack: contextlib.ExitStack, folder: Path, certificate: Path, *options: str
) -> tuple[int, int]:
    """Its ports, plain and TLS. It ends with the stack."""
    launch = Launch(
        (
            *peers.python("benchmarks.provider"),
            *("--certificate", str(certificate)),
            *options,
        )
    )
    process = stack.enter_context(started(launch, folder, "provider"))
    plain, tls = first_line(process, folder, "provider").split()
    return int(plain), int(tls)
