from __future__ import annotations

import datetime
import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.envelope import Envelope, SealBinding, hpke_info, parse_envelope, seal_binding
from proxy.secrets.sealing import HEADER, Keys, PublicKey, SealingKey, UnsealError, parse_keys

DAY = datetime.date(2026, 11, 21)
KEY = SealingKey.generate(DAY)
PLACE = seal_binding("hume", "https://api.hume.ai")
VALUE = b"dummy-sealed-value"


class Recipient:
    """RFC 9180 written out for one suite, so that the library is not judge of itself."""

    _KEM = b"KEM\x00\x20"
    _SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"

    def __init__(self, private: bytes, enc: bytes, info: bytes) -> None:
        """Base mode: sections 4.1 (Decap) and 5.1 (KeySchedule)."""
        key = X25519PrivateKey.from_private_bytes(private)
        shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
        context = enc + key.public_key().public_bytes_raw()
        prk = self._extract(self._KEM, b"", b"eae_prk", shared)
        secret = self._expand(self._KEM, prk, b"shared_secret", context, 32)
        schedule = (
            b"\0"
            + self._extract(self._SUITE, b"", b"psk_id_hash", b"")
            + self._extract(self._SUITE, b"", b"info_hash", info)
        )
        root = self._extract(self._SUITE, secret, b"secret", b"")
        self.key = self._expand(self._SUITE, root, b"key", schedule, 32)
        self.nonce = self._expand(self._SUITE, root, b"base_nonce", schedule, 12)

    def open(self, ciphertext: bytes, aad: bytes) -> bytes:
        """The first message: section 5.2."""
        return ChaCha20Poly1305(self.key).decrypt(self.nonce, ciphertext, aad)

    @staticmethod
    def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

    @staticmethod
    def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(prk, labelled + b"\x01", "sha256")[:length]


def test_the_published_vector_of_the_suite() -> None:
    """RFC 9180 appendix A.2.1: the suite of this file is the one that is written down there."""
    recipient = Recipient(
        bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"),
        bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"),
        bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"),
    )
    assert recipient.key.hex() == (
        "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"
    )
    assert recipient.nonce.hex() == "5c4d98150661b848853b547f"
    ciphertext = bytes.fromhex(
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
    )
    assert recipient.open(ciphertext, b"Count-0") == b"Beauty is truth, truth beauty"


def test_what_is_sealed_is_hpke_of_that_suite() -> None:
    """The same steps open what the library sealed, with the place as ``info`` and no more."""
    envelope = KEY.public.seal(VALUE, PLACE, "api_key")
    private = private_bytes(KEY)
    enc, ciphertext = envelope.data[:32], envelope.data[32:]
    assert Recipient(private, enc, hpke_info(PLACE, "api_key")).open(ciphertext, b"") == VALUE
    with pytest.raises(InvalidTag):
        Recipient(private, enc, hpke_info(PLACE, "other")).open(ciphertext, b"")


def private_bytes(key: SealingKey) -> bytes:
    import base64

    return base64.urlsafe_b64decode(key.line().split()[2].removeprefix("keyrelay-private-") + "=")


@given(
    value=st.binary(max_size=200),
    route=st.text(max_size=20),
    origin=st.text(max_size=20),
    slot=st.text(max_size=20),
)
def test_a_value_comes_out_as_it_went_in(value: bytes, route: str, origin: str, slot: str) -> None:
    """Whatever the value and the place are; twice sealed are two texts."""
    place = SealBinding(route, origin)
    first, second = (KEY.public.seal(value, place, slot) for _ in range(2))
    assert str(first) != str(second)
    assert KEY.open(parse_envelope(str(first)), place, slot) == value


@pytest.mark.parametrize(
    ("place", "slot", "words"),
    [
        (seal_binding("hume-2", "https://api.hume.ai"), "api_key", "for another route"),
        (seal_binding("hume", "https://api.hume.ai.evil.dev"), "api_key", "for another host"),
        (seal_binding("hume", "https://api.hume.ai:8443"), "api_key", "for another host"),
        (seal_binding("hume", "http://api.hume.ai"), "api_key", "for another host"),
        (PLACE, "secret_key", "for another secret of the route"),
    ],
)
def test_a_value_that_was_moved_does_not_open(place: SealBinding, slot: str, words: str) -> None:
    """It opens for one secret of one route at one origin, and says what differs."""
    envelope = KEY.public.seal(VALUE, PLACE, "api_key")
    with pytest.raises(UnsealError, match=words) as caught:
        KEY.open(envelope, place, slot)
    assert VALUE.decode() not in str(caught.value)
    # A claim that lies changes the message, not the outcome.
    forged = Envelope.of(KEY.key_id, envelope.data, place, slot)
    with pytest.raises(UnsealError, match="modified after sealing"):
        KEY.open(forged, place, slot)


