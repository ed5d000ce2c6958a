"""Sealing of values: a public key seals, only the proxy's private key opens.

HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305,
implemented by ``cryptography``. It encrypts a value and binds it to a route, origin and name; it
does not authenticate the sender.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from proxy.errors import ConfigValueError, KeyrelayError
from proxy.secrets import base64url
from proxy.secrets.envelope import Envelope, SealBinding, hpke_info

HEADER = "# Keys for sealed values of keyrelay. Keep private: this file opens all of them.\n"
"""First line of a key file."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_PUBLIC, _PRIVATE = "keyrelay-public-", "keyrelay-private-"


class UnsealError(KeyrelayError):
    """A sealed value cannot be opened. The message is a remedy, never a value or a key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public part of a key: it seals. Its text, ``keyrelay-public-…``, is not secret."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """Eight hex digits that identify the key in sealed values and key files."""
        return hashlib.sha256(self.raw).hexdigest()[:8]

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Parse the text of a public key.

        Raises ConfigValueError without the text, which may be the private part.
        """
        if text.startswith(_PRIVATE):
            raise ConfigValueError("this is the private part of a key", "pass the public part")
        raw = _decoded(text, _PUBLIC)
        if raw is None or not _usable(raw):
            raise ConfigValueError("invalid public key", "keyrelay keygen --public prints yours")
        return cls(raw)

    def seal(self, value: bytes, binding: SealBinding, slot: str) -> Envelope:
        """Seal a value for the secret ``slot`` of the route and origin of ``binding``."""
        public = X25519PublicKey.from_public_bytes(self.raw)
        data = _SUITE.encrypt(value, public, hpke_info(binding, slot))
        return Envelope.of(self.key_id, data, binding, slot)

    def __str__(self) -> str:
        return _PUBLIC + base64url.encode(self.raw)


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key pair: the private part, which opens, the public part, and the creation date."""

    public: PublicKey
    created: datetime.date
    _private: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, created: datetime.date) -> SealingKey:
        """Generate a key."""
        private = X25519PrivateKey.generate()
        return cls(PublicKey(private.public_key().public_bytes_raw()), created, private)

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def line(self) -> str:
        """Return the key's line in a key file. Contains the private part."""
        private = _PRIVATE + base64url.encode(self._private.private_bytes_raw())
        return f"{self.key_id} {self.created.isoformat()} {private} {self.public}\n"

    def open(self, envelope: Envelope, binding: SealBinding, slot: str) -> bytes:
        """Return the value sealed to this key for this binding. Raises UnsealError."""
        if remedy := envelope.mismatch(binding, slot):
            raise UnsealError(remedy)
        try:
            return _SUITE.decrypt(envelope.data, self._private, hpke_info(binding, slot))
        except InvalidTag:
            raise UnsealError("seal the value again: it was modified after sealing") from None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a key file, oldest first. ``origin`` names the file in messages."""

    keys: tuple[SealingKey, ...]
    origin: str

    @property
    def newest(self) -> SealingKey:
        """The last key, to which new values are sealed."""
        return self.keys[-1]

    def find(self, key_id: str) -> SealingKey:
        """Return the key with that ID. Raises UnsealError."""
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise UnsealError(
            f"add the key {key_id} to which the value was sealed, or seal the value again: "
            f"{self.origin} has no such key"
        )

    def open(self, envelope: Envelope, binding: SealBinding, slot: str) -> bytes:
        """Return the value. Raises UnsealError for an unknown key or another binding."""
        return self.find(envelope.key_id).open(envelope, binding, slot)


def parse_keys(text: str, origin: str) -> Keys:
    """Parse lines of ID, date, private part and public part; ``#`` begins a comment.

    Raises ValueError with the line number, never the text of the line.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        columns = line.split()
        if not columns or columns[0].startswith("#"):
            continue
        key = _parse_key(columns)
        if key is None:
            raise ValueError(f"line {number} of {origin} is not a key")
        keys.append(key)
    if not keys:
        raise ValueError(f"{origin} has no key")
    return Keys(tuple(keys), origin)


def _parse_key(columns: Iterable[str]) -> SealingKey | None:
    match tuple(columns):
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
    """Return whether the key is no small-order point, whose shared secret is public.

    RFC 7748 section 6.1.
    """
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return False
    return True


def _decoded(text: str, prefix: str) -> bytes | None:
    """Decode the 32 bytes of a key: 43 unpadded base64url digits. None if malformed."""
    if not re.fullmatch(prefix + "[A-Za-z0-9_-]{43}", text):
        return None
    return base64url.decode(text.removeprefix(prefix))
