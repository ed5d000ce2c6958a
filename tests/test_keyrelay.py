"""The top-level module: entry point and public names, also beside a foreign package ``proxy``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyrelay
from proxy.secrets.secret import Secret
from proxy.secrets.source import SourceError

ROOT = Path(keyrelay.__file__).parent
MAIN = "import sys, keyrelay; sys.argv = ['keyrelay', '--version']; keyrelay.main()"


def run(program: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = "; ".join(f"sys.path.insert(0, {str(one)!r})" for one in reversed(folders))
    return subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; {path}; {program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_public_names_are_the_package_s_own() -> None:
    """Plugins raise and receive the very classes that the package uses."""
    assert keyrelay.SourceError is SourceError
    assert keyrelay.Secret is Secret
    assert set(keyrelay.__all__) == {"Secret", "SourceError", "main"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A mistyped import fails as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'Sekret'"):
        _ = keyrelay.Sekret


def test_the_entry_point_runs_the_command() -> None:
    """``keyrelay.main`` is the command."""
    done = run(MAIN, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("keyrelay, version ")


def test_a_foreign_package_proxy_is_reported_in_one_sentence(tmp_path: Path) -> None:
    """With another distribution's ``proxy`` first on the path: one line, status 1, no traceback."""
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("")
    done = run(MAIN, tmp_path, ROOT)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"keyrelay: the package 'proxy' in {tmp_path} is not keyrelay's")
    assert "environment of its own" in done.stderr


@pytest.mark.parametrize("foreign", ["", None], ids=["replaced", "removed"])
def test_a_mixed_package_proxy_is_reported_in_one_sentence(
    tmp_path: Path, foreign: str | None
) -> None:
    """Another distribution in the same directory replaces ``__init__``, and removes it with itself:
    one line, status 1, no traceback.
    """
    shutil.copytree(ROOT / "proxy", tmp_path / "proxy")
    start = tmp_path / "proxy" / "__init__.py"
    start.unlink() if foreign is None else start.write_text(foreign)
    shutil.copy(ROOT / "keyrelay.py", tmp_path)
    # -S: an editable installation of the tests' environment would be found instead.
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {MAIN}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"the package 'proxy' in {tmp_path} is keyrelay's only in part" in done.stderr
    assert "environment of its own" in done.stderr


def test_the_module_can_be_run() -> None:
    """``python -m keyrelay`` is the command as well."""
    done = subprocess.run(
        [sys.executable, "-m", "keyrelay", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("keyrelay, version ")


def test_a_foreign_package_proxy_does_not_break_the_public_names_silently(tmp_path: Path) -> None:
    """Importing a public name beside a foreign ``proxy`` names the cause."""
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("")
    done = run("from keyrelay import SourceError", tmp_path, ROOT)
    assert done.returncode == 1
    assert "is not keyrelay's" in done.stderr.splitlines()[-1]
