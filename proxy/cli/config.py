"""Commands that show or write something, and dial no provider."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import (
    CONFIG,
    ENV_FILE,
    choose,
    complete_providers,
    complete_routes,
    is_file,
    routes_file,
    split_file,
)
from proxy.config import loader, scaffold
from proxy.config.clients import snippets
from proxy.config.document import display_key
from proxy.config.found_file import NAMES
from proxy.config.presets import presets
from proxy.config.unknown_keys import suggest
from proxy.errors import KeyrelayError

if TYPE_CHECKING:
    from proxy.config.token_sharing import TokenSharing


@click.command()
@click.argument("names", metavar="[FILE] [ROUTE]...", nargs=-1, shell_complete=complete_routes)
@CONFIG
@ENV_FILE
@click.option("--strict", is_flag=True, help="Exit 1 if a route lacks its secret.")
def check(names: tuple[str, ...], config: Path | None, strict: bool) -> None:
    """Check a routes file: exit 0, or 2 and every finding.

    FILE is the same as --config FILE; a file with the name of a preset is written as ./NAME. Names
    of routes restrict the check of secrets to these; unless a file is named, presets can be as
    well.

    Secrets are read as at a start; a fault of one is reported, never its value. A machine
    that only checks need not have them: without --strict that is no failure.
    """
    from proxy.config.server_certificate import has_tls, read_key_pair
    from proxy.config.validation import unshared_refresh_tokens
    from proxy.routing.builder import needs
    from proxy.routing.route_secrets import read_secrets
    from proxy.routing.secret_remarks import secret_remarks

    if len(names) == 1 and _is_other_file(names[0]):
        names = (f"./{names[0]}",)
    config, names = split_file(names, config)
    file = routes_file(config)
    settings = choose(file.path, names, found=file.found)
    count = len(settings.routes)
    name = config or ", ".join(names) or file.path or "the shipped routes"
    click.echo(f"{name}: no findings, {count} route{'s' if count != 1 else ''}")
    lacking = False
    for route, found in read_secrets(settings).items():
        for secret, remedy in found.lacking.items():
            if needs(settings.routes[route], secret):
                lacking = True
                click.echo(f"{route}: not ready: {remedy}", err=True)
        for remark in secret_remarks(settings.routes[route], found):
            click.echo(f"{route}: {remark}", err=True)
    if has_tls(settings):
        try:
            read_key_pair(settings, time.time())
        except KeyrelayError as error:
            lacking = True
            click.echo(f"tls: {error}", err=True)
    if settings.tokens is None:
        for line in unshared_refresh_tokens(settings.routes):
            click.echo(line, err=True)
    else:
        lacking = not _can_share(settings.tokens) or lacking
    if strict and lacking:
        sys.exit(1)


def _can_share(tokens: TokenSharing) -> bool:
    """Show how tokens are shared. Whether all that it takes is here."""
    from importlib.util import find_spec

    from proxy.errors import SecretUnavailable
    from proxy.secrets.resolver import resolve

    click.echo(f"tokens: shared through {tokens.address}; without it: {tokens.when_down}")
    lacking = []
    for name, secret in (("tokens.password", tokens.password), ("tokens.key", tokens.key)):
        if secret is not None:
            try:
                resolve(name, secret)
            except SecretUnavailable as error:
                lacking.append(error.remedy)
    if find_spec("redis") is None:
        lacking.append("install the package redis: pip install --editable '.[redis]'")
    for remedy in lacking:
        click.echo(f"tokens: not ready: {remedy}", err=True)
    return not lacking


def _is_other_file(text: str) -> bool:
    """Whether a word without the form of a file's name is a file here, and no preset."""
    return not is_file(text) and text not in presets() and Path(text).is_file()


@click.command()
@click.argument("name", required=False, shell_complete=complete_providers)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def providers(name: str | None, as_json: bool) -> None:
    """List the providers with a preset, or show one preset.

    HERE is "set" if the environment has the variables that a provider needs.

    Behind the preset, in comments, stands what to write with the packages that were tried.
    """
    known = presets()
    if name is not None:
        if name not in known:
            raise click.UsageError(f"There is no provider {name}; {suggest(name, known)}")
        if as_json:
            written = [{"title": one.title, "program": one.program} for one in snippets(name)]
            preset = known[name].model_dump(mode="json", by_alias=True, exclude_unset=True)
            document = {"name": name, "preset": preset, "clients": written}
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
            return
        file = resources.files("proxy") / "providers" / f"{name}.yaml"
        click.echo(file.read_text(encoding="utf-8").rstrip("\n"))
        for snippet in snippets(name):
            click.echo(f"\n{_comment(snippet.title)}\n#\n{_comment(snippet.program)}")
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
    table = [("PROVIDER", "TITLE", "HERE", "VARIABLES")]
    for one, shown in sorted(known.items()):
        here = "set" if scaffold.is_configured(shown, os.environ) else "-"
        table.append((one, shown.title or "", here, scaffold.alternatives(shown) or "none"))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo(line.rstrip())
    click.echo("\nOne of them, and what to write: keyrelay providers NAME")


def _comment(text: str) -> str:
    """As comments of YAML, so that the output remains a preset."""
    return "\n".join(f"#   {line}".rstrip() for line in text.splitlines())


@click.command(
    short_help="Write a routes file to begin with.",
    epilog="""\b
Examples:
  keyrelay init                     for the variables that are set
  keyrelay init hume openai         for these providers
  keyrelay init dev.yaml hume
""",
)
@click.argument(
    "names", metavar="[FILE] [PROVIDER]...", nargs=-1, shell_complete=complete_providers
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(names: tuple[str, ...], force: bool) -> None:
    """Write a commented routes file for the named providers.

    Without names: for those whose variables are set. FILE is routes.yaml if not given; a name
    without .yaml and without / is a provider. The first line lets editors check the file as it is
    written (yaml-language-server).
    """
    named, providers = split_file(names, None)
    for name in providers:
        if name not in presets():
            raise click.UsageError(
                f"There is no provider {display_key(name)}; {suggest(name, presets())}"
            )
    file = named or Path("routes.yaml")
    text, found = scaffold.routes_file(os.environ, providers)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise KeyrelayError(f"{file} exists; use --force to overwrite it") from None
    except OSError as error:
        raise KeyrelayError(f"cannot write {file}: {error.strerror}") from None
    click.echo(f"Wrote {file} with {', '.join(found)}.")
    waiting = [name for name in providers if name not in found]
    if waiting:
        click.echo(f"To be completed in the file, with upstream: {', '.join(waiting)}.")
    # Found by its name in this directory.
    click.echo("Next: keyrelay run" if str(file) in NAMES else f"Next: keyrelay run {file}")


@click.command(short_help="Print the JSON Schema of routes files.")
def schema() -> None:
    """Print the JSON Schema of routes files, for editors and other programs.

    An editor with yaml-language-server uses it if the file begins with
    `# yaml-language-server: $schema=PATH`, as those that init writes do.
    """
    click.echo(json.dumps(loader.schema(), indent=2, ensure_ascii=False))
