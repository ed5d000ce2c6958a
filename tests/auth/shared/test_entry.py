"""Tests of auth/shared/entry.py: names and sealing of what is kept in Redis."""

from __future__ import annotations

from proxy.auth.shared.entry import SERIAL_BYTES, Entry

IDENTITY = b"dummy-identity"


def entry(identity: bytes = IDENTITY, purpose: str = "access", salt: bytes = b"") -> Entry:
    return Entry(identity, purpose, prefix="keyrelay", salt=salt)


def test_equal_sources_have_equal_entries() -> None:
    """Another keyrelay finds the name and opens the value."""
    sealed = entry().seal("token", {"token": "dummy"})
    assert entry().name("token") == entry().name("token")
    assert entry().open("token", sealed) == {"token": "dummy"}


def test_other_sources_have_other_entries() -> None:
    """Another secret, purpose or explicit key finds another name, and opens nothing."""
    sealed = entry().seal("token", {"token": "dummy"})
    for other in (
        entry(b"dummy-identity-2"),
        entry(purpose="refresh"),
        entry(salt=b"dummy-key"),
        entry(salt=b"dummy-key-2"),
    ):
        assert other.name("token") != entry().name("token")
        assert other.open("token", sealed) is None
    assert entry(salt=b"dummy-key").name("token") != entry(salt=b"dummy-key-2").name("token")


def test_a_value_belongs_to_its_name() -> None:
    """What is moved to another key of the same entry does not open there, nor what was cut."""
    sealed = entry().seal("token", {"token": "dummy"})
    assert entry().open("failure", sealed) is None
    assert entry().open("token", sealed[:-1]) is None
    assert entry().open("token", b"") is None


def test_each_value_has_its_own_beginning() -> None:
    """Two values of the same content can be told apart by their serial."""
    one, two = (entry().seal("token", {"token": "dummy"}) for _ in range(2))
    assert one[:SERIAL_BYTES] != two[:SERIAL_BYTES]
