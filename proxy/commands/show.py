"""Commands that show or write something, and dial no provider."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import starter
from ..errors import KeyrelayError, Refusal
from ..presets import presets
from ..wording import advise
from .options import CONFIG, complete_providers, load

if TYPE_CHECKING:
    from ..explain import Explanation

# What a client writes: the rest, from the path on, goes out as it is; a fragment stays with it.
_URL = re.compile(
    r"(?P<scheme>https?|wss?)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?", re.IGNORECASE
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@CONFIG
@click.option("--strict", is_flag=True, help="Exit 1 if a route lacks its secret.")
def check(file: Path | None, config: Path | None, strict: bool) -> None:
    """Check a routes file: exit 0, or 2 and every finding.

    FILE is the same as --config FILE.

    Secrets are read as at a start, and what is wrong with one is said, never its value. A machine
    that only checks need not have them: without --strict that is no failure.
    """
    from ..services import read_secrets

    if file is not None and config is not None:
        raise click.UsageError("Name one file, with -c or without.")
    config = file or config
    settings = load(config)
    count = len(settings.routes)
    name = config or "the shipped routes"
    click.echo(f"{name}: no findings, {count} route{'s' if count != 1 else ''}")
    lacking = False
    for route, found in read_secrets(settings).items():
        for secret, remedy in found.lacking.items():
            optional = settings.routes[route].secrets[secret].optional
            if not optional:
                lacking = True
                click.echo(f"{route}: not ready: {remedy}", err=True)
    if strict and lacking:
        sys.exit(1)


@click.command(short_help="Show what would leave for a request, or why nothing would.")
@click.argument("method")
@click.argument("path")
@CONFIG
@click.option("--websocket", is_flag=True, help="The request opens a WebSocket.")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Send this header field. Can be repeated.",
)
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
    from ..explain import explain as explain_request

    if method != method.upper():
        raise click.UsageError(f"Methods are written in capitals: {method.upper()}")
    fields = [_header(one) for one in headers]
    if (url := _URL.fullmatch(path)) is not None:
        if all(name.lower() != "host" for name, _ in fields):
            fields.insert(0, ("Host", url["authority"]))
        websocket = websocket or url["scheme"].lower() in {"ws", "wss"}
        target = url["target"]
        path = target if target.startswith("/") else f"/{target}"
    elif not path.startswith("/") and path != "*":  # that one is of OPTIONS
        raise click.UsageError(f"PATH has to begin with /, or with http://: /{path}")
    found = explain_request(load(config), method, path, fields, websocket=websocket)
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


@click.command()
@click.argument("name", required=False, shell_complete=complete_providers)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def providers(name: str | None, as_json: bool) -> None:
    """List the providers that keyrelay knows, or show one's preset."""
    known = presets()
    if name is not None:
        if name not in known:
            raise click.UsageError(f"There is no provider {name}; {advise(name, known)}")
        file = resources.files("proxy") / "providers" / f"{name}.yaml"
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


@click.command(short_help="Write a routes file to begin with.")
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
