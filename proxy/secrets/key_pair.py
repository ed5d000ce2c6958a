"""A certificate chain for TLS with clients, and its private key."""

from __future__ import annotations

from dataclasses import dataclass, field

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Certificate chain and private key, in PEM; the key is a secret.

    renew_at  when it is to be replaced, in seconds since the epoch; ``NEVER`` if keyrelay does not
              issue it
    """

    certificate: bytes
    key: bytes = field(repr=False)
    renew_at: float = NEVER
