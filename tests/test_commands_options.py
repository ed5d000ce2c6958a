"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.commands import options
from proxy.errors import ConfigError


def test_without_a_file_the_shipped_routes_are_loaded() -> None:
    """Those of the checkout, complete with their presets."""
    assert {"demo", "hume", "camb"} <= options.load(None).routes.keys()


def test_a_file_is_loaded_alone(tmp_path: Path) -> None:
    """Nothing of the shipped routes is added to it; one that is not there is a finding."""
    file = tmp_path / "routes.yaml"
    file.write_text("routes: {mine: {provider: demo}}\n")
    assert list(options.load(file).routes) == ["mine"]
    with pytest.raises(ConfigError, match="there is no such file"):
        options.load(tmp_path / "absent.yaml")
