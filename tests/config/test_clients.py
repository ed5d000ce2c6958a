"""The snippets that `keyrelay providers NAME` shows."""

from __future__ import annotations

import pytest

from proxy.config import clients
from proxy.config.presets import presets


def test_a_provider_has_a_request_and_a_socket_of_each_package() -> None:
    """Titles name package, version, language and setting; the programs are whole."""
    found = list(clients.snippets("hume"))
    python = [one for one in found if one.title.startswith("hume ") and "Python" in one.title]
    assert len(python) == 2
    assert all(one.program.startswith("from hume import HumeClient\n") for one in python)
    assert "chat.connect()" in python[1].program
    assert python[0].title.endswith("base_url=")


def test_every_snippet_leads_to_keyrelay() -> None:
    """Each names the route that it is shown for, or keyrelay's address."""
    for preset in presets():
        for snippet in clients.snippets(preset):
            assert "127.0.0.1:8080" in snippet.program


def test_a_provider_without_packages_has_no_snippet() -> None:
    """The built-in demo is for curl."""
    assert list(clients.snippets("demo")) == []


@pytest.mark.parametrize(
    ("parts", "program"),
    [
        (("import x\n", "", "x.run()\n"), "import x\n\nx.run()\n"),
        (("import x\n", "def main():\n    x.run()\n"), "import x\n\n\ndef main():\n    x.run()\n"),
        (("async def main():\n    x()\n", "main()\n"), "async def main():\n    x()\n\n\nmain()\n"),
    ],
)
def test_parts_are_joined_as_a_formatter_would(parts: tuple[str, ...], program: str) -> None:
    """One blank line between parts, two beside a function; empty parts leave none."""
    assert clients.join(parts) == program
