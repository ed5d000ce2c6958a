"""The commands, each as a process of its own: what they say, how they end, what they never say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from tests.support.command import COMMAND, PREFIXES, environment, keyrelay, keys

COMMANDS = (
    *("run", "demo", "exec", "check", "explain", "doctor", "providers", "init", "health"),
    *("ca", "keygen", "seal", "reseal", "completion", "status", "reload", "schema", "help"),
)


def test_help_is_there_for_everything() -> None:
    """-h and --help of the command and of each of its commands: usage, and nothing went wrong."""
    for arguments in ((), *((command,) for command in COMMANDS)):
        done = keyrelay(*arguments, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"Usage: keyrelay {' '.join(arguments)}".rstrip())
    listed = keyrelay("-h").out
    assert all(f"\n  {command} " in listed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_whole_sentences(command: str) -> None:
    """What is too long for a line of 80 would be cut off, and end with dots."""
    [line] = [one for one in keyrelay("--help").out.splitlines() if one.startswith(f"  {command} ")]
    assert line.endswith(".")
    assert not line.endswith("..")


def test_every_command_is_listed_here() -> None:
    """A command without a test of its help would be found by this one."""
    listed = keyrelay("--help").out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == sorted(COMMANDS)


def test_the_command_line_is_there_at_once() -> None:
    """What takes long to load is loaded by the commands that need it: health is asked often."""
    heavy = "{'aiohttp', 'asyncio', 'cryptography'} & sys.modules.keys()"
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys, proxy.cli.main; print({heavy})"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert shown.stdout == "set()\n"


def test_colours_are_left_out_where_they_are_not_wanted() -> None:
    """NO_COLOR (no-color.org) counts on a terminal too."""
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"
    shown = {
        wanted: subprocess.run(
            [sys.executable, "-c", script, *COMMAND, "doctor", "demo"],
            env=environment(NO_COLOR=wanted, TERM="xterm"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for wanted in ("", "1")
    }
    assert "\x1b[32mok" in shown[""]
    assert "\x1b[" not in shown["1"]
    assert "  ok    connection" in shown["1"]


def test_the_version_is_the_package_s() -> None:
    """One line with it."""
    assert keyrelay("--version").out == f"keyrelay, version {proxy.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), "No such command"),
        (("run", "--frobnicate"), "No such option"),
        (("run", "humee"), 'did you mean "hume"?'),
        (("run", "hume", "-c", "routes.yaml"), "Name providers or give a file, not both."),
        (("run", "-c", "no-such.yaml"), "no-such.yaml: no such file"),
        (("run", "-c", "."), "is a directory"),
        (("check", "-c", "x" * 300), "the file cannot be read: File name too long"),
        (("run", "--origin", "*"), "list the exact origin of your page"),
        (("run", "--origin", "http://localhost:5173/"), "write it without path and slash"),
        (("check", "surplus", "routes.yaml"), "Name one file, before the routes."),
        (("check", "routes.yaml", "-c", "routes.yaml"), "Name one file, with -c or without."),
        (("check", "no-such.yaml"), "no-such.yaml: no such file name another file"),
        (("run", "--admin", "hume"), "put --admin last, or write --admin=ADDRESS"),
        (("run", "--admin", "humm"), "Invalid value for '--admin'"),
        (("explain", "get", "/demo/x"), "Methods are written in capitals: GET"),
        (("explain", "GET", "demo/x"), "PATH has to begin with /, or with http://: /demo/x"),
        (("doctor", "nosuch"), 'no route or provider "nosuch"; known are: aigne, camb, '),
        (("doctor", "spotifi"), 'did you mean "spotify"?'),
        (("reseal", "no-such.yaml"), "no-such.yaml: no such file name another file"),
        (("explain", "GET"), "Missing argument 'PATH'"),
        (("explain", "GET", "/demo/x", "-H", "no colon"), "is not 'Name: value'"),
        (("explain", "GET", "/demo/x", "-H", ": no name"), "is not 'Name: value'"),
        (("providers", "inword"), 'did you mean "inworld"?'),
        (("providers", "../../etc/passwd"), "There is no provider"),
        (("demo", "--listen", "localhost:8080"), "write 127.0.0.1:8080"),
        (("demo", "--listen", "8080"), "the port is missing"),
    ],
)
def test_misuse_ends_with_2_and_says_what_to_write(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    """Usage and configuration: exit 2, the reason on stderr, nothing on stdout."""
    done = keyrelay(*arguments, cwd=tmp_path, variables=keys())
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.split())


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", ":8080", "192.0.2.1:8080"])
def test_listening_beyond_loopback_is_refused(address: str, tmp_path: Path) -> None:
    """Any client there could spend the keys: refused on the command line and in the file."""
    done = keyrelay("run", "--listen", address, variables=keys())
    assert done.code == 2
    assert "could use the credentials" in done.err or "every network" in done.err
    assert 'network_mode: "service:keyrelay"' in done.err
    path = tmp_path / "routes.yaml"
    path.write_text(f"listen: '{address}'\nroutes: {{demo: {{provider: demo}}}}\n")
    done = keyrelay("run", "-c", str(path))
    assert done.code == 2
    assert done.err.startswith(f"{path}:1:9: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_letters_gets_others(encoding: str, tmp_path: Path) -> None:
    """An arrow or an ellipsis that cannot be shown is no reason to fail."""
    (tmp_path / "routes.yaml").write_text("routes: {demo: {provider: demo, title: '→'}}")
    variables = {"PYTHONIOENCODING": encoding, **keys()}
    for arguments in (("providers", "hume"), ("explain", "GET", "/demo/x", "-H", "X: €"), ("-h",)):
        assert keyrelay(*arguments, variables=variables).code == 0


def test_environment_of_these_tests_has_no_key() -> None:
    """What is shown here about missing keys does not depend on the environment."""
    assert not [name for name in environment() if name.startswith(PREFIXES)]
