"""Commands for sealed values: make keys, seal, seal anew."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import CONFIG, choose, load, one_line, routes_file
from proxy.config.unknown_keys import suggest
from proxy.errors import KeyrelayError
from proxy.secrets.envelope import seal_binding
from proxy.secrets.source import LIMIT_BYTES, SourceError, check, strip_line_end

if TYPE_CHECKING:
    from proxy.secrets.sealing import Keys

# cryptography is imported in the functions: it takes long to load.

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog="""\b
Examples:
  keyrelay keygen                   make the first key
  keyrelay keygen --public          print what others need to seal for you
  keyrelay keygen --add && keyrelay reseal routes.yaml
"""
)
@click.option(
    "--file",
    type=_FILE,
    metavar="PATH",
    help="File of keys. Without it: $KEYRELAY_KEYS, else ~/.config/keyrelay/keys.",
)
@click.option("--add", is_flag=True, help="Add a key to the file; it becomes the one to seal with.")
@click.option("--public", is_flag=True, help="Make nothing; print the public parts that are there.")
def keygen(file: Path | None, add: bool, public: bool) -> None:
    """Make a key for sealed values.

    Prints its id and its public part, which suffices to seal. The private part goes to a file that
    only you can read; it and the routes file together give the secrets. Keep a copy: without it
    nothing opens. An existing file is never overwritten.
    """
    from proxy.secrets import keyfile as keys
    from proxy.secrets.sealing import SealingKey

    if public:
        if add:
            raise click.UsageError("Add a key or print the public parts, not both.")
        for one in _own_keys(file).keys:
            click.echo(f"{one.key_id} {one.public}")
        return
    path = file or keys.default_file()
    key = SealingKey.generate(datetime.datetime.now(datetime.UTC).date())
    new = _is_absent(path.parent)
    if add:
        _own_keys(path)
    (keys.add_key if add else keys.write_key)(path, key)
    click.echo(f"{key.key_id} {key.public}")
    if new:
        click.echo(f"Made the directory {path.parent}, for you alone.", err=True)
    click.echo(f"The private part is in {path}; keep a copy.", err=True)


@click.command(
    short_help="Seal a value for one secret of one route.",
    epilog="""\b
Examples:
  keyrelay seal hume api_key -c routes.yaml        asks for the value
  op read op://dev/hume/key | keyrelay seal hume api_key -c routes.yaml
  keyrelay seal hume api_key --to keyrelay-public-…
""",
)
@click.argument("route")
@click.argument("secret")
@CONFIG
@click.option(
    "--to",
    metavar="PUBLICKEY",
    help="Seal with this public part. Without it: with the newest key of yours.",
)
def seal(route: str, secret: str, config: Path | None, to: str | None) -> None:
    """Seal a value for the SECRET of a ROUTE, and print the reference to paste.

    The value comes from stdin, without the line break at its end, or is asked for; never write it
    into the command, which others can see. It will open for this secret of this route alone, and
    only while the route leads to the host that it leads to now.
    """
    from proxy.secrets.sealing import PublicKey

    file = routes_file(config)
    settings = choose(file.path, (route,), found=file.found)
    upstream, secrets = settings.routes[route].upstream, settings.routes[route].secrets
    assert upstream is not None, "the loader lets no route without upstream pass"
    if secret not in secrets:
        raise click.UsageError(
            f"The route {route} has no secret {secret}; {suggest(secret, secrets)}"
        )
    try:
        public = PublicKey.parse(to) if to is not None else _own_keys().newest.public
    except ValueError as error:
        raise click.BadParameter(one_line(str(error)), param_hint="--to") from None
    value = _value(f"Value of {secret} for {route}")
    try:
        check(value, "the value", multiline=secrets[secret].multiline)
    except SourceError as error:
        raise KeyrelayError(str(error)) from None
    click.echo(str(public.seal(value, seal_binding(route, upstream), secret)))
    click.echo(f"Paste it as the secret {secret} of the route {route}.", err=True)


def _value(question: str) -> bytes:
    if sys.stdin.isatty():
        return str(click.prompt(question, hide_input=True, err=True)).encode()
    # One byte more than a line end beyond the limit: enough to detect a value that is too long.
    return strip_line_end(sys.stdin.buffer.read(LIMIT_BYTES + 3))


@click.command(
    short_help="Seal all sealed values of a routes file anew.",
    epilog="""\b
Example, to change the key:
  keyrelay keygen --add
  keyrelay reseal routes.yaml
  then remove the old key's line from the file of keys
""",
)
@click.argument("file", type=_FILE)
@click.option("--to", metavar="KEYID", help="Seal with this key of yours. Without it: the newest.")
def reseal(file: Path, to: str | None) -> None:
    """Seal all sealed values of a routes FILE anew, with another key.

    Comments and layout stay as they are. If one value does not open, all that do not are listed and
    nothing is changed.
    """
    from proxy.config.reseal import reseal as reseal_file

    load(file)  # findings in the file come first, with or without keys
    keys = _own_keys()
    known = {one.key_id: one for one in keys.keys}
    if to is not None and to not in known:
        raise click.BadParameter(f"there is no key {to}; {suggest(to, known)}", param_hint="--to")
    key = keys.newest if to is None else known[to]
    done = reseal_file(file, keys, key.public)
    if not done.changed and not done.kept:
        click.echo(f"Nothing in {file} is sealed.")
        return
    values = f"{done.changed} value{'s' if done.changed != 1 else ''}"
    click.echo(f"Sealed {values} of {file} anew with the key {key.key_id}.")
    if done.kept:
        click.echo(f"{done.kept} had that key already.")


def _own_keys(file: Path | None = None) -> Keys:
    """The keys of ``file``, or of where they usually are. Raises KeyrelayError.

    Where none exists yet, the error names the command that makes one.
    """
    from proxy.secrets import keyfile as keys
    from proxy.secrets.sealing import UnsealError

    path = file or keys.key_file()
    try:
        return keys.read_keys(path)
    except UnsealError as error:
        if path is None:  # it was the keyring, which may be locked and have one all the same
            raise KeyrelayError(
                f"make a key with: keyrelay keygen, unless you have one ({error})"
            ) from None
        if not _is_absent(path):
            raise
        command = "keyrelay keygen" if file is None else f"keyrelay keygen --file {file}"
        raise KeyrelayError(
            f"make a key with: {command} (no keys for sealed values: there is no {path})"
        ) from None


def _is_absent(path: Path) -> bool:
    """Whether nothing is there; a path that cannot be examined does not count as absent."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
