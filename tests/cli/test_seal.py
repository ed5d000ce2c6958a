from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.cli.seal import keygen, reseal, seal
from proxy.secrets.envelope import parse_envelope, seal_binding
from proxy.secrets.keyfile import read_keys
from tests.support.command import CANARY, COMMAND, Done, environment
from tests.support.command import run as run_command

ROUTES = "routes:\n  hume:\n    provider: hume\n    secrets: {api_key: env:HUME_API_KEY}  # ours\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a routes file, which is also the user's home."""
    (tmp_path / "routes.yaml").write_text(ROUTES)
    return tmp_path


def run(*arguments: str, folder: Path, stdin: bytes = b"") -> Done:
    """A command as people run it, with stdin from a pipe."""
    variables = environment(HOME=str(folder), PYTHON_KEYRING_BACKEND=NO_KEYRING)
    for name in ("KEYRELAY_KEYS", "CREDENTIALS_DIRECTORY", "XDG_CONFIG_HOME"):
        variables.pop(name, None)
    result = run_command(*arguments, folder=folder, variables=variables, stdin=stdin)
    assert "keyrelay-private" not in result.out + result.err
    return result


NO_KEYRING = "keyring.backends.fail.Keyring"
PLACE = seal_binding("hume", "https://api.hume.ai")


def sealed(folder: Path, stdin: bytes = CANARY.encode(), *more: str) -> Done:
    return run("seal", "hume", "api_key", "-c", "routes.yaml", *more, folder=folder, stdin=stdin)


def opened(folder: Path, reference: str) -> bytes:
    held = read_keys(folder / ".config" / "keyrelay" / "keys")
    return held.open(parse_envelope(reference.strip()), PLACE, "api_key")


def test_from_a_key_to_a_route_and_to_the_next_key(folder: Path) -> None:
    """The walk of docs/secrets.md: keygen, seal, paste, another key, reseal; each ends well."""
    made = run("keygen", folder=folder)
    assert made.code == 0
    assert re.fullmatch(r"[0-9a-f]{8} keyrelay-public-[\w-]{43}\n", made.out)
    path = folder / ".config" / "keyrelay" / "keys"
    assert str(path) in made.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = sealed(folder, CANARY.encode() + b"\n")
    assert done.code == 0
    assert opened(folder, done.out) == CANARY.encode()
    text = ROUTES.replace("env:HUME_API_KEY", done.out.strip())
    (folder / "routes.yaml").write_text(text)
    assert run("check", "-c", "routes.yaml", folder=folder).code == 0
    added = run("keygen", "--add", folder=folder)
    assert added.code == 0
    changed = run("reseal", "routes.yaml", folder=folder)
    key_id = added.out.split()[0]
    assert changed.out == f"Sealed 1 value of routes.yaml anew with the key {key_id}.\n"
    after = (folder / "routes.yaml").read_text()
    assert (f"sealed:v1:{key_id}:" in after, after.endswith("}  # ours\n")) == (True, True)
    again = run("reseal", "routes.yaml", folder=folder)
    assert "Sealed 0 values" in again.out
    assert "1 had that key already" in again.out
    back = run("reseal", "routes.yaml", "--to", made.out.split()[0], folder=folder)
    assert back.out.startswith("Sealed 1 value")
    listed = run("keygen", "--public", folder=folder)
    assert listed.out == made.out + added.out


