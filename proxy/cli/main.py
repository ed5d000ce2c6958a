"""The command line.

Exit codes: 0 done, 1 failed, 2 usage or configuration. An error is one line.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import click

from proxy import __version__
from proxy.errors import ConfigError, KeyrelayError

# The module below ``proxy.cli`` of each command, and the command's name there.
_COMMANDS = {
    "run": ("run", "run"),
    "demo": ("run", "demo"),
    "exec": ("exec", "execute"),
    "check": ("config", "check"),
    "explain": ("explain", "explain"),
    "doctor": ("doctor", "doctor"),
    "providers": ("config", "providers"),
    "init": ("config", "init"),
    "schema": ("config", "schema"),
    "ca": ("ca", "ca"),
    "keygen": ("seal", "keygen"),
    "seal": ("seal", "seal"),
    "reseal": ("seal", "reseal"),
    "status": ("admin", "status"),
    "reload": ("admin", "reload"),
    "health": ("admin", "health"),
    "completion": ("completion", "completion"),
    "help": ("help", "show_help"),
}


class _ImportedOnUse(MutableMapping[str, click.Command]):
    """The commands by name. The module of each is imported when the command is first used."""

    def __init__(self, places: dict[str, tuple[str, str]]) -> None:
        self._places = places
        self._imported: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._imported:
            module, attribute = self._places[name]
            self._imported[name] = getattr(
                importlib.import_module(f"proxy.cli.{module}"), attribute
            )
        return self._imported[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name] = ("", "")
        self._imported[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._imported.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


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
    commands=_ImportedOnUse(_COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  keyrelay demo                     try it without any key
  HUME_API_KEY=… keyrelay run hume  one provider, no configuration
  keyrelay init hume && keyrelay run
  keyrelay explain GET /hume/v0/evi/configs
""",
)
@click.version_option(__version__, prog_name="keyrelay")
def main() -> None:
    """An authenticating reverse proxy: it holds the API keys, client code holds none."""
