"""The command that finds out which part of a route does not work."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import (
    CONFIG,
    DEBUGGABLE,
    EGRESS_PROXY,
    ENV_FILE,
    choose,
    complete_routes,
    routes_file,
    split_file,
)
from proxy.config import loader
from proxy.config.egress import EgressProxySettings

if TYPE_CHECKING:
    from proxy.diagnostics.diagnosis import Mark
    from proxy.diagnostics.route_check import Result

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command(
    short_help="Find out which part of a route does not work.",
    epilog="""\b
Examples:
  keyrelay doctor
  keyrelay doctor hume inworld
  keyrelay doctor routes.yaml
""",
)
@click.argument("routes", nargs=-1, metavar="[FILE] [ROUTE]...", shell_complete=complete_routes)
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON, once all checks have run.")
@ENV_FILE
@EGRESS_PROXY
@DEBUGGABLE
def doctor(
    routes: tuple[str, ...],
    config: Path | None,
    as_json: bool,
    egress_proxy: EgressProxySettings | None,
    debuggable: bool,
) -> None:
    """Find out whether routes work, and if not, which part of them does not.

    Reads each route's secrets, resolves its provider's name, connects, checks certificate and
    clock, obtains the token if there is one, and makes one cheap call with the real credential.
    A refresh token without store: is not spent: its successor would be lost.
    Exit 1 if anything fails. Without names: every route; of those that ship with keyrelay, the
    ones without a secret are passed over.
    """
    import asyncio

    from proxy.cli.admin import running_routes
    from proxy.diagnostics.doctor import run_checks
    from proxy.process import hardening

    hardening.harden(debuggable=debuggable)
    config, routes = split_file(routes, config)
    file = routes_file(config)
    overrides = loader.Overrides(egress_proxy=egress_proxy)
    settings = choose(file.path, routes, overrides, found=file.found)
    results: list[Result] = []

    def report(result: Result) -> None:
        new = not results or results[-1].route != result.route
        results.append(result)
        if not as_json:
            click.echo(_shown(result, new=new))

    demanded = bool(routes) or file.path is not None
    missing: Mark = "fail" if demanded else "skip"
    asyncio.run(run_checks(settings, report, missing=missing, running=running_routes))
    failed = any(one.mark == "fail" for one in results)
    if as_json:
        document = {"failed": failed, "results": [asdict(one) for one in results]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    sys.exit(1 if failed else 0)


def _shown(result: Result, *, new: bool) -> str:
    """A line for the step, one more for what to do, and the route's name above its first."""
    lines = [result.route or "keyrelay"] if new else []
    mark = click.style(f"{result.mark:<4}", fg=_COLOURS[result.mark])
    lines.append(f"  {mark}  {result.what:<18}  {result.finding}")
    if result.advice:
        lines.append(f"{'':<28}{result.advice}")
    return "\n".join(lines)