def test_a_key_is_never_overwritten(folder: Path) -> None:
    """A lost key is lost with all that was sealed to it."""
    assert run("keygen", "--file", "mine", folder=folder).code == 0
    before = (folder / "mine").read_bytes()
    done = run("keygen", "--file", "mine", folder=folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == "keyrelay: mine exists; --add puts a new key beside the old ones\n"
    assert (folder / "mine").read_bytes() == before
    assert run("keygen", "--add", "--public", folder=folder).code == 2


def test_the_public_part_suffices(folder: Path) -> None:
    """Without a file of keys, values are sealed with a public key."""
    public = run("keygen", folder=folder).out.split()[1]
    path = folder / ".config" / "keyrelay" / "keys"
    hidden = path.rename(folder / "elsewhere")
    without = sealed(folder)
    assert without.code == 1
    assert "no keys for sealed values" in without.err
    assert "make a key with: keyrelay keygen" in without.err
    done = sealed(folder, CANARY.encode(), "--to", public)
    assert done.code == 0
    hidden.rename(path)
    assert opened(folder, done.out) == CANARY.encode()
    wrong = sealed(folder, CANARY.encode(), "--to", "dummy")
    assert wrong.code == 2
    assert "invalid public key" in wrong.err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (f"{CANARY}\nmore".encode(), "remove line breaks"),
        (f"{CANARY}\n\n".encode(), "remove line breaks"),
        (f" {CANARY}".encode(), "remove the spaces"),
        (CANARY.encode() * 5000, "larger than 64 KiB"),
    ],
)
def test_a_value_that_no_secret_can_be(folder: Path, value: bytes, words: str) -> None:
    """It is refused before it is sealed, not when a route first needs it."""
    run("keygen", folder=folder)
    done = sealed(folder, value)
    assert (done.code, done.out) == (1, "")
    assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("humm", "api_key"), 'There is no route humm in routes.yaml; did you mean "hume"?'),
        (("hume", "api_kee"), 'The route hume has no secret api_kee; did you mean "api_key"?'),
    ],
)
def test_a_route_or_secret_that_is_not_there(
    folder: Path, arguments: tuple[str, str], words: str
) -> None:
    """What was probably meant is said."""
    done = run("seal", *arguments, "-c", "routes.yaml", folder=folder)
    assert done.code == 2
    assert words in done.err


def test_a_value_typed_at_a_terminal_is_not_shown(folder: Path) -> None:
    """It is asked for, and does not appear on the screen."""
    run("keygen", folder=folder)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "seal", "hume", "api_key", "-c", "routes.yaml"],
        cwd=folder,
        env=environment(HOME=str(folder)),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"Value of api_key for hume" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, CANARY.encode() + b"\n")
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert CANARY.encode() not in shown
    assert opened(folder, out.decode()) == CANARY.encode()


def test_all_that_does_not_open_is_listed(folder: Path) -> None:
    """Each with its place; the file stays as it was."""
    run("keygen", folder=folder)
    value = sealed(folder).out.strip()
    text = f"routes:\n  a: {{provider: hume, secrets: {{api_key: {value}}}}}\n"
    text += text.partition("\n")[2].replace("  a:", "  b:")
    (folder / "routes.yaml").write_text(text)
    done = run("reseal", "routes.yaml", folder=folder)
    assert done.code == 2
    assert "routes.yaml:2:" in done.err
    assert "routes.yaml:3:" in done.err
    assert "keyrelay: 2 findings" in done.err
    assert (folder / "routes.yaml").read_text() == text
    unknown = run("reseal", "routes.yaml", "--to", "00000000", folder=folder)
    assert (unknown.code, "there is no key 00000000; " in unknown.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("seal", "hume", "api_key", "-c", "routes.yaml"),
        ("reseal", "routes.yaml"),
        ("keygen", "--public"),
    ],
)
def test_whoever_has_no_key_is_told_how_to_make_one(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    """Also where the keyring is looked into, as its package is installed and no file is there."""
    done = run(*arguments, folder=folder, stdin=CANARY.encode())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("keyrelay: make a key with: keyrelay keygen")


def test_a_file_that_was_named_is_made_where_it_was_named(folder: Path) -> None:
    """The advice repeats the file, and a directory that had to be made is told."""
    path = folder / "new" / "keys"
    for more in ("--public", "--add"):
        done = run("keygen", more, "--file", str(path), folder=folder)
        assert f"make a key with: keyrelay keygen --file {path} " in done.err
    made = f"Made the directory {path.parent}, for you alone.\n"
    assert made in run("keygen", "--file", str(path), folder=folder).err
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert made not in run("keygen", "--add", "--file", str(path), folder=folder).err
    path.write_text("dummy")
    broken = run("keygen", "--public", "--file", str(path), folder=folder)
    assert (broken.code, "line 1 of" in broken.err) == (1, True)


def test_a_file_in_which_nothing_is_sealed(folder: Path) -> None:
    """It is told, and the file is left alone."""
    run("keygen", folder=folder)
    done = run("reseal", "routes.yaml", folder=folder)
    assert done == Done(0, "Nothing in routes.yaml is sealed.\n", "")
    assert (folder / "routes.yaml").read_text() == ROUTES


@pytest.mark.parametrize("command", [keygen, seal, reseal])
def test_help_has_examples(command: click.Command) -> None:
    """The help has a line to paste."""
    assert f"keyrelay {command.name} " in CliRunner().invoke(command, ["--help"]).output
    assert main.commands.get(command.name or "") is command
