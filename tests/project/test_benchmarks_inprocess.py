"""The benchmark without sockets: it measures the product's own data path, here and elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.comparing import standard_error
from benchmarks.inprocess import TITLES, undisturbed

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "benchmarks.inprocess", "--runs", "1", "--count", "60")


def ran(*options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env=os.environ | ({} if path is None else {"PATH": path}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_figure_is_measured() -> None:
    """A run of its own gives microseconds for each figure, and says of what they are."""
    done = ran("--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["runs"], found["count"]) == (1, 60)
    assert list(found["microseconds"]) == list(TITLES)
    assert all(value > 0 for value in found["microseconds"].values())


def test_table_names_every_figure() -> None:
    """Without --json there is a line for each figure, with its value."""
    done = ran()
    assert (done.returncode, done.stderr) == (0, "")
    for title in TITLES.values():
        assert any(line.startswith(f"{title} ") for line in done.stdout.splitlines()), title


@pytest.mark.parametrize("own", [True, False])
def test_another_checkout_is_measured_with_its_own_sources(tmp_path: Path, own: bool) -> None:
    """The other figures come from the other checkout's package, and its benchmark if it has one."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("raise SystemExit('the other package')\n")
    if own:
        (tmp_path / "benchmarks" / "inprocess.py").write_text(
            "import sys\nfor line in sys.stdin:\n    print('[1, 59999]', flush=True)\n"
        )
    done = ran("--json", "--against", str(tmp_path))
    if own:
        found = json.loads(done.stdout)
        assert found["against"] == dict.fromkeys(TITLES, 1.0)
        for name, value in found["microseconds"].items():
            assert found["ratio"][name] == pytest.approx(value)
    else:
        assert done.returncode == 1
        assert "the other package" in done.stderr
        assert f"failed for {tmp_path}" in done.stderr


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    """A folder without benchmarks is an error at once, with its name."""
    done = ran("--against", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path} is no checkout" in done.stderr


def test_counting_instructions_needs_valgrind(tmp_path: Path) -> None:
    """Where there is no valgrind, the error says so."""
    done = ran("--instructions", path=str(tmp_path))
    assert done.returncode == 1
    assert "needs valgrind" in done.stderr


def test_error_of_a_ratio_shrinks_with_the_spread() -> None:
    """Ratios that agree have no error; those that differ have one."""
    assert standard_error([1.02] * 9) == 0
    assert 0.01 < standard_error([0.9, 1.0, 1.1] * 5) < 0.1


def test_disturbed_slices_do_not_count() -> None:
    """Each slice counts as in its best run, even if no run was undisturbed as a whole."""
    assert undisturbed([[10, 90, 10], [80, 20, 11]]) == 40
