"""Sealed values: whoever has the public key seals, only the proxy's private key opens.

HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305, as
``cryptography`` has it. It hides a value and ties it to its place; it does not say who sealed it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from proxy.errors import KeyrelayError
from proxy.secrets.envelope import Envelope, SealBinding, binding

HEADER = "# Keys for sealed values of keyrelay. Whoever reads this file can open them.\n"
"""First line of a file of keys."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PUBLIC, _PRIVATE = "keyrelay-public-", "keyrelay-private-"


class UnsealError(KeyrelayError):
    """A sealed value does not open here. The text says what to do; never a value or a key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What suffices to seal. Its text, ``keyrelay-public-…``, may be shown to anybody."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """Eight hex digits that name the key in sealed values and files."""
        return hashlib.sha256(self.raw).hexdigest()[:8]

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """A key from its text. Raises ValueError, without the text: it may be the private part."""
        if text.startswith(_PRIVATE):
            raise ValueError("this is the private part of a key\ngive the public part")
        raw = _decoded(text, _PUBLIC)
        if raw is None or not _usable(raw):
            raise ValueError("this is no public key\nkeyrelay keygen --public prints yours")
        return cls(raw)

    def seal(self, value: bytes, place: SealBinding, slot: str) -> Envelope:
        """Seal a value for the secret ``slot`` of the route at ``place``."""
        public = X25519PublicKey.from_public_bytes(self.raw)
        data = _SUITE.encrypt(value, public, binding(place, slot))
        return Envelope.of(self.key_id, data, place, slot)

    def __str__(self) -> str:
        return _PUBLIC + _encoded(self.raw)


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A whole key: what opens, its public part, and the day it was made."""

    public: PublicKey
    created: datetime.date
    _private: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, created: datetime.date) -> SealingKey:
        """A new key."""
        private = X25519PrivateKey.generate()
        return cls(PublicKey(private.public_key().public_bytes_raw()), created, private)

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def line(self) -> str:
        """The key as a file has it. Holds the private part: for that file alone."""
        private = _PRIVATE + _encoded(self._private.private_bytes_raw())
        return f"{self.key_id} {self.created.isoformat()} {private} {self.public}\n"

    def open(self, envelope: Envelope, place: SealBinding, slot: str) -> bytes:
        """The value, if it was sealed to this key for this place. Raises UnsealError."""
        if remedy := envelope.mismatch(place, slot):
            raise UnsealError(remedy)
        try:
            return _SUITE.decrypt(envelope.data, self._private, binding(place, slot))
        except InvalidTag:
            raise UnsealError("seal the value anew: it was changed after it was sealed") from None


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a file, oldest first. ``origin`` names the file for messages."""

    keys: tuple[SealingKey, ...]
    origin: str

    @property
    def newest(self) -> SealingKey:
        """The key to seal to: the last one."""
        return self.keys[-1]

    def find(self, key_id: str) -> SealingKey:
        """The key of that id. Raises UnsealError."""
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise UnsealError(
            f"bring the key {key_id} with which the value was sealed, or seal it anew: "
            f"{self.origin} has no such key"
        )

    def open(self, envelope: Envelope, place: SealBinding, slot: str) -> bytes:
        """The value. Raises UnsealError, for an unknown key as for a wrong place."""
        return self.find(envelope.key_id).open(envelope, place, slot)


def parse_keys(text: str, origin: str) -> Keys:
    """Keys from lines of id, day, private and public part; ``#`` begins a comment.

    Raises ValueError with the number of the line, never its text.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _parse_key(words)
        if key is None:
            raise ValueError(f"line {number} of {origin} is no key")
        keys.append(key)
    if not keys:
        raise ValueError(f"{origin} holds no key")
    return Keys(tuple(keys), origin)


def _parse_key(words: Iterable[str]) -> SealingKey | None:
    match tuple(words):
        case (key_id, day, private, public):
            raw = _decoded(private, _PRIVATE)
        case _:
            return None
    if raw is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        return None
    try:
        created = datetime.date.fromisoformat(day)
    except ValueError:
        return None
    whole = X25519PrivateKey.from_private_bytes(raw)
    key = SealingKey(PublicKey(whole.public_key().public_bytes_raw()), created, whole)
    return key if (key.key_id, str(key.public)) == (key_id, public) else None


def _usable(raw: bytes) -> bool:
    """Whether it is no point of small order: anybody could open (RFC 7748 section 6.1)."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return False
    return True


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(text: str, prefix: str) -> bytes | None:
    """The 32 bytes of a key, which have 43 letters without padding; None if it has others."""
    if not re.fullmatch(prefix + "[A-Za-z0-9_-]{43}", text):
        return None
    return base64.urlsafe_b64decode(text.removeprefix(prefix) + "=")
