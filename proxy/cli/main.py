"""The command line.

Exit codes: 0 done, 1 failed, 2 usage or configuration. An error is one line.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from proxy import __version__
from proxy.cli import (
    admin,
    completion,
    config,
    doctor,
    exec,  # noqa: A004  named as the command
    explain,
    run,
    seal,
)
from proxy.errors import ConfigError, KeyrelayError


class Commands(click.Group):
    """Prints errors of keyrelay in one line, with the matching exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal or a pipe that cannot show an arrow shows its number instead.
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            if "SSLKEYLOGFILE" in os.environ:
                _refuse_key_log()
            return super().invoke(ctx)
        except ConfigError as error:
            for finding in error.findings:
                click.echo(str(finding), err=True)
            count = len(error.findings)
            click.echo(f"keyrelay: {count} finding{'s' if count != 1 else ''}", err=True)
            ctx.exit(2)
        except KeyrelayError as error:
            for line in str(error).splitlines():
                click.echo(f"keyrelay: {line}", err=True)
            ctx.exit(1)


def _refuse_key_log() -> None:
    """Raise ConfigError before any command imports aiohttp, which would open that file.

    For every command, also for those that hold no key: they import it as well.
    """
    from proxy.process.hardening import check_surroundings

    check_surroundings()


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


for _command in (
    run.run,
    run.demo,
    exec.execute,
    config.check,
    explain.explain,
    doctor.doctor,
    config.providers,
    config.init,
    seal.keygen,
    seal.seal,
    seal.reseal,
    admin.status,
    admin.reload,
    admin.health,
    completion.completion,
):
    main.add_command(_command)
