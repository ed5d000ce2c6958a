"""One installation for all tests of the wheel; each test has an empty home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wheel.installation import Installation, build_and_install


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment with the wheel: outside the checkout, made once."""
    return build_and_install(tmp_path_factory.mktemp("wheel")).environment


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installation:
    """The installation with an empty folder of the test's own as home and working directory."""
    return Installation(environment, tmp_path)
