"""A mistyped key gets the key that is probably meant as a suggestion."""

from __future__ import annotations

import pytest

from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.unknown_keys import suggest


def test_advice_names_the_nearest() -> None:
    """Near words are suggested; otherwise all there are."""
    assert suggest("Herder", ["header", "query"]) == 'did you mean "header"?'
    assert suggest("zzz", ["b", "a"]) == "known are: a, b"
    assert suggest("zzz", ["b", "c"], ["a", "b"]) == "known are: b, c, a"
    assert suggest("Herder", ["query"], ["header"]) == 'did you mean "header"?'


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        (
            "timout",
            RouteSettings.model_fields,
            'did you mean "answer_timeout_seconds" or "connect_timeout_seconds"?',
        ),
        (
            "timeout",
            RouteSettings.model_fields,
            'did you mean "answer_timeout_seconds" or "connect_timeout_seconds"?',
        ),
        ("max_bodi", RouteSettings.model_fields, 'did you mean "max_body_bytes"?'),
        ("conect_timeout", RouteSettings.model_fields, 'did you mean "connect_timeout_seconds"?'),
        ("upsteam", RouteSettings.model_fields, 'did you mean "upstream"?'),
        ("keepalive", Settings.model_fields, 'did you mean "keepalive_seconds"?'),
    ],
)
def test_a_mistyped_part_of_a_key_is_recognised(
    word: str, known: dict[str, object], expected: str
) -> None:
    """Keys with a part that the word resembles are suggested, all of them if equally similar."""
    assert suggest(word, known) == expected
