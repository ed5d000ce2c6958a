"""The programs of README.md, run as they stand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.clients.data import ROOT
from tests.clients.stage import Stage, assert_clean

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

_README = (ROOT / "README.md").read_text(encoding="utf-8")
_LANGUAGES = {"python": "pypi", "javascript": "npm"}

SENDS = {
    "from hume import": ["GET api.hume.ai/v0/evi/configs"],
    "@aigne/aigne-hub": ["GET hub.aigne.io/__blocklet__.js", "POST hub.aigne.io/api/v2/chat"],
    "from camb.client": ["GET client.camb.ai/apis/list-voices"],
    "realtime.connect": ["WS realtime.camb.ai/v1/realtime"],
    "8080/inworld/v1": ["POST api.inworld.ai/v1/chat/completions"],
    "InworldTTS": ["POST api.inworld.ai/tts/v1/voice"],
    'from "hume"': ["WS api.hume.ai/v0/evi/chat"],
}
"""What each program has to send, by a part of its text."""


def programs() -> list[Any]:
    """Every block of a language whose programs run, but those for a page."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)
    return [
        pytest.param(_LANGUAGES[language], text, id=f"{language}-{number}")
        for number, (language, text) in enumerate(blocks)
        if language in _LANGUAGES and "import" in text
    ]


@pytest.mark.parametrize(("registry", "program"), programs())
def test_a_program_of_the_readme(stage: Stage, registry: str, program: str) -> None:
    """Pasted into a file it reaches its provider, with the one real key."""
    (wanted,) = (sends for part, sends in SENDS.items() if part in program)
    done = stage.run(registry, program, "prefix")
    assert_clean(done.output)
    assert done.code == 0, done.explain()
    assert done.faults == [], done.explain()
    assert set(done.names) == set(wanted), done.explain()


def test_the_readme_has_programs() -> None:
    """Four providers are shown, so that a block that is not found is noticed."""
    assert len(programs()) >= 4