def test_another_path_of_the_same_host_opens() -> None:
    """A base path is no origin: a new version of the API needs no new seal."""
    envelope = KEY.public.seal(VALUE, PLACE, "api_key")
    assert (
        KEY.open(envelope, seal_binding("hume", "https://API.hume.ai:443/v1"), "api_key") == VALUE
    )


def test_a_key_that_is_not_there_is_named() -> None:
    """Several keys by id; an unknown one is asked for by its id."""
    other = SealingKey.generate(DAY)
    both = Keys((KEY, other), "keys")
    envelope = other.public.seal(VALUE, PLACE, "api_key")
    assert both.open(envelope, PLACE, "api_key") == VALUE
    assert both.newest is other
    with pytest.raises(UnsealError, match=f"add the key {other.key_id}"):
        Keys((KEY,), "keys").open(envelope, PLACE, "api_key")


def test_a_value_under_another_key_s_id_does_not_open() -> None:
    """The id finds a key and proves nothing."""
    other = SealingKey.generate(DAY)
    data = other.public.seal(VALUE, PLACE, "api_key").data
    with pytest.raises(UnsealError, match="modified"):
        KEY.open(Envelope.of(KEY.key_id, data, PLACE, "api_key"), PLACE, "api_key")


def test_the_public_part_suffices_to_seal() -> None:
    """Its text can be sent around; its id is the beginning of its SHA-256."""
    public = PublicKey.parse(str(KEY.public))
    assert KEY.open(public.seal(VALUE, PLACE, "k"), PLACE, "k") == VALUE
    assert public.key_id == hashlib.sha256(public.raw).hexdigest()[:8] == KEY.key_id


@pytest.mark.parametrize(
    "text",
    ["", "dummy", "keyrelay-public-", "keyrelay-public-" + "A" * 43, "keyrelay-public-" + "A" * 42],
)
def test_what_is_no_public_key(text: str) -> None:
    """Nor is the point at infinity one, with which anyone could open."""
    with pytest.raises(ValueError, match="invalid public key"):
        PublicKey.parse(text)


def test_the_private_part_is_not_taken_for_the_public_one() -> None:
    """A slip while pasting is told, and not repeated."""
    private = KEY.line().split()[2]
    with pytest.raises(ValueError, match="private part") as caught:
        PublicKey.parse(private)
    assert private not in str(caught.value)
    assert private.removeprefix("keyrelay-private-") not in f"{KEY!r} {KEY}"


def test_a_file_of_keys() -> None:
    """A line for each key, comments aside; the last is the newest."""
    other = SealingKey.generate(DAY)
    read = parse_keys(f"{HEADER}\n{KEY.line()}# the next\n{other.line()}", "keys")
    assert [(one.key_id, one.created) for one in read.keys] == [
        (KEY.key_id, DAY),
        (other.key_id, DAY),
    ]
    envelope = KEY.public.seal(VALUE, PLACE, "k")
    assert read.open(envelope, PLACE, "k") == VALUE


def broken_lines() -> list[str]:
    key_id, day, private, public = KEY.line().split()
    other = SealingKey.generate(DAY)
    return [
        f"{key_id} {day} {private}",
        f"{key_id} {day} {private[:-1]} {public}",
        f"{key_id} 2026-13-01 {private} {public}",
        f"{key_id} today {private} {public}",
        f"{other.key_id} {day} {private} {public}",
        f"{key_id} {day} {private} {other.public}",
        f"{key_id} {day} {public} {private}",
    ]


@pytest.mark.parametrize("line", broken_lines(), ids=map(str, range(1, 8)))
def test_a_line_that_is_no_key(line: str) -> None:
    """The message has the line's number and nothing of what it says."""
    with pytest.raises(ValueError, match=r"^line 2 of keys is not a key$"):
        parse_keys(f"{HEADER}{line}\n", "keys")


def test_a_file_without_keys() -> None:
    """Comments are no keys."""
    with pytest.raises(ValueError, match="keys has no key"):
        parse_keys(HEADER, "keys")
