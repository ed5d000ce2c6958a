"""The catalogue of providers, held to the presets."""

from __future__ import annotations

import json

from proxy.config.placement import (
    BasicPlacement,
    HeaderPlacement,
    MessagePlacement,
    PathPlacement,
    QueryPlacement,
)
from proxy.config.presets import presets
from tests.support.provider_facts import NAMES, ROOT


def shown(placement: object) -> str:
    match placement:
        case HeaderPlacement():
            return f"`{placement.header}: {placement.value}`"
        case QueryPlacement():
            return f"`?{placement.query}={placement.value}`"
        case PathPlacement():
            return f"`{placement.path}`"
        case BasicPlacement():
            return f"Basic `{placement.basic.username}:{placement.basic.password}`"
        case MessagePlacement(message=message):
            if message.set is None:
                return f"message: `{json.dumps(message.send)}`"
            return f"message: `{message.set}: {message.value}`"
    raise AssertionError(f"the catalogue has no word for {placement!r}")


def row(name: str) -> list[str]:
    """The cells of a preset in the catalogue, but for its notes."""
    settings = presets()[name]

    def ways(kind: str) -> str:
        found = [
            (f"{one.name}: " if len(settings.auth) > 1 else "") + " ".join(map(shown, placements))
            for one in settings.auth
            if (placements := getattr(one, kind))
        ]
        return "; ".join(found) or "-"

    secrets = ", ".join(
        " or ".join(f"`{one.removeprefix('env:')}`" for one in source.references)
        + (" (optional)" if source.optional else "")
        for source in settings.secrets.values()
    )
    tokens = ", ".join(f"`{one.token.type}`" for one in settings.auth if one.token) or "-"
    docs = f"[page]({settings.docs})" if settings.docs else "-"
    return [
        f"`{name}`",
        settings.title or "",
        secrets,
        ways("http"),
        ways("websocket"),
        tokens,
        docs,
    ]


def test_the_catalogue_is_complete_and_current() -> None:
    """Every preset has its line in docs/catalogue.md, in order, and says what the preset does."""
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    found = [[cell.strip() for cell in line.strip("|").split("|")][:7] for line in lines]
    assert found == [row(name) for name in NAMES]
