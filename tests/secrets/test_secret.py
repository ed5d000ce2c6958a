"""A secret's value comes out by ``reveal`` and in no other way."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pickle
import pprint
from collections.abc import Callable

import pytest

from proxy.secrets.secret import Secret

VALUE = b"dummy-secret-value"


@pytest.fixture
def secret() -> Secret:
    """The secret under test."""
    return Secret("api_key", VALUE)


def test_reveal_gives_the_value(secret: Secret) -> None:
    """The credential that is made from it gets exactly the bytes of the source."""
    assert secret.reveal() == VALUE
    assert secret.name == "api_key"


@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        ascii,
        pprint.pformat,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  one of the ways to print
        lambda secret: "{0} {0!s:.5}".format(secret),  # noqa: UP032  and another
        lambda secret: str([secret]) + str({"key": secret}),
        lambda secret: json.dumps({"key": secret}, default=str),
    ],
)
def test_printing_shows_the_name(secret: Secret, shown: Callable[[Secret], str]) -> None:
    """T37: whichever way it gets into a text, the value does not."""
    text = shown(secret)
    assert "api_key" in text
    assert VALUE.decode() not in text
    assert VALUE.hex() not in text


def test_logging_shows_the_name(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    """T37: a secret among a log call's arguments does no harm."""
    logging.getLogger("keyrelay.test").warning("seen: %s %r", secret, secret)
    assert caplog.messages == ["seen: <secret api_key> <secret api_key>"]


@pytest.mark.parametrize(
    "leak",
    [
        lambda secret: secret == VALUE,
        lambda secret: secret != VALUE,
        lambda secret: secret == Secret("api_key", VALUE),
        lambda secret: VALUE in [secret],
        lambda secret: hash(secret),
        lambda secret: {secret},
        lambda secret: bytes(secret),
        lambda secret: len(secret),
        lambda secret: secret + b"",
        lambda secret: pickle.dumps(secret),
        copy.copy,
        copy.deepcopy,
        vars,
        json.dumps,
    ],
)
def test_what_could_leak_refuses(secret: Secret, leak: Callable[[object], object]) -> None:
    """T40: no comparison, no hash, no conversion, no copy, and no way to a disk."""
    with pytest.raises(TypeError) as caught:
        leak(secret)
    assert VALUE.decode() not in str(caught.value)


def test_fingerprint_tells_values_apart_and_nothing_else(secret: Secret) -> None:
    """Equal values have equal fingerprints under any name; none holds a part of its value."""
    assert secret.fingerprint() == Secret("other", VALUE).fingerprint()
    assert secret.fingerprint() != Secret("api_key", VALUE + b"!").fingerprint()
    assert len(secret.fingerprint()) == 8
    assert int(secret.fingerprint(), 16) >= 0


def test_a_digest_tells_values_apart(secret: Secret) -> None:
    """Whatever they are called, and in one process only; it is no digest that others could make."""
    assert secret.digest() == Secret("other", VALUE, "env:OTHER").digest()
    assert secret.digest() != Secret("api_key", VALUE + b"x").digest()
    assert len(secret.digest()) == 32
    assert secret.digest() != hashlib.sha256(VALUE).digest()
