"""proxy.cli.explain."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import CONFIG, ENV_FILE, choose, load, routes_file
from proxy.config.presets import presets
from proxy.errors import Refusal
from proxy.http.abnf import AUTHORITY

if TYPE_CHECKING:
    from proxy.config.settings import Settings
    from proxy.diagnostics.explain import Explanation

# What a client writes: the rest, from the path on, goes out as it is; a fragment stays with it.
_URL = re.compile(
    rf"(?P<scheme>https?|wss?)://(?P<authority>{AUTHORITY})(?P<target>[^#]*)(?:#.*)?", re.IGNORECASE
)


@click.command(short_help="Show what would leave for a request, or why nothing would.")
@click.argument("method")
@click.argument("path")
@CONFIG
@ENV_FILE
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
    from proxy.diagnostics.explain import explain as explain_request

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
    found = explain_request(_settings(config, path), method, path, fields, websocket=websocket)
    click.echo(_explained_json(found) if as_json else _explained(found))
    if found.refusal is not None:
        sys.exit(1)


def _settings(config: Path | None, path: str) -> Settings:
    """As ``load``; unless a file is named, a path that begins with a preset's name gets its route.

    Raises ConfigError.
    """
    file = routes_file(config)
    settings = load(file.path, found=file.found)
    name = path[1:].partition("/")[0].partition("?")[0]
    if config is None and name not in settings.routes and name in presets():
        return choose(file.path, (name,), found=file.found)
    return settings


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
