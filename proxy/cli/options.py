"""Options that several commands have, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import ValidationError

from proxy.config import loader, scaffold
from proxy.config.document import display_key
from proxy.config.egress import EgressProxySettings
from proxy.config.fields import Node
from proxy.config.found_file import check_found, find_routes_file
from proxy.config.presets import presets
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.unknown_keys import suggest
from proxy.errors import KeyrelayError
from proxy.secrets.env import use_variables

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_ENV_FILES = "keyrelay.env_files"
_FILE_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_N = TypeVar("_N", bound=Node)

CONFIG = click.option(
    "-c",
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="KEYRELAY_CONFIG",
    help="Routes file. Without it: $KEYRELAY_CONFIG, else ./routes.yaml or ./keyrelay.yaml, else "
    "the routes that ship with keyrelay.",
)
ENV_FILE = click.option(
    "--env-file",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    expose_value=False,
    callback=lambda ctx, _parameter, paths: _take_env_files(ctx, paths),
    help="Read variables for `env:` from this file, NAME=value; the environment's come first. Can "
    "be repeated.",
)
EGRESS_PROXY = click.option(
    "--egress-proxy",
    "egress_proxy",
    metavar="URL",
    callback=lambda _ctx, _parameter, value: _egress_proxy(value),
    help="Reach providers through this HTTP proxy, in place of the file's `egress_proxy`: "
    "http://HOST:PORT, env:HTTPS_PROXY or file:/path.",
)
DEBUGGABLE = click.option(
    "--debuggable",
    is_flag=True,
    help="Let debuggers attach and cores be dumped; both show the secrets in memory.",
)


def _take_env_files(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Read the files of ``--env-file``. Raises ConfigError."""
    ctx.meta[_ENV_FILES] = paths
    use_env_files(paths)


def env_files() -> tuple[Path, ...]:
    """The files of ``--env-file`` of the current command."""
    files: tuple[Path, ...] = click.get_current_context().meta.get(_ENV_FILES, ())
    return files


def use_env_files(paths: tuple[Path, ...]) -> None:
    """Read files of variables anew, in place of what was read before. Raises ConfigError."""
    if paths:
        from proxy.secrets.env_file import read_env_files

        use_variables(read_env_files(paths))


def option_settings(model: type[_N], **values: str) -> _N:
    """Return the values of an option as settings. Raises BadParameter."""
    try:
        return model(**values)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.BadParameter(one_line(message)) from None


def _egress_proxy(text: str | None) -> EgressProxySettings | None:
    return None if text is None else option_settings(EgressProxySettings, url=text)


def named_on_command_line(config: Path | None) -> bool:
    """Whether ``--config`` was written out, and does not come from ``$KEYRELAY_CONFIG``."""
    source = click.get_current_context().get_parameter_source("config")
    return config is not None and source is click.core.ParameterSource.COMMANDLINE


def checked(parse: Callable[[str], object]) -> Callable[[Any, Any, Any], Any]:
    """A click callback that lets ``parse`` judge each value."""

    def check(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Any:
        for value in values:
            try:
                parse(value)
            except ValueError as error:
                raise click.BadParameter(one_line(str(error))) from None
        return values

    return check


def one_line(message: str) -> str:
    """Fault and remedy, two lines in a check's message, in one line."""
    return ": ".join(message.splitlines())


@dataclass(frozen=True, slots=True)
class RoutesFile:
    """The routes file of a command.

    path   None for the routes that ship
    found  whether it was found in the working directory, and no option or variable names it
    """

    path: Path | None
    found: bool = False


def routes_file(config: Path | None) -> RoutesFile:
    """The file of ``--config``, or that of the working directory. Raises ConfigError."""
    if config is not None:
        return RoutesFile(config)
    path = find_routes_file(Path())
    return RoutesFile(path, found=path is not None)


def split_file(names: tuple[str, ...], config: Path | None) -> tuple[Path | None, tuple[str, ...]]:
    """The file to use and the names, where the first of the names may be a file.

    Raises UsageError if a file is named twice, or behind another name.
    """
    if not any(map(is_file, names)):
        return config, names
    first, *others = names
    if not is_file(first) or any(map(is_file, others)):
        raise click.UsageError("Name one file, before the routes.")
    if named_on_command_line(config):
        raise click.UsageError("Name one file, with -c or without.")
    return Path(first), tuple(others)


def is_file(text: str) -> bool:
    """Whether an argument names a file: neither a route nor a preset has such a name."""
    path = Path(text)
    return len(path.parts) > 1 or text.startswith("./") or path.suffix in _FILE_SUFFIXES


def load(
    config: Path | None,
    overrides: loader.Overrides = loader.NO_OVERRIDES,
    *,
    found: bool = False,
) -> Settings:
    """Load the settings of ``--config``, or of the shipped routes. Raises ConfigError.

    found  as in ``RoutesFile``
    """
    if config is None:
        return loader.load(scaffold.shipped_routes(), ours=True, overrides=overrides)
    settings = loader.load(config, overrides=overrides)
    if found:
        # Options are the user's own: only what the file has is judged.
        check_found(config, settings if overrides == loader.NO_OVERRIDES else loader.load(config))
    return settings


def choose(
    config: Path | None,
    names: tuple[str, ...],
    overrides: loader.Overrides = loader.NO_OVERRIDES,
    *,
    found: bool = False,
) -> Settings:
    """As ``load``, but with the routes of these names alone; all of them if none is named.

    Unless a file is named, a provider without a route may be named as well. Raises ConfigError, or
    UsageError for a name that is neither.
    """
    settings = load(config, overrides, found=found)
    if not names:
        return settings
    known = settings.routes
    others = [name for name in names if name not in known]
    if others and config is not None and not found:
        advice = suggest(others[0], known)
        raise click.UsageError(f"There is no route {others[0]} in {config}; {advice}")
    for name in others:
        if name not in presets():
            advice = suggest(name, known, presets())
            raise click.UsageError(f"There is no route or provider {display_key(name)}; {advice}")
    more = loader.from_providers(others, overrides).routes if others else {}
    chosen = {name: known.get(name) or more[name] for name in names}
    return settings.model_copy(update={"routes": chosen})


def complete_providers(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of providers that begin so, for the shell."""
    return _completed(presets(), incomplete)


def complete_routes(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names that ``choose`` takes and that begin so, for the shell.

    None if the file cannot be used: completion has no place for an error.
    """
    try:
        file = routes_file(ctx.params.get("config"))
        routes = load(file.path, found=file.found).routes
    except KeyrelayError:
        return []
    named = file.path is not None and not file.found
    return _completed(routes if named else {**presets(), **routes}, incomplete)


def _completed(known: Mapping[str, RouteSettings], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=one.title)
        for name, one in sorted(known.items())
        if name.startswith(incomplete)
    ]
