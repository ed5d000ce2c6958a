"""Commands and files that any page shows are ones that work: commands, options, YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from proxy.cli import main
from proxy.config import loader

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "examples").glob("*.md")),
    ROOT / "examples" / "browser" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
COMMANDS: Mapping[str, click.Command] = main.main.commands


def code(text: str) -> list[str]:
    """Lines of code on a page: fenced, indented and inline."""
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.+)$", outside, re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", outside)
    return [*(line for block in fenced for line in block.splitlines()), *indented, *inline]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# Pages of clients are generated, and their snippets run in tests/clients.
@pytest.mark.parametrize("name", [name for name in NAMES if "docs/clients/" not in name])
def test_commands_and_options_on_a_page_exist(name: str) -> None:
    """After `keyrelay` comes a command, and each option up to `--` is one of that command."""
    for line in code((ROOT / name).read_text(encoding="utf-8")):
        line = line.partition("  #")[0]
        found = re.search(r"(?:^|[ /;$(])keyrelay ([a-z][a-z-]*)(?= |$|\))(.*)", line)
        if found is None or re.search(
            r"(from|keyring set|inject|restart|reload|-u|a checkout of) keyrelay", line
        ):
            continue
        command, rest = found[1], found[2].partition(" -- ")[0].partition(" && ")[0]
        assert command in COMMANDS, line
        options = {one for parameter in COMMANDS[command].params for one in parameter.opts}
        words = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest).split()
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options | {"--help"}, line


@pytest.mark.parametrize("name", NAMES)
def test_yaml_on_a_page_is_valid(name: str) -> None:
    """A whole routes file loads; any other block is YAML at least."""
    for block in blocks((ROOT / name).read_text(encoding="utf-8"), "yaml"):
        if re.search(r"^routes:", block, re.MULTILINE) and "…" not in block:
            assert loader.load_text(block, name, ROOT).routes
        else:
            # A preset's fragment may show one key twice, as two examples.
            yaml.compose(block)


@pytest.mark.parametrize("name", [name for name in NAMES if "howto" in name])
def test_compose_files_keep_the_key_from_the_application(name: str) -> None:
    """Only keyrelay has keys and ports; what shares its network has neither."""
    for block in blocks((ROOT / name).read_text(encoding="utf-8"), "yaml"):
        services: dict[str, dict[str, Any]] = (yaml.safe_load(block) or {}).get("services", {})
        for service, settings in services.items():
            if service == "keyrelay":
                assert not any(":8080" in str(port) for port in settings.get("ports", ()))
            else:
                assert settings["network_mode"] == "service:keyrelay"
                assert "ports" not in settings
                keys = {k: v for k, v in settings.get("environment", {}).items() if "KEY" in k}
                assert set(keys.values()) <= {"unused"}


@pytest.mark.parametrize("name", NAMES)
def test_json_on_a_page_is_valid(name: str) -> None:
    """Each block of JSON parses."""
    for block in blocks((ROOT / name).read_text(encoding="utf-8"), "json"):
        assert json.loads(block)
