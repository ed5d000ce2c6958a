"""Completion in the shell: driven as the shells drive it, and once by a real one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config.presets import presets
from tests.support.command import COMMAND, environment, keyrelay


def completed(*words: str, cwd: Path | None = None) -> list[str]:
    """What is offered for the last of these words."""
    done = keyrelay(
        cwd=cwd,
        variables={
            "_KEYRELAY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["keyrelay", *words]),
            "COMP_CWORD": str(len(words)),
        },
    )
    assert (done.code, done.err) == (0, "")
    return [line.partition(",")[2] for line in done.out.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    """The same whether the shell is named or found in the environment."""
    done = keyrelay("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_KEYRELAY_COMPLETE={shell}_complete" in done.out
    assert keyrelay("completion", variables={"SHELL": f"/usr/bin/{shell}"}) == done


@pytest.mark.parametrize("shell", ["", "/bin/sh"])
def test_an_unknown_shell_has_to_be_named(shell: str) -> None:
    """Exit 2, with those that there are."""
    done = keyrelay("completion", variables={"SHELL": shell})
    assert (done.code, done.out) == (2, "")
    assert "Name your shell: bash, fish, zsh." in done.err


def test_commands_and_options() -> None:
    """As click knows them."""
    assert completed("do") == ["doctor"]
    assert completed("run", "--st") == ["--strict"]
    assert completed("exec", "--lo") == ["--log"]


@pytest.mark.parametrize("command", ["run", "providers", "exec", "doctor"])
def test_names_of_providers(command: str) -> None:
    """Wherever one may stand."""
    wanted = sorted(name for name in presets() if name.startswith("as"))
    assert completed(command, "as") == wanted
    assert len(wanted) > 1


@pytest.mark.parametrize("command", ["exec", "doctor"])
def test_names_of_routes(command: str, tmp_path: Path) -> None:
    """Of the file that was named, else of those that ship; of a broken file none."""
    (tmp_path / "mine.yaml").write_text(
        "routes: {mine: {provider: demo}, minor: {provider: hume}, other: {provider: demo}}\n"
    )
    assert completed(command, "-c", "mine.yaml", "mi", cwd=tmp_path) == ["mine", "minor"]
    assert completed(command, "aign") == ["aigne", "aigne-hub"]
    (tmp_path / "mine.yaml").write_text("routes: [\n")
    assert completed(command, "-c", "mine.yaml", "", cwd=tmp_path) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_in_bash(tmp_path: Path) -> None:
    """The script that is printed, in the shell that it is for."""
    program = tmp_path / "keyrelay"
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(keyrelay completion bash)"; COMP_WORDS=(keyrelay doctor hu); COMP_CWORD=2; '
        '_keyrelay_completion keyrelay; echo "${COMPREPLY[*]}"; complete -p keyrelay'
    )
    assert sys.executable in program.read_text()
    variables = environment()
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names, made = done.stdout.splitlines()
    assert names.split() == ["huggingface", "huggingface-inference", "hume"]
    assert made.endswith("_keyrelay_completion keyrelay")
    assert done.stderr == ""
