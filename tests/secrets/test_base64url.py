"""Unpadded base64url."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets import base64url


def test_the_example_of_the_rfc() -> None:
    """RFC 7515 appendix C: the URL safe alphabet, no padding."""
    assert base64url.encode(bytes([3, 236, 255, 224, 193])) == "A-z_4ME"
    assert base64url.decode("A-z_4ME") == bytes([3, 236, 255, 224, 193])


@given(st.binary(max_size=100))
def test_decoding_inverts_encoding(data: bytes) -> None:
    """Any bytes, of any length modulo 3."""
    assert base64url.decode(base64url.encode(data)) == data


def test_a_length_that_no_encoding_has() -> None:
    """One character encodes no whole byte."""
    with pytest.raises(ValueError):  # noqa: PT011  binascii's own text
        base64url.decode("A")
