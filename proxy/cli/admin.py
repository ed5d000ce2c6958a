"""Commands that ask a keyrelay that runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from proxy import __version__
from proxy.errors import KeyrelayError

if TYPE_CHECKING:
    from proxy.admin.runtime_file import RuntimeFile

# Containers give a health check a few seconds.
_HEALTH_SECONDS = 3.0
_STATUS_SECONDS = 5.0
# A reload may ask programs for secrets and waits for them.
_RELOAD_SECONDS = 120.0
_WATCH_SECONDS = 1.0
# Where there is no terminal nothing is cut off.
_NO_TERMINAL = (500, 24)

# A kind of error that includes others stands behind them.
_REASONS: dict[type[Exception], str] = {
    ssl.SSLCertVerificationError: "its certificate is not trusted; ask a listener without TLS",
    socket.gaierror: "no host of that name is known",
    ConnectionRefusedError: "nothing listens there",
    FileNotFoundError: "there is no such socket",
    PermissionError: "you may not connect there",
    TimeoutError: "it took too long",
    http.client.InvalidURL: "this is no address",
    http.client.HTTPException: "what came is no HTTP",
    ConnectionError: "the connection broke off",
    ValueError: "this is no address",
}

_URL = click.option(
    "--url",
    metavar="URL",
    help="Admin listener to ask, if several run: http://127.0.0.1:8081 or unix:/path.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(short_help="Ask a running keyrelay whether it serves.")
@click.argument("url", required=False)
def health(url: str | None) -> None:
    """Ask a running keyrelay whether it serves: exit 0 if so, 1 if not.

    URL is where it listens: http://127.0.0.1:8080, https://… or unix:/path. Without it every
    keyrelay of yours that runs is asked, at the address it has recorded below $XDG_RUNTIME_DIR; if
    there is no such record, http://127.0.0.1:8080.
    """
    for one in [url] if url is not None else _serving_urls():
        if "://" in one and not one.startswith(("http://", "https://")):
            raise KeyrelayError(f"{one}: health speaks http; write http://HOST:PORT or unix:/path")
        status, _ = _ask(one, "GET", "/-/health", seconds=_HEALTH_SECONDS)
        if status != 200:
            raise KeyrelayError(f"{one} answered {status}")
    click.echo("ok")


def _serving_urls() -> list[str]:
    """Where keyrelays of this user serve; a wildcard address is reached by loopback."""
    from proxy.admin.runtime_file import serving

    return [
        one.url.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")
        for one in serving()
    ] or ["http://127.0.0.1:8080"]


@click.command(short_help="Show how the running keyrelay is.")
@_URL
@_JSON
@click.option("--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@click.option("--page", is_flag=True, help="Print the address that opens the inspector. Secret.")
def status(url: str | None, as_json: bool, watch: bool, page: bool) -> None:
    """Show how the running keyrelay is: what needs attention, routes, tokens, rotated secrets.

    It must be yours and have an admin listener: keyrelay run --admin.
    """
    if as_json and watch:
        raise click.UsageError("Watch it or print JSON, not both.")
    if page and (as_json or watch):
        raise click.UsageError("--page prints an address and nothing else.")
    asked = _chosen(url)
    if page:
        click.echo(asked.page_url)
        return
    if not watch:
        snapshot = _status(asked)
        click.echo(json.dumps(snapshot, indent=2) if as_json else _rendered(asked, snapshot))
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text = _rendered(asked, _status(asked))
            click.clear()
            click.echo(text)
            time.sleep(_WATCH_SECONDS)


def _status(asked: RuntimeFile) -> Any:
    status, body = _ask(asked.url, "GET", "/api/status", token=asked.token, seconds=_STATUS_SECONDS)
    return _document(asked, status, body, {200})


def _rendered(asked: RuntimeFile, snapshot: Any) -> str:
    from proxy.cli.status_table import rendered  # needs more than a health check has time for

    if (version := snapshot.get("version")) != __version__:
        raise KeyrelayError(
            f"{asked.url} is keyrelay {version} and this is {__version__}; "
            "start it anew, or ask with --json"
        )
    blocks = rendered(snapshot, shutil.get_terminal_size(_NO_TERMINAL).columns)
    return "\n\n".join(
        click.style(block, fg="yellow") if block.startswith("! ") else block
        for block in blocks.rstrip("\n").split("\n\n")
    )


@click.command(short_help="Let it read its configuration and secrets anew.")
@_URL
@_JSON
def reload(url: str | None, as_json: bool) -> None:
    """Let the running keyrelay read its configuration and secrets anew.

    All of it takes effect, or nothing does and every finding is printed: exit 1. Prints what is
    different.
    """
    asked = _chosen(url)
    status, body = _ask(
        asked.url, "POST", "/api/reload", token=asked.token, seconds=_RELOAD_SECONDS
    )
    report = _document(asked, status, body, {200, 409})
    if as_json:
        click.echo(json.dumps(report, indent=2))
        if report["findings"]:
            sys.exit(1)
        return
    for warning in report.get("warnings", ()):
        click.echo(f"keyrelay: {warning}", err=True)
    if report["findings"]:
        kept = "the configuration was not taken; the old one goes on serving"
        raise KeyrelayError("\n".join([*report["findings"], kept]))
    click.echo("\n".join(report["changed"]) or "nothing is different")


def running_routes() -> dict[str, Any]:
    """The routes of every keyrelay of this user that has an admin listener, by name.

    For doctor: one that does not answer counts as one that does not run.
    """
    from proxy.admin.runtime_file import running

    routes: dict[str, Any] = {}
    for one in running():
        with contextlib.suppress(KeyrelayError):
            routes |= _status(one).get("routes", {})
    return routes


def _chosen(url: str | None) -> RuntimeFile:
    """The one that runs, or that of several which listens at ``url``. Raises KeyrelayError."""
    from proxy.admin.runtime_file import running

    found = running()
    if url is not None:
        # The address that was printed has the token behind it, which is to be repeated nowhere.
        place = url.partition("#")[0].rstrip("/")
        found = [one for one in found if one.url == place]
        if not found:
            raise KeyrelayError(f"no keyrelay of yours has an admin listener at {place}")
    if not found:
        raise KeyrelayError(
            "no keyrelay of yours runs with an admin listener; start it with: keyrelay run --admin"
        )
    if len(found) > 1:
        each = [f"  {one.url} (process {one.pid})" for one in found]
        raise KeyrelayError("\n".join(["several run; choose one with --url:", *each]))
    return found[0]


def _document(asked: RuntimeFile, status: int, body: bytes, wanted: set[int]) -> Any:
    """The JSON object of a response with one of these statuses. Raises KeyrelayError."""
    if status not in wanted:
        raise KeyrelayError(f"{asked.url} answered {status}")
    with contextlib.suppress(ValueError):
        if isinstance(document := json.loads(body), dict):
            return document
    raise KeyrelayError(f"{asked.url} answered what is no status of keyrelay")


def _ask(url: str, method: str, path: str, *, token: str = "", seconds: float) -> tuple[int, bytes]:
    """Status and body of the response. Raises KeyrelayError if there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with contextlib.closing(_connection(url, seconds)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise KeyrelayError(f"no answer from {url} ({_said(error)})") from None


def _said(error: Exception) -> str:
    """Why there was no response. The text of the error itself may come from the peer."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    return type(error).__name__


def _own_tls() -> ssl.SSLContext:
    """A context that trusts the local authority beside the system's. Raises OSError."""
    from proxy.secrets import local_authority

    context = ssl.create_default_context()
    if local_authority.exists():
        context.load_verify_locations(local_authority.certificate_file())
    return context


def _connection(url: str, seconds: float) -> http.client.HTTPConnection:
    """Not yet connected, unless to a unix socket. Raises OSError, ValueError, HTTPException."""
    if not url.startswith("unix:"):
        scheme, _, rest = url.rpartition("://")
        place = rest.partition("/")[0]
        if scheme == "https":
            return http.client.HTTPSConnection(place, timeout=seconds, context=_own_tls())
        return http.client.HTTPConnection(place, timeout=seconds)
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(seconds)
    try:
        connection.sock.connect(url.removeprefix("unix:"))
    except OSError:
        connection.close()
        raise
    return connection
