"""A key pair keeps its key to itself."""

from __future__ import annotations

from proxy.secrets.key_pair import NEVER, KeyPair


def test_the_key_is_not_printed() -> None:
    """Neither by repr nor by str."""
    pair = KeyPair(b"certificate", b"dummy-private-key")
    assert "dummy" not in f"{pair!r}{pair}"
    assert pair.renew_at == NEVER
