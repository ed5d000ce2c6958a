"""The command that runs another one without keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import CONFIG, DEBUGGABLE, choose, complete_routes


class _BeforeDashes(click.Command):
    """Takes what stands before ``--``; the rest is a command, word for word, in ``ctx.obj``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, dashes, command = args, False, list[str]()
        if "--" in args:
            position = args.index("--")
            own, dashes, command = args[:position], True, args[position + 1 :]
        rest = super().parse_args(ctx, own)
        if not command and not ctx.resilient_parsing:
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
  keyrelay exec -c routes.yaml -- npm run dev
""",
)
@click.argument(
    "providers",
    nargs=-1,
    metavar="[PROVIDER]... -- COMMAND [ARGUMENT]...",
    shell_complete=complete_routes,
)
@CONFIG
@click.option(
    "--log",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the access log to this file. Without it there is none.",
)
@DEBUGGABLE
@click.pass_obj
def execute(
    command: list[str],
    providers: tuple[str, ...],
    config: Path | None,
    log: Path | None,
    debuggable: bool,
) -> None:
    """Run a command that is given addresses instead of keys.

    Starts keyrelay on a free port, sets the variables from which the providers' SDKs read their
    base URL, takes away those that hold the keys, and ends with COMMAND, with its exit code.
    KEYRELAY_URL is the address at which every route answers by its prefix.

    Providers that are named have to be ready; without names, all routes of the file are served.
    """
    from ..child import run

    code = run(
        choose(config, providers),
        command,
        lambda line: click.echo(line, err=True),
        demanded=providers,
        log=log,
        debuggable=debuggable,
    )
    sys.exit(code)
