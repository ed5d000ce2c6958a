"""Tests of auth/jwt.py: what is signed is read at the other side with PyJWT."""

from __future__ import annotations

import datetime
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from proxy.auth.tokens.jwt import JwtTokenSource, Signer
from tests.support.clock import ManualClock
from tests.support.signing_keys import key_for

SHARED = b"CANARY-dummy-shared-secret-" + b"x" * 40
RSA_KEY = key_for("RS256")
ALGORITHMS = [
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
]


def pem(private: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return bytes(private.private_bytes(Encoding.PEM, form, NoEncryption()))


def public_pem(private: Any) -> bytes:
    return bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def key_of(algorithm: str) -> bytes:
    return SHARED if algorithm.startswith("HS") else pem(key_for(algorithm))


def signer(algorithm: str = "HS256", key: bytes | None = None, **more: Any) -> Signer:
    settings: dict[str, Any] = {
        "key_id": None,
        "header_type": "JWT",
        "claims": {"iss": "dummy-issuer", "aud": "https://api.example"},
        "valid_seconds": 300,
        **more,
    }
    clock = settings.pop("clock", None) or ManualClock()
    return Signer(clock, algorithm=algorithm, key=key or key_of(algorithm), **settings)


def claims_of(token: bytes) -> dict[str, Any]:
    """Claims of a token by ``signer()``; its times are the manual clock's, and not checked."""
    return jwt.decode(
        token,
        SHARED,
        ["HS256"],
        audience="https://api.example",
        options={"verify_exp": False, "verify_iat": False},
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_other_side_accepts_what_is_signed(algorithm: str) -> None:
    """With the public key, by the algorithm of the settings and no other, now."""

    token = signer(algorithm, clock=ManualClock(wall=time.time())).sign()
    public = SHARED if algorithm.startswith("HS") else key_for(algorithm).public_key()
    claims = jwt.decode(
        token, public, [algorithm], audience="https://api.example", issuer="dummy-issuer"
    )
    assert set(claims) == {"iss", "aud", "iat", "exp", "jti"}
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT"}


def test_ed448_is_eddsa_too() -> None:
    """RFC 8037 has two curves under one name."""
    private = ed448.Ed448PrivateKey.generate()
    token = signer("EdDSA", pem(private)).sign()
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    assert jwt.decode(token, private.public_key(), ["EdDSA"], options=options)


def test_times_are_whole_seconds_around_now() -> None:
    """``iat`` a little early for clocks that differ, ``exp`` no further from it than allowed."""
    clock = ManualClock(wall=1_800_000_000.9)
    claims = claims_of(signer(clock=clock, valid_seconds=60).sign())
    assert (claims["iat"], claims["exp"]) == (1_799_999_995, 1_800_000_055)


@pytest.mark.parametrize("leeway_seconds", [0, 5, 30, 60])
def test_the_leeway_is_a_setting(leeway_seconds: float) -> None:
    """``iat`` lies that far in the past, and ``exp`` follows it: bounds on both distances hold."""
    clock = ManualClock(wall=1_800_000_000.0)
    one = signer(clock=clock, valid_seconds=3600, leeway_seconds=leeway_seconds)
    claims = claims_of(one.sign())
    assert claims["iat"] == 1_800_000_000 - leeway_seconds
    assert claims["exp"] - claims["iat"] == 3600
    assert one.lifetime_seconds == 3600 - leeway_seconds - 1


@pytest.mark.parametrize("valid_seconds", [0.2, 1, 1.5, 3])
def test_short_lives_end_in_the_future(valid_seconds: float) -> None:
    """However short: at least until the next whole second."""
    for fraction in (0.0, 0.5, 0.999):
        clock = ManualClock(wall=1_800_000_000 + fraction)
        claims = claims_of(signer(clock=clock, valid_seconds=valid_seconds).sign())
        assert clock.wall() < claims["exp"] <= clock.wall() + max(valid_seconds, 1)


def test_no_two_are_the_same() -> None:
    """``jti`` is random: a JWT that is good for one use is never used twice."""
    one = signer()
    ids = {claims_of(one.sign())["jti"] for _ in range(50)}
    assert len(ids) == 50
    assert min(map(len, ids)) >= 16


def test_headers_and_claims_of_the_settings() -> None:
    """Key id and type are in the header, and nothing by which a key could be slipped in."""
    token = signer(
        key_id="dummy-kid",
        header_type="at+jwt",
        claims={"aud": "https://api.example", "scope": "a b", "nested": {"n": [1, None]}},
    ).sign()
    assert jwt.get_unverified_header(token) == {
        "alg": "HS256",
        "typ": "at+jwt",
        "kid": "dummy-kid",
    }
    claims = claims_of(token)
    assert (claims["scope"], claims["nested"]) == ("a b", {"n": [1, None]})


def test_times_of_the_settings_do_not_win() -> None:
    """Whatever the claims say, a token ends when it is meant to."""
    claims = {"aud": "https://api.example", "exp": 9_999_999_999, "iat": 0, "jti": "same"}
    read = claims_of(signer(claims=claims).sign())
    assert read["exp"] == 1_800_000_295
    assert read["jti"] != "same"


async def test_a_jwt_may_itself_be_the_token() -> None:
    """It is kept for less than it is valid, its end being cut to a whole second."""
    clock = ManualClock(wall=1_800_000_000.9)
    minted = await JwtTokenSource(signer(clock=clock, valid_seconds=60)).fetch()
    assert clock.wall() + minted.lifetime_seconds <= claims_of(minted.value)["exp"]
    assert minted.lifetime_seconds == 54
    assert (await JwtTokenSource(signer(valid_seconds=1)).fetch()).lifetime_seconds > 0


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_keys_may_be_written_in_one_line(form: PrivateFormat) -> None:
    """As environment variables often have them, with \\n for the line breaks."""
    key = pem(RSA_KEY, form)
    assert signer("RS256", key).sign()
    assert signer("RS256", key.strip().replace(b"\n", b"\\n")).sign()


def complaint(algorithm: str, key: bytes, **more: Any) -> str:
    """What is said of a key; neither it nor its length, nor an error behind."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        signer(algorithm, key, **more)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "CANARY" not in f"{caught.value!r}"
    for line in key.splitlines():
        assert len(line) < 8 or line.decode("latin-1") not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "other"),
    [
        ("RS256", "ES256"),
        ("PS256", "EdDSA"),
        ("ES256", "RS256"),
        ("ES256", "ES384"),
        ("ES384", "ES256"),
        ("ES512", "ES256"),
        ("EdDSA", "ES256"),
        ("EdDSA", "RS256"),
        ("RS256", "EdDSA"),
    ],
)
def test_keys_of_another_kind(algorithm: str, other: str) -> None:
    """A key fits one family of algorithms and one curve (RFC 8725 section 3.1)."""
    assert complaint(algorithm, key_of(other)) == (
        f"the key is of another kind than {algorithm} needs"
    )


def test_keys_that_no_algorithm_takes() -> None:
    """DSA is a private key in PEM, and not one for JWTs."""
    private = dsa.generate_private_key(1024)
    for algorithm in ("RS256", "ES256", "EdDSA"):
        assert "another kind" in complaint(algorithm, pem(private))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384"])
def test_curves_that_no_algorithm_takes(algorithm: str) -> None:
    """secp256k1 is another curve of the same size."""
    assert "another kind" in complaint(algorithm, pem(ec.generate_private_key(ec.SECP256K1())))


@pytest.mark.parametrize("algorithm", ["RS256", "PS512"])
def test_short_rsa_keys(algorithm: str) -> None:
    """Less than 2048 bits is refused (RFC 7518 section 3.3)."""
    assert "shorter than 2048" in complaint(algorithm, pem(rsa.generate_private_key(65537, 1024)))


@pytest.mark.parametrize(("algorithm", "length"), [("HS256", 31), ("HS384", 47), ("HS512", 63)])
def test_short_shared_secrets(algorithm: str, length: int) -> None:
    """A key of fewer bits than the hash is refused (RFC 7518 section 3.2)."""
    assert "shorter than" in complaint(algorithm, b"k" * length)
    assert signer(algorithm, b"k" * (length + 1)).sign()


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_an_asymmetric_key_is_no_shared_secret(algorithm: str) -> None:
    """Neither half of one: the public half is no secret (RFC 8725 section 2.1)."""
    for key in (pem(RSA_KEY), public_pem(RSA_KEY)):
        assert complaint(algorithm, key) == f"the key for {algorithm} is not a shared secret"


@pytest.mark.parametrize(
    "key",
    [
        SHARED,
        pem(RSA_KEY)[:28] + b"CANARY" + pem(RSA_KEY)[-27:],
        b"\xff\x00",
        pem(RSA_KEY)[:-60],
        public_pem(RSA_KEY),
    ],
    ids=["shared", "hollow", "bytes", "cut", "public"],
)
def test_what_is_no_private_key(key: bytes) -> None:
    """It is said when the route is built, not with the first request."""
    assert complaint("RS256", key) == "the key for RS256 is no private key in PEM"


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_named_as_one(form: PrivateFormat) -> None:
    """It is a private key in PEM; what it lacks is to be decrypted, and that is what is advised."""
    key = RSA_KEY.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"CANARY"))
    text = complaint("RS256", key)
    assert "is encrypted" in text
    assert "openssl pkey" in text


@pytest.mark.parametrize(
    "claims",
    [{"iss": 17}, {"day": datetime.date(2026, 11, 21)}, {"b": b"CANARY"}, {"s": {1, 2}}],
)
def test_claims_that_cannot_be_written(claims: dict[str, Any]) -> None:
    """It is said when the route is built."""
    assert complaint("HS256", SHARED, claims=claims) == (
        "the claims or the header cannot be written as a JWT"
    )


def test_signers_are_never_printed() -> None:
    """Neither the key nor a token."""
    one = signer()
    assert "CANARY" not in f"{one!r}{one}{JwtTokenSource(one)!r}"
