"""What holds for every source of secrets, whatever it reads from."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.secret import SecretSettings
from proxy.errors import SecretUnavailable
from proxy.secrets.reference import SOURCES, display_reference
from proxy.secrets.resolver import DEMO_KEY, resolve, resolve_all, ttl
from proxy.secrets.secret import Secret
from proxy.secrets.source import LIMIT_BYTES
from tests.support.secret_sources import PLACE, SLOT, WORLDS, World


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Each source's world in turn."""
    made: World = WORLDS[request.param](tmp_path, monkeypatch)  # type: ignore[call-arg]
    return made


def read(*references: str, multiline: bool = False) -> Secret:
    settings = SecretSettings(references=references, multiline=multiline)
    return resolve(SLOT, settings, PLACE)


def remedy(*references: str) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        read(*references)
    assert "dummy" not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    return caught.value.remedy


def test_every_source_is_here() -> None:
    """No source is left out of this suite; the demo's has no world."""
    assert {*WORLDS, "builtin"} == {*SOURCES, "acme"}


def test_a_value_that_is_there(world: World) -> None:
    """It is the secret, byte for byte, knows where it is from, and is not shown."""
    reference = world.put("key", "dummy-ä k".encode())
    found = read(reference)
    assert found.reveal() == "dummy-ä k".encode()
    assert (found.name, found.reference) == (SLOT, display_reference(reference))
    assert "dummy" not in f"{found!r} {found}"


def test_a_value_that_is_not_there(world: World) -> None:
    """The remedy says what to do about it."""
    reference, words = world.absent()
    assert words in remedy(reference)


def test_a_source_that_fails(world: World) -> None:
    """So does that of what cannot be read; what others said is not repeated."""
    reference, words = world.failing()
    assert words in remedy(reference)


def test_an_empty_value(world: World) -> None:
    """Nothing is no secret."""
    assert "empty" in remedy(world.put("none", b""))


@pytest.mark.parametrize("value", [b"dummy\nX-Other: 1", b"dummy\rX: 1", b"dummy\x7f"])
def test_a_value_with_a_line_break_inside(world: World, value: bytes) -> None:
    """No secret can smuggle a line into a request."""
    assert "remove line breaks" in remedy(world.put("broken", value))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_break_at_the_end(world: World, end: bytes) -> None:
    """It is no part of the secret: editors, ``echo`` and so Kubernetes Secrets bring it along."""
    assert read(world.put("ended", b"dummy-key" + end)).reveal() == b"dummy-key"
    assert "remove line breaks" in remedy(world.put("twice", b"dummy-key" + end + end))


def test_a_value_of_several_lines_where_that_is_meant(world: World) -> None:
    """A PEM key or JSON file is taken as it is if it is said to have lines."""
    value = b"dummy-first\ndummy-second"
    assert read(world.put("lines", value), multiline=True).reveal() == value


def test_a_value_that_is_too_long(world: World) -> None:
    """The limit itself is still a secret, a byte more is not."""
    assert len(read(world.put("large", b"x" * LIMIT_BYTES)).reveal()) == LIMIT_BYTES
    assert "64 KiB" in remedy(world.put("larger", b"x" * (LIMIT_BYTES + 1)))


def test_two_values_while_a_key_is_rotated(world: World) -> None:
    """The first serves, all are known; a missing one leaves the other; none: each its remedy."""
    new, old = world.put("new", b"dummy-new"), world.put("old", b"dummy-old")
    absent, words = world.absent()
    both = SecretSettings(references=(new, absent, old))
    assert resolve(SLOT, both, PLACE).reveal() == b"dummy-new"
    assert [one.reveal() for one in resolve_all(SLOT, both, PLACE)] == [b"dummy-new", b"dummy-old"]
    assert read(absent, old).reveal() == b"dummy-old"
    failing, more = world.failing()
    said = remedy(absent, failing)
    assert words in said
    assert more in said.partition(", or ")[2]
    with pytest.raises(SecretUnavailable) as caught:
        resolve_all(SLOT, SecretSettings(references=(absent, failing)), PLACE)
    assert caught.value.remedy == said


def test_a_value_is_read_anew_each_time(world: World) -> None:
    """Nothing is kept: what is there now counts."""
    reference = world.put("key", b"dummy-before")
    assert read(reference).reveal() == b"dummy-before"
    if not reference.startswith("sealed:"):
        assert world.put("key", b"dummy-after") == reference
        assert read(reference).reveal() == b"dummy-after"


def test_only_what_can_change_unseen_is_asked_again(world: World) -> None:
    """``ttl_seconds`` is for programs, keyrings and own sources; elsewhere it is an error."""
    reference = world.put("key", b"dummy-key")
    assert ttl(SecretSettings(references=(reference,))) is None
    if reference.partition(":")[0] in {"exec", "keyring", "acme"}:
        assert ttl(SecretSettings(references=(reference,), ttl_seconds=300)) == 300
        return
    with pytest.raises(ValueError, match="ttl_seconds is for exec"):
        SecretSettings(references=(reference,), ttl_seconds=300)
    with pytest.raises(ValueError, match="timeout_seconds is for exec"):
        SecretSettings(references=(reference,), timeout_seconds=3)


def test_the_demo_has_a_key_of_its_own() -> None:
    """The built-in provider's key needs nothing."""
    assert read("builtin:demo").reveal() == DEMO_KEY
