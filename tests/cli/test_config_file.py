"""Which routes file a command uses: --config, KEYRELAY_CONFIG, or the shipped routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import keyrelay

VARIABLE = "KEYRELAY_CONFIG"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("routes: {mine: {provider: demo}}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("check",), "no findings, 1 route\n"),
        (("explain", "GET", "/mine/echo"), "mine, mounted at /mine"),
        (("doctor",), "mine"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_variable_names_the_file(file: Path, command: tuple[str, ...], shown: str) -> None:
    """Every command that takes --config reads the variable in its place."""
    done = keyrelay(*command, variables={VARIABLE: str(file)})
    assert (done.code, shown in done.out) == (0, True), done


def test_the_option_wins(file: Path, tmp_path: Path) -> None:
    """--config is used although the variable names a file that is not there."""
    absent = str(tmp_path / "absent.yaml")
    assert keyrelay("check", "-c", str(file), variables={VARIABLE: absent}).code == 0
    done = keyrelay("check", variables={VARIABLE: absent})
    assert (done.code, "no such file" in done.err) == (2, True)


def test_names_of_providers_and_a_file_on_the_command_line_are_refused(file: Path) -> None:
    """The variable does not stand against names; --config does."""
    done = keyrelay("run", "demo", "-c", str(file))
    assert (done.code, "not both" in done.err) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "GET", "/openai/v1/models"),
        ("exec", "demo", "--", "true"),
    ],
    ids=lambda command: command[0],
)
def test_a_preset_s_name_suffices(command: tuple[str, ...]) -> None:
    """A provider without a shipped route is known by its name, as to ``run``."""
    done = keyrelay(*command, variables={"OPENAI_API_KEY": "dummy-key"})
    assert done.code == 0, done
