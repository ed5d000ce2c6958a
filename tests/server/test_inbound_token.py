"""The token that clients bring to keyrelay: which ones count, and that nothing tells wrong ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import KeyrelayError, Refusal
from proxy.http.headers import CREDENTIAL_HEADERS, CREDENTIAL_SUBPROTOCOLS
from proxy.http.headers import INBOUND_HEADER as HEADER
from proxy.http.headers import INBOUND_SUBPROTOCOL as SUBPROTOCOL
from proxy.http.request import Request
from proxy.secrets.secret import Secret
from proxy.server.inbound_token import MIN_BYTES, InboundToken

VALUE = b"dummy-inbound-0123456789"
PAGE = "http://localhost:5173"


def token(value: bytes = VALUE) -> InboundToken:
    return InboundToken(Secret("inbound_token", value))


def bringing(*fields: tuple[bytes, bytes], websocket: bool = False) -> Request:
    """A request with these field lines, bytes as they came."""
    headers: CIMultiDict[str] = CIMultiDict()
    return Request("GET", b"/x", fields, CIMultiDictProxy(headers), websocket=websocket)


def refusal(*fields: tuple[bytes, bytes], websocket: bool = False) -> Refusal | None:
    try:
        token().require(bringing(*fields, websocket=websocket), None)
    except Refusal as refused:
        return refused
    return None


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Authorization", b"Bearer " + VALUE)],
        [(b"authorization", b"bearer   " + VALUE)],
        [(b"X-Keyrelay-Token", VALUE)],
        [(b"x-keyrelay-token", VALUE)],
        [(b"Authorization", b"Bearer dummy"), (b"X-Keyrelay-Token", VALUE)],
        [(b"X-Keyrelay-Token", b"dummy"), (b"X-Keyrelay-Token", VALUE)],
        [(b"Authorization", b"Basic x"), (b"Authorization", b"Bearer " + VALUE)],
    ],
)
def test_each_carrier_counts(fields: list[tuple[bytes, bytes]]) -> None:
    """Any carrier with the token lets in, whatever an SDK puts into the others."""
    assert refusal(*fields) is None


@pytest.mark.parametrize("offer", [b"%b", b"chat, %b", b"%b ,chat", b"chat,\t%b"])
@pytest.mark.parametrize("prefix", [SUBPROTOCOL, SUBPROTOCOL.upper()])
def test_a_websocket_may_offer_it(offer: bytes, prefix: bytes) -> None:
    """As one of the subprotocols, and only of a WebSocket."""
    field = (b"Sec-WebSocket-Protocol", offer % (prefix + VALUE))
    assert refusal(field, websocket=True) is None
    assert refusal(field) is not None


def test_every_wrong_token_gets_the_same_response() -> None:
    """Missing, wrong, too short, too long, no text: one refusal, with the scheme to use."""
    wrong: Sequence[list[tuple[bytes, bytes]]] = (
        [],
        [(b"Authorization", b"Bearer")],
        [(b"Authorization", b"Bearer ")],
        [(b"Authorization", VALUE)],
        [(b"Authorization", b"Basic " + VALUE)],
        [(b"X-Keyrelay-Token", VALUE[:-1])],
        [(b"X-Keyrelay-Token", VALUE + b"0")],
        [(b"X-Keyrelay-Token", b"\xe9\xff")],
        [(b"X-Keyrelay-Token", hashlib.sha256(VALUE).hexdigest().encode())],
        [(b"X_Keyrelay_Token", VALUE)],
        [(b"Cookie", b"token=" + VALUE)],
    )
    said = set()
    for fields in wrong:
        refused = refusal(*fields)
        assert refused is not None
        said.add((refused.status, refused.kind, refused.detail, refused.advice, refused.headers))
        assert VALUE.decode() not in str(vars(refused))
    ((status, kind, _, _, headers),) = said
    assert (status, kind, headers) == (401, "token-needed", (("WWW-Authenticate", "Bearer"),))


def test_an_allowed_page_may_read_the_refusal() -> None:
    """Its script learns that a token is missing, and not just that something failed."""
    with pytest.raises(Refusal) as caught:
        token().require(bringing(), PAGE)
    assert ("Access-Control-Allow-Origin", PAGE) in caught.value.headers
    assert ("Vary", "Origin") in caught.value.headers


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_can_be_compared(value: bytes, websocket: bool) -> None:
    """Whatever a client sends as a token is compared, and only the token is right."""
    for field in (
        (b"Authorization", b"Bearer " + value),
        (b"X-Keyrelay-Token", value),
        (b"Sec-WebSocket-Protocol", SUBPROTOCOL + value),
    ):
        assert refusal(field, websocket=websocket) is not None


def test_a_token_that_could_be_guessed_is_refused() -> None:
    """15 bytes are too few, 16 are enough; the message shows how to make one, and none of it."""
    with pytest.raises(KeyrelayError, match="openssl rand") as caught:
        token(b"dummy-0123456789"[: MIN_BYTES - 1])
    assert "dummy" not in str(caught.value)
    token(b"dummy-0123456789")


@pytest.mark.parametrize(
    "value", [b"dummy inbound token 1", "dummy-tökentöken".encode(), b"dummy\nsecond line of it"]
)
def test_a_token_that_no_header_carries_is_refused(value: bytes) -> None:
    """Blanks, other alphabets, several lines: clients would send them in different ways."""
    with pytest.raises(KeyrelayError, match="ASCII") as caught:
        token(value)
    assert "dummy" not in str(caught.value)


def test_it_stays_here() -> None:
    """Its carriers are among those that are removed; what is kept of it is no token."""
    assert HEADER in CREDENTIAL_HEADERS
    assert SUBPROTOCOL in CREDENTIAL_SUBPROTOCOLS
    assert not hasattr(token(), "__dict__")
    assert VALUE not in getattr(token(), "_digest")  # noqa: B009  private, and looked at on purpose
