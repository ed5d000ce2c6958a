"""The command line: what can be said to keyrelay, and how it answers.

Exit codes: 0 done, 1 failed, 2 usage or configuration. An error is one line for a person.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, loader, starter
from .errors import ConfigError, KeyrelayError, Refusal
from .origins import check_guarded, parse_browser_origin, parse_listen
from .presets import presets
from .settings import Browsers, Settings
from .wording import advise

if TYPE_CHECKING:
    from .explain import Explanation

# Commands that need aiohttp import it themselves. It takes longer to load than all the rest, and
# `health` is asked every few seconds by whoever supervises a container.

# What a client writes: the rest, from the path on, goes out as it is; a fragment stays with it.
_URL = re.compile(
    r"(?P<scheme>https?|wss?)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?", re.IGNORECASE
)

# Containers give a health check a few seconds.
_HEALTH_SECONDS = 3.0

CONFIG = click.option(
    "-c",
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Routes file. Without it: the routes that ship with keyrelay.",
)
DEBUGGABLE = click.option(
    "--debuggable",
    is_flag=True,
    help="Let debuggers attach and cores be dumped; both show the secrets in memory.",
)


class Commands(click.Group):
    """Says errors of ours in one line, with the exit code that fits."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal or a pipe that cannot show an arrow shows its number instead.
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for finding in error.findings:
                click.echo(str(finding), err=True)
            count = len(error.findings)
            click.echo(f"keyrelay: {count} finding{'s' if count != 1 else ''}", err=True)
            ctx.exit(2)
        except KeyrelayError as error:
            click.echo(f"keyrelay: {error}", err=True)
            ctx.exit(1)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  keyrelay demo                     try it without any key
  HUME_API_KEY=… keyrelay run hume  one provider, no configuration
  keyrelay init && keyrelay run -c routes.yaml
  keyrelay explain GET /hume/v0/evi/configs
""",
)
@click.version_option(__version__, prog_name="keyrelay")
def main() -> None:
    """An authenticating reverse proxy: it holds the API keys, client code holds none."""


def _guarded(settings: Settings) -> Settings:
    """The settings, if nobody can come in from elsewhere without a token. Raises BadParameter."""
    if settings.inbound_token is None:
        for address in settings.listen:
            try:
                check_guarded(address)
            except ValueError as error:
                message = ": ".join(str(error).splitlines())
                raise click.BadParameter(message, param_hint="--listen") from None
    return settings


def _checked(parse: Callable[[str], object]) -> Callable[[Any, Any, Any], Any]:
    """A click callback that lets ``parse`` judge each value."""

    def check(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
        for value in values:
            try:
                parse(value)
            except ValueError as error:
                raise click.BadParameter(": ".join(str(error).splitlines())) from None
        return values

    return check


@main.command()
@click.argument("providers", nargs=-1, metavar="[PROVIDER]...")
@CONFIG
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    callback=_checked(parse_listen),
    help="Listen here instead: 127.0.0.1:8080, [::1]:8080 or unix:/path. Can be repeated.",
)
@click.option(
    "--origin",
    multiple=True,
    metavar="URL",
    callback=_checked(parse_browser_origin),
    help="A page of this origin may use the routes: http://localhost:5173. Can be repeated.",
)
@click.option("--strict", is_flag=True, help="Refuse to start while a route lacks its secret.")
@DEBUGGABLE
def run(
    providers: tuple[str, ...],
    config: Path | None,
    listen: tuple[str, ...],
    origin: tuple[str, ...],
    strict: bool,
    debuggable: bool,
) -> None:
    """Run the proxy.

    With names of providers and no file, their presets and the environment are all it needs. A
    route whose secret is missing does not stop the others: it answers 503 and says what to set.
    """
    from .serving import serve

    if providers and config:
        raise click.UsageError("Name providers or give a file, not both.")
    settings = loader.from_providers(providers) if providers else _load(config)
    if listen:
        settings = _guarded(settings.model_copy(update={"listen": listen}))
    if origin:
        origins = (*settings.browsers.origins, *origin)
        settings = settings.model_copy(update={"browsers": Browsers(origins=origins)})
    serve(settings, strict=strict, debuggable=debuggable)


@main.command()
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    metavar="ADDR",
    callback=lambda ctx, parameter, value: _checked(parse_listen)(ctx, parameter, (value,))[0],
    show_default=True,
    help="Listen here; port 0 takes a free one.",
)
@DEBUGGABLE
def demo(listen: str, debuggable: bool) -> None:
    """Run with the built-in provider alone, to try everything without a key."""
    from .serving import serve

    settings = loader.from_providers(("demo",)).model_copy(update={"listen": (listen,)})
    serve(_guarded(settings), greet=starter.demo_commands, debuggable=debuggable)


@main.command()
@CONFIG
def check(config: Path | None) -> None:
    """Check a routes file: exit 0, or 2 and every finding."""
    settings = _load(config)
    count = len(settings.routes)
    name = config or "the shipped routes"
    click.echo(f"{name}: no findings, {count} route{'s' if count != 1 else ''}")


@main.command()
@click.argument("method")
@click.argument("path")
@CONFIG
@click.option("--websocket", is_flag=True, help="The request opens a WebSocket.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Add one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    method: str,
    path: str,
    config: Path | None,
    websocket: bool,
    headers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what would leave for a request, and why, or why it would be refused.

    PATH is what a client asks keyrelay for, such as /hume/v0/evi/configs, or a whole URL. Runs the
    server's own code and sends nothing; secrets are shown by their names. Exit 1 if refused.
    """
    from .explain import explain as explain_request

    fields = [_header(one) for one in headers]
    if (url := _URL.fullmatch(path)) is not None:
        if all(name.lower() != "host" for name, _ in fields):
            fields.insert(0, ("Host", url["authority"]))
        websocket = websocket or url["scheme"].lower() in {"ws", "wss"}
        target = url["target"]
        path = target if target.startswith("/") else f"/{target}"
    found = explain_request(_load(config), method, path, fields, websocket=websocket)
    click.echo(_explained_json(found) if as_json else _explained(found))
    if found.refusal is not None:
        sys.exit(1)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.isascii() or name != name.strip() or not name:
        raise click.BadParameter(f"{text!r} is not 'Name: value'", param_hint="--header")
    return name, value.strip()


