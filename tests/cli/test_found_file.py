"""./routes.yaml and ./keyrelay.yaml, and files named without --config, with the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import keyrelay, running

OWN = "listen: 127.0.0.1:0\nroutes: {own: {provider: demo}}\n"


@pytest.fixture(params=["routes.yaml", "keyrelay.yaml"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A directory with a routes file of either name."""
    (tmp_path / str(request.param)).write_text(OWN)
    return tmp_path


def _only_file(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("check",), "no findings, 1 route\n"),
        (("explain", "GET", "/own/echo"), "own, mounted at /own"),
        (("doctor",), "own\n"),
        (("exec", "--dry-run"), "KEYRELAY_URL="),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_file_of_the_directory_is_used(
    folder: Path, command: tuple[str, ...], shown: str
) -> None:
    """Without --config; the routes that ship are then not there."""
    done = keyrelay(*command, cwd=folder)
    assert (done.code, shown in done.out) == (0, True), done
    assert "hume" not in done.out


async def test_run_uses_it_and_names_it(folder: Path) -> None:
    """The banner has its whole path, in every case."""
    async with running("run", cwd=folder, until="try it") as process:
        assert f"\nroutes from {_only_file(folder)}\n" in process.err
        assert "/own →" in process.err


@pytest.mark.parametrize("arguments", [("other.yaml",), ("-c", "other.yaml"), ("./other.yaml",)])
async def test_a_named_file_wins(folder: Path, arguments: tuple[str, ...]) -> None:
    """As an argument of run or an option, also where the directory has a file of its own."""
    (folder / "other.yaml").write_text(OWN.replace("own:", "other:"))
    async with running("run", *arguments, cwd=folder, until="try it") as process:
        assert f"\nroutes from {folder / 'other.yaml'}\n" in process.err
        assert "/other →" in process.err


def test_the_variable_wins(folder: Path) -> None:
    """KEYRELAY_CONFIG is as explicit as the option."""
    other = folder / "other.yaml"
    other.write_text(OWN + "  # one\n")
    done = keyrelay("check", cwd=folder, variables={"KEYRELAY_CONFIG": str(other)})
    assert done.out.startswith(f"{other}: no findings")


async def test_names_of_providers_win(folder: Path) -> None:
    """``run NAME`` needs no file and reads none, not even a broken one."""
    _only_file(folder).write_text("routes: [")
    arguments = ("run", "demo", "--listen", "127.0.0.1:0")
    async with running(*arguments, cwd=folder, until="try it") as process:
        assert "routes from" not in process.err


def test_a_preset_is_known_beside_the_file(folder: Path) -> None:
    """As without a file: nothing on the command line demands its routes alone."""
    done = keyrelay("explain", "GET", "/hume/v0/x", cwd=folder, variables={"HUME_API_KEY": "dummy"})
    assert (done.code, "hume, mounted at /hume" in done.out) == (0, True)
    assert keyrelay("check", "hume", cwd=folder).code == 0


@pytest.mark.parametrize("command", [("run",), ("check",), ("doctor",), ("exec", "--dry-run")])
def test_two_files_are_refused_by_each_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    """With both names and how to choose."""
    for name in ("routes.yaml", "keyrelay.yaml"):
        (tmp_path / name).write_text(OWN)
    done = keyrelay(*command, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "routes.yaml: keyrelay.yaml is here as well\n    keep one, or name it: -c " in done.err


@pytest.mark.parametrize("command", ["run", "check", "doctor"])
def test_a_program_s_secret_needs_the_file_s_name(tmp_path: Path, command: str) -> None:
    """Nothing is run before; with the name, as an argument or an option, it is."""
    (tmp_path / "routes.yaml").write_text(
        "listen: 127.0.0.1:0\nroutes:\n  it:\n    upstream: builtin:demo\n"
        f"    secrets: {{key: 'exec:/usr/bin/touch {tmp_path}/ran'}}\n"
        "    auth: [{header: X-Key, value: '{key}'}]\n"
    )
    done = keyrelay(command, cwd=tmp_path)
    assert (done.code, (tmp_path / "ran").exists()) == (2, False)
    assert "routes.yaml:5:" in done.err
    assert ": exec: runs a program, and the file is not named\n" in done.err
    for named in (("routes.yaml",), ("-c", "routes.yaml")):
        assert keyrelay("check", *named, cwd=tmp_path).code == 0
        assert (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink()


def test_options_of_the_command_line_are_not_the_file_s(tmp_path: Path) -> None:
    """What the user writes needs no further name: an egress proxy of the command line."""
    (tmp_path / "routes.yaml").write_text(OWN)
    done = keyrelay("exec", "--dry-run", "--egress-proxy", "http://127.0.0.1:1", cwd=tmp_path)
    assert done.code == 0


@pytest.mark.parametrize("command", [("doctor",), ("exec", "--dry-run")])
def test_a_file_and_names(folder: Path, command: tuple[str, ...]) -> None:
    """FILE comes first; then only its routes are known; a second file is an error."""
    (folder / "two.yaml").write_text("routes: {a: {provider: demo}, b: {provider: demo}}")
    name, *options = command
    assert keyrelay(name, "two.yaml", "b", *options, cwd=folder).code == 0
    done = keyrelay(name, "two.yaml", "hume", *options, cwd=folder)
    assert (done.code, "There is no route hume in two.yaml" in done.err) == (2, True)
    done = keyrelay(name, "b", "two.yaml", *options, cwd=folder)
    assert (done.code, "Name one file, before the routes." in done.err) == (2, True)


def test_init_writes_the_named_providers(tmp_path: Path) -> None:
    """Each has a route, or waits for its upstream; the next command needs no option."""
    done = keyrelay("init", "openai", "azure-openai", cwd=tmp_path, variables={"HUME_API_KEY": "d"})
    assert done.out == (
        "Wrote routes.yaml with demo, openai.\n"
        "To be completed in the file, with upstream: azure-openai.\nNext: keyrelay run\n"
    )
    assert keyrelay("check", cwd=tmp_path).out == "routes.yaml: no findings, 2 routes\n"
    done = keyrelay("init", "dev.yaml", "hume", cwd=tmp_path)
    assert done.out == "Wrote dev.yaml with demo, hume.\nNext: keyrelay run dev.yaml\n"
    done = keyrelay("init", "hmue", "--force", cwd=tmp_path)
    assert done.code == 2
    assert 'There is no provider "hmue"; did you mean "hume"?' in done.err


def test_the_written_file_names_the_schema_that_the_command_prints(tmp_path: Path) -> None:
    """Its first line is for yaml-language-server; the file there is what ``schema`` prints."""
    assert keyrelay("init", "hume", cwd=tmp_path).code == 0
    first = (tmp_path / "routes.yaml").read_text().partition("\n")[0]
    prefix = "# yaml-language-server: $schema=file://"
    assert first.startswith(prefix)
    printed = json.loads(keyrelay("schema").out)
    assert json.loads(Path(first.removeprefix(prefix)).read_text()) == printed
    described = printed["properties"]["listen"]["description"]
    assert "Loopback only" in described


def test_help_is_a_command() -> None:
    """Alone it is ``--help``, with a command that command's; a mistyped one gets a suggestion."""
    assert keyrelay("help") == keyrelay("--help")
    assert keyrelay("help", "explain") == keyrelay("explain", "--help")
    done = keyrelay("help", "chek")
    assert (done.code, 'no command "chek"; did you mean "check"?' in done.err) == (2, True)
