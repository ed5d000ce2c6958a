"""Commands that serve until a signal ends them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import (
    CONFIG,
    DEBUGGABLE,
    EGRESS_PROXY,
    ENV_FILE,
    RoutesFile,
    checked,
    complete_providers,
    env_files,
    is_file,
    load,
    named_on_command_line,
    option_settings,
    routes_file,
    split_file,
    use_env_files,
)
from proxy.config import loader, scaffold
from proxy.config.egress import EgressProxySettings
from proxy.config.presets import presets
from proxy.config.settings import AdminSettings, Settings
from proxy.http.address import parse_browser_origin, parse_listen

if TYPE_CHECKING:
    from proxy.process.output import LogChoice


def _admin(
    _ctx: click.Context, _parameter: click.Parameter, value: str | None
) -> AdminSettings | None:
    """A click callback: the address as settings. A word after ``--admin`` counts as an address."""
    if value is not None and value in presets():
        raise click.BadParameter(
            f"{value} is a provider, not an address; put --admin last, or write --admin=ADDRESS"
        )
    return None if value is None else option_settings(AdminSettings, listen=value)


_LOG = click.option(
    "--log",
    type=click.Choice(["text", "json"]),
    help="Form of the access log on standard output. Without it: text on a terminal, else JSON.",
)


@click.command()
@click.argument(
    "providers", nargs=-1, metavar="[FILE] [PROVIDER]...", shell_complete=complete_providers
)
@CONFIG
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    callback=checked(parse_listen),
    help="Listen here instead: 127.0.0.1:8080, [::1]:8080, https://127.0.0.1:8443 or unix:/path. "
    "Can be repeated.",
)
@click.option(
    "--origin",
    multiple=True,
    metavar="URL",
    callback=checked(parse_browser_origin),
    help="A page of this origin may use the routes: http://localhost:5173. Can be repeated.",
)
@click.option(
    "--admin",
    is_flag=False,
    flag_value=AdminSettings().listen,
    metavar="[ADDR]",
    callback=_admin,
    help="Open the admin listener with the live inspector, at 127.0.0.1:8081 if no address is "
    "given.",
)
@click.option("--strict", is_flag=True, help="Refuse to start while a route lacks its secret.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes that serve, in place of the file's `workers`; 1 if it has none.",
)
@_LOG
@ENV_FILE
@EGRESS_PROXY
@click.option("--worker", type=click.IntRange(0), hidden=True)
@DEBUGGABLE
def run(
    providers: tuple[str, ...],
    config: Path | None,
    listen: tuple[str, ...],
    origin: tuple[str, ...],
    admin: AdminSettings | None,
    strict: bool,
    workers: int | None,
    egress_proxy: EgressProxySettings | None,
    worker: int | None,
    log: LogChoice | None,
    debuggable: bool,
) -> None:
    """Run the proxy.

    FILE is the same as --config FILE. With names of providers and no file, their presets and the
    environment are all it needs. With neither, ./routes.yaml or ./keyrelay.yaml is used, else the
    routes that ship. A route whose secret is missing does not stop the others: it responds 503 and
    names the variable.
    """
    from proxy.process.serve import Source, serve, serve_as_worker

    if worker is not None:
        serve_as_worker(worker, debuggable=debuggable, log=log)
        return
    if any(map(is_file, providers)):
        config, providers = split_file(providers, config)
        both = bool(providers)
    else:
        both = bool(providers) and named_on_command_line(config)
    if both:
        raise click.UsageError("Name providers or give a file, not both.")
    file = RoutesFile(None) if providers else routes_file(config)
    overrides = loader.Overrides(listen, origin, admin, workers, egress_proxy)

    variables = env_files()

    def read() -> Settings:
        use_env_files(variables)
        if providers:
            return loader.from_providers(providers, overrides)
        return load(file.path, overrides, found=file.found)

    def files(settings: Settings) -> Iterator[Path]:
        yield from variables
        yield from loader.files(file.path, settings)

    source = Source(read(), read, files, file.path)
    serve(source, strict=strict, debuggable=debuggable, log=log)


@click.command(short_help="Run with the built-in provider alone; needs no key.")
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    metavar="ADDR",
    callback=lambda ctx, parameter, value: checked(parse_listen)(ctx, parameter, (value,))[0],
    show_default=True,
    help="Listen here; port 0 takes a free one.",
)
@_LOG
@DEBUGGABLE
def demo(listen: str, log: LogChoice | None, debuggable: bool) -> None:
    """Run with the built-in provider alone, to try everything without a key."""
    from proxy.process.serve import Source, serve

    if parse_listen(listen).tls:
        raise click.UsageError("The demo's commands are for a listener without TLS.")
    admin = AdminSettings(listen=_free_admin_address(listen))
    settings = loader.from_providers(("demo",), loader.Overrides(listen=(listen,), admin=admin))
    source = Source(settings, lambda: settings, partial(loader.files, None))
    serve(source, greet=scaffold.demo_commands, debuggable=debuggable, log=log)


def _free_admin_address(listen: str) -> str:
    """Return the usual address of the admin listener, with port 0 if its port or ``listen``'s is
    not fixed or free: nobody has asked for this listener.
    """
    usual = parse_listen(AdminSettings().listen)
    if parse_listen(listen).port != 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((usual.host, usual.port))
                return str(usual)
    return f"{usual.host}:0"
