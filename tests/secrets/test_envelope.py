from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.envelope import Envelope, SealBinding, hpke_info, parse_envelope, seal_binding

PLACE = seal_binding("hume", "https://api.hume.ai")
DATA = bytes(range(60))
TEXT = str(Envelope.of("1a2b3c4d", DATA, PLACE, "api_key"))


def test_the_text_form() -> None:
    """It names version and key, and is read back as it was."""
    assert TEXT.startswith("sealed:v1:1a2b3c4d:")
    read = parse_envelope(TEXT)
    assert (read.key_id, read.data) == ("1a2b3c4d", DATA)
    assert str(read) == TEXT
    assert read.mismatch(PLACE, "api_key") == ""


@pytest.mark.parametrize("cut", [1, 2, 10, 70, len(TEXT) - 3])
def test_a_text_that_was_cut_short(cut: int) -> None:
    """A half-copied value is reported before any key is needed."""
    with pytest.raises(ValueError, match=r"truncated|incomplete") as caught:
        parse_envelope(TEXT[:-cut])
    assert TEXT[20:30] not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "sealed:",
        TEXT.replace("v1", "v2"),
        TEXT.replace("1a2b3c4d", "1A2B3C4D"),
        TEXT + "=",
        TEXT + "\n",
        f" {TEXT}",
        TEXT.replace("sealed:", ""),
        "sealed:v1:1a2b3c4d:AAAAAAAAAAAAAAAA:A",
        "sealed:v1:1a2b3c4d:AAAAAAAAAAAAAAAA:AAAA",
    ],
)
def test_what_is_no_sealed_value(text: str) -> None:
    """Only the whole of what was printed is one."""
    with pytest.raises(ValueError, match="paste the whole output of keyrelay seal"):
        parse_envelope(text)


def test_a_changed_text() -> None:
    """A letter that was changed by accident is found without a key."""
    changed = TEXT[:-4] + ("A" if TEXT[-4] != "A" else "B") + TEXT[-3:]
    with pytest.raises(ValueError, match="truncated or modified"):
        parse_envelope(changed)


def test_the_claim_says_nothing_of_the_value() -> None:
    """It depends on the place and on what is public anyway."""
    one = Envelope.of("1a2b3c4d", DATA, PLACE, "api_key")
    other = Envelope.of("1a2b3c4d", bytes(60), PLACE, "api_key")
    assert one.claim[:9] == other.claim[:9]
    assert len(one.claim) == 12


@pytest.mark.parametrize(
    ("upstream", "origin"),
    [
        ("https://api.hume.ai/v0", "https://api.hume.ai:443"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("builtin:demo", "builtin:demo"),
    ],
)
def test_a_place_has_scheme_host_and_port(upstream: str, origin: str) -> None:
    """Always the port, never the path; the built-in provider is no host."""
    assert seal_binding("r", upstream) == SealBinding("r", origin)


_PARTS = st.tuples(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6))


@given(one=_PARTS, other=_PARTS)
def test_no_two_places_have_the_same_binding(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """What belongs to the route cannot be taken for a part of the host."""
    first, second = (
        hpke_info(SealBinding(route, origin), slot) for route, origin, slot in (one, other)
    )
    assert (first == second) == (one == other)