def _explained(found: Explanation) -> str:
    lines = [f"{what + ':':<10} {finding}" for what, finding in found.steps]
    if found.refusal is not None:
        refusal = found.refusal
        lines.append(f"{'refused:':<10} {refusal.status} {refusal.kind}. {refusal.detail}")
        if refusal.advice:
            lines.append(f"{'':<10} {refusal.advice}")
    if found.request is not None:
        lines += ["", found.request.replace("\r\n", "\n").rstrip("\n")]
    return "\n".join(lines)


def _explained_json(found: Explanation) -> str:
    refusal: Refusal | None = found.refusal
    return json.dumps(
        {
            "steps": [{"what": what, "finding": finding} for what, finding in found.steps],
            "request": found.request,
            "refused": None
            if refusal is None
            else {
                "status": refusal.status,
                "kind": refusal.kind,
                "detail": refusal.detail,
                "advice": refusal.advice,
            },
        },
        indent=2,
        ensure_ascii=False,
    )


@main.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def providers(name: str | None, as_json: bool) -> None:
    """List the providers that keyrelay knows, or show one's preset."""
    known = presets()
    if name is not None:
        if name not in known:
            raise click.UsageError(f"There is no provider {name}; {advise(name, known)}")
        file = resources.files(__package__) / "providers" / f"{name}.yaml"
        click.echo(file.read_text(encoding="utf-8").rstrip("\n"))
        return
    rows = [
        {
            "name": one,
            "title": preset.title or "",
            "secrets": [ref for secret in preset.secrets.values() for ref in secret.references],
            "docs": preset.docs or "",
        }
        for one, preset in sorted(known.items())
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(len(str(row["name"])) for row in rows)
    titles = max(len(str(row["title"])) for row in rows)
    for row in rows:
        secrets = ", ".join(map(str, row["secrets"]))
        click.echo(f"{row['name']:<{width}}  {row['title']:<{titles}}  {secrets}")


@main.command()
@click.argument(
    "file", type=click.Path(path_type=Path, dir_okay=False), default=Path("routes.yaml")
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(file: Path, force: bool) -> None:
    """Write a commented routes file for the providers whose variables are set.

    FILE is routes.yaml if not given.
    """
    text, found = starter.routes_file(os.environ)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise KeyrelayError(f"{file} exists; use --force to overwrite it") from None
    except OSError as error:
        raise KeyrelayError(f"cannot write {file}: {error.strerror}") from None
    click.echo(f"Wrote {file} with {', '.join(found)}.")
    click.echo(f"Next: keyrelay run -c {file}")


@main.command()
@click.argument("url", default="http://127.0.0.1:8080")
def health(url: str) -> None:
    """Ask a running keyrelay whether it serves: exit 0 if so, 1 if not.

    URL is where it listens, http://127.0.0.1:8080 if not given, or unix:/path.
    """
    try:
        with contextlib.closing(_connection(url)) as connection:
            connection.request("GET", "/-/health")
            status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise KeyrelayError(f"no answer from {url} ({type(error).__name__})") from None
    if status != 200:
        raise KeyrelayError(f"{url} answered {status}")
    click.echo("ok")


def _connection(url: str) -> http.client.HTTPConnection:
    """Not yet connected, unless to a unix socket. Raises OSError, ValueError, HTTPException."""
    if not url.startswith("unix:"):
        place = url.removeprefix("http://").partition("/")[0]
        return http.client.HTTPConnection(place, timeout=_HEALTH_SECONDS)
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_HEALTH_SECONDS)
    try:
        connection.sock.connect(url.removeprefix("unix:"))
    except OSError:
        connection.close()
        raise
    return connection


def _load(config: Path | None) -> Settings:
    if config is None:
        return loader.load(starter.shipped_routes(), ours=True)
    return loader.load(config)
