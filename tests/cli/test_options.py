"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from proxy.cli import options
from proxy.errors import ConfigError


def test_without_a_file_the_shipped_routes_are_loaded() -> None:
    """Those of the checkout, complete with their presets."""
    assert {"demo", "hume", "camb"} <= options.load(None).routes.keys()


def test_a_file_is_loaded_alone(tmp_path: Path) -> None:
    """Nothing of the shipped routes is added to it; one that is not there is a finding."""
    file = tmp_path / "routes.yaml"
    file.write_text("routes: {mine: {provider: demo}}\n")
    assert list(options.load(file).routes) == ["mine"]
    with pytest.raises(ConfigError, match="no such file"):
        options.load(tmp_path / "absent.yaml")


def test_a_name_that_is_neither_route_nor_provider() -> None:
    """The routes are named first; what looks like a key is not repeated."""
    with pytest.raises(click.UsageError) as caught:
        options.choose(None, ("nosuch",))
    routes = ", ".join(sorted(options.load(None).routes))
    assert caught.value.message.startswith(
        f'There is no route or provider "nosuch"; known are: {routes}, '
    )
    with pytest.raises(click.UsageError) as caught:
        options.choose(None, ("sk-dummy123",))
    assert "dummy" not in caught.value.message
