"""What the documents say of names is true: settings, kinds of problems, commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from proxy.cli.main import main
from proxy.config import loader
from proxy.config.placement import PLACEMENTS
from proxy.config.route import RouteSettings, StrategySettings, Strip
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.config.token import TOKENS

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
SOURCES = sorted((ROOT / "proxy").rglob("*.py"))


@pytest.mark.parametrize(
    "model", [Settings, RouteSettings, StrategySettings, Strip, SecretSettings]
)
def test_every_setting_is_documented(model: type[Settings]) -> None:
    """A key that the YAML may say stands in the reference."""
    internal = {"references"}
    missing = [
        name
        for name in model.model_fields.keys() - internal
        if not re.search(rf"\b{name}\b", CONFIGURATION)
    ]
    assert missing == []


def test_every_placement_and_type_of_token_is_documented() -> None:
    """The words that choose between kinds stand in the reference, with all that belongs to them."""
    for word in PLACEMENTS:
        assert f"{{{word}: " in CONFIGURATION
    common = {"type", "lifetime_seconds", "zero_lifetime", "refused", "valid_seconds"}
    common |= {"header_type", "key_id"}
    # The fields that all OAuth 2.0 types share have a section of their own.
    shared = "[OAuth 2.0 settings](#oauth-20-settings)"
    section = CONFIGURATION.partition("### OAuth 2.0 settings")[2].partition("\n## ")[0]
    for word, model in TOKENS.items():
        line = next(one for one in CONFIGURATION.splitlines() if one.startswith(f"| `{word}` |"))
        for name, field in model.model_fields.items():
            said = CONFIGURATION if name in common or word == "jwt_bearer" else line
            if shared in line:
                said += section
            assert f"`{field.alias or name}`" in said or name in common, (word, name)


def test_every_kind_of_problem_is_documented() -> None:
    """Each problem kind is in the reference."""
    kinds = set()
    for source in SOURCES:
        kinds |= set(re.findall(r'Refusal\(\s*[0-9]{3},\s*"([a-z0-9-]+)"', source.read_text()))
    assert len(kinds) > 15
    documented = set(re.findall(r"`([a-z0-9-]+)`", CONFIGURATION))
    assert {kind for kind in kinds - documented if not kind.startswith("bad-")} == set()


def test_the_readme_s_commands_exist() -> None:
    """A command or an option that the README names is one that there is."""
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"keyrelay ([a-z]+)\b", readme))
    commands = set(main.commands)
    prose = {"adds", "answers", "does", "fetches", "has", "holds", "is", "on", "speaks"}
    assert named - prose <= commands
    for option in re.findall(r"keyrelay run [a-z ]*(--[a-z]+)", readme):
        assert option in {o for p in main.commands["run"].params for o in p.opts}


def test_every_command_is_documented() -> None:
    """The table of commands has each with the arguments that it takes, and none that is not."""
    page = (ROOT / "docs" / "commands.md").read_text()
    table = re.findall(r"^\| `keyrelay ([^`]+)` \| \S", page, re.MULTILINE)
    usages = []
    for name, command in main.commands.items():
        # Of a choice the reference has the name, the help the words.
        pieces = [
            argument.make_metavar(context)
            if not isinstance(argument.type, click.Choice)
            else f"[{(argument.name or '').upper()}]"
            for context in [click.Context(command)]
            for argument in command.params
            if isinstance(argument, click.Argument)
        ]
        usages.append(" ".join([name, *pieces]))
    assert sorted(table) == sorted(usages)


def test_options_in_the_reference_of_commands_exist() -> None:
    """What follows a command's name in an example is an option of it."""
    page = (ROOT / "docs" / "commands.md").read_text()
    options = {
        name: {one for parameter in command.params for one in parameter.opts}
        for name, command in main.commands.items()
    }
    for name, rest in re.findall(r"^    (?:\$ )?keyrelay ([a-z]+)(.*)$", page, re.MULTILINE):
        own = rest.partition(" -- ")[0]
        assert set(re.findall(r"(?<= )--?[a-z-]+", own)) <= options[name], name
    anywhere = set().union(*options.values()) | {"--help"}
    assert set(re.findall(r"`(--[a-z-]+)", page)) <= anywhere


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "browser" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def without_code(page: Path) -> str:
    """The text of a page without its blocks of code, in which ``#`` begins a comment."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What can stand behind ``#``: the headings as GitHub and others write them there."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
        more = (f"{slug}-{number}" for number in range(1, 100))
        found.add(slug if slug not in found else next(one for one in more if one not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link to a file that is there, and to a heading that the file has."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_every_routes_file_that_is_shown_loads(name: str) -> None:
    """A whole file that is copied passes ``check``."""
    blocks = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL
    )
    whole = [block for block in blocks if re.search(r"^routes:", block, re.MULTILINE)]
    assert whole
    for block in whole:
        assert loader.load_text(block, name, ROOT).routes
