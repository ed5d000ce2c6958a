"""The command that runs another one without keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from proxy.cli.options import (
    CONFIG,
    DEBUGGABLE,
    EGRESS_PROXY,
    ENV_FILE,
    choose,
    complete_routes,
    load,
    routes_file,
    split_file,
)
from proxy.config import loader
from proxy.config.egress import EgressProxySettings
from proxy.config.files import read_text
from proxy.config.presets import presets, read_preset
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings


class _BeforeDashes(click.Command):
    """Parses what precedes ``--``; the rest is the command, unchanged, in ``ctx.obj``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, dashes, command = args, False, list[str]()
        if "--" in args:
            position = args.index("--")
            own, dashes, command = args[:position], True, args[position + 1 :]
        rest = super().parse_args(ctx, own)
        if not command and not ctx.resilient_parsing and not ctx.params.get("dry_run"):
            if dashes:
                raise click.UsageError("The command is missing behind --.", ctx)
            raise click.UsageError(
                "Write -- before the command: keyrelay exec hume -- python app.py", ctx
            )
        ctx.obj = command
        return rest


@click.command(
    "exec",
    cls=_BeforeDashes,
    epilog="""\b
Examples:
  keyrelay exec hume -- python app.py
  keyrelay exec routes.yaml -- npm run dev
  keyrelay exec hume --dry-run
""",
)
@click.argument(
    "providers",
    nargs=-1,
    metavar="[FILE] [PROVIDER]... -- COMMAND [ARGUMENT]...",
    shell_complete=complete_routes,
)
@CONFIG
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the access log to this file. Without it there is none.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print which variables would be set and removed, and run nothing.",
)
@click.option(
    "--intercept",
    is_flag=True,
    help="Be the command's HTTPS proxy too, for programs that have no setting for the address.",
)
@ENV_FILE
@EGRESS_PROXY
@DEBUGGABLE
@click.pass_obj
def execute(
    command: list[str],
    providers: tuple[str, ...],
    config: Path | None,
    log: Path | None,
    dry_run: bool,
    intercept: bool,
    egress_proxy: EgressProxySettings | None,
    debuggable: bool,
) -> None:
    """Run a command that is given addresses instead of keys.

    Starts keyrelay on a free port, sets the variables from which the providers' SDKs read their
    base URL, replaces those that hold the keys by placeholders, and ends with COMMAND, with its
    exit code. Replaced are the keys of every route of the file, whichever are named here.
    KEYRELAY_URL is the address that serves every route below its prefix.

    With --intercept calls to the providers' own addresses arrive at keyrelay as well: it is the
    command's HTTPS proxy, and ends TLS for the hosts of the routes by an authority that only this
    command is told to trust. Everything else passes through untouched.

    Providers that are named have to be ready; without names, all routes of the file are served.
    """
    from proxy.process.exec import key_variables, needed_variables, planned_changes, run

    overrides = loader.Overrides(egress_proxy=egress_proxy)
    config, providers = split_file(providers, config)
    file = routes_file(config)
    chosen = choose(file.path, providers, overrides, found=file.found)
    known = load(file.path, found=file.found)
    # A key stays one if its route was not named now, or has its key from elsewhere.
    hidden = key_variables(known, _presets(file.path, known))
    needed = needed_variables([*chosen.routes.values(), *_presets(file.path, chosen)])
    if dry_run:
        added, removed = planned_changes(chosen, os.environ, hidden, needed)
        click.echo("Variables that would be set:")
        for name, value in added.items():
            click.echo(f"  {name}={value}")
        if intercept:
            from proxy.process.interception import PROXY_VARIABLES, TRUST_VARIABLES

            for name in (*PROXY_VARIABLES, *TRUST_VARIABLES):
                value = "…" if name in TRUST_VARIABLES else "http://keyrelay:…@127.0.0.1:PORT"
                click.echo(f"  {name}={value}")
        click.echo("Variables that would be removed:" if removed else "None would be removed.")
        for name in removed:
            click.echo(f"  {name}")
        return
    code = run(
        chosen,
        command,
        lambda line: click.echo(line, err=True),
        demanded=providers,
        hidden=hidden,
        needed=needed,
        log=log,
        intercept=intercept,
        debuggable=debuggable,
    )
    sys.exit(code)


def _presets(config: Path | None, settings: Settings) -> Iterator[RouteSettings]:
    """Those on which the routes are built: what ships, and what the file's directories have.

    Raises ConfigError if one cannot be read.
    """
    used = {route.provider for route in settings.routes.values()}
    yield from (presets()[name] for name in presets() if name in used)
    for path in loader.files(config, settings):
        if path.suffix == ".yaml" and path != config and path.stem in used and path.is_file():
            yield read_preset(read_text(path), str(path)).settings
