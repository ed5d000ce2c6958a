"""Render placements and secret values to the bytes that are injected into a request."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote_from_bytes

from proxy.auth.message_injection import message_rule
from proxy.config.placement import (
    BasicPlacement,
    CookiePlacement,
    HeaderPlacement,
    MessagePlacement,
    PathPlacement,
    Placement,
    QueryPlacement,
)
from proxy.config.template import Template, parse_template
from proxy.http.abnf import FIELD_VALUE
from proxy.secrets.redaction import SHORTEST, Redactor
from proxy.websocket.message_rules import MessageRule

# RFC 6265 section 4.1.1: characters allowed in a cookie value.
_COOKIE = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
# RFC 3986 section 3.3: characters that need no encoding within a path segment.
_SEGMENT_SAFE = "!$&'()*+,;=:@"


def inject(
    placements: Iterable[Placement],
    values: Mapping[str, bytes],
    others: Collection[Mapping[str, bytes]] = (),
) -> Injection:
    """Return the credential in all its placements.

    values  values of the names in the templates
    others  alternative values, which are redacted in responses as well

    Raises ValueError, without the value, if a value does not fit its placement.
    """
    headers, query, path, cookies, messages = b"", [], b"", [], []
    secrets: set[bytes] = set()
    for placement in placements:
        for template in placement.templates.values():
            for one in (values, *others):
                secrets.update(_sent(parse_template(template), one))
        match placement:
            case HeaderPlacement():
                value = _render(placement.value, values)
                if FIELD_VALUE.fullmatch(value) is None:
                    raise ValueError(f"a value for the header {placement.header} has a line break")
                headers += b"%b: %b\r\n" % (placement.header.encode(), value)
            case BasicPlacement():
                pair = _basic(placement, values)
                secrets.update((pair, *(_basic(placement, one) for one in others)))
                headers += b"Authorization: Basic %b\r\n" % pair
            case QueryPlacement():
                value = _quoted(_render(placement.value, values), "")
                query.append(b"%b=%b" % (_quoted(placement.query.encode(), "$:"), value))
            case PathPlacement():
                path = b"".join(_segment(piece, values) for piece in _pieces(placement.path))
            case CookiePlacement():
                value = _render(placement.value, values)
                if _COOKIE.fullmatch(value) is None:
                    raise ValueError(f"a value for the cookie {placement.cookie} cannot be in one")
                cookies.append(b"%b=%b" % (placement.cookie.encode(), value))
            case MessagePlacement():
                messages.append(placement.message)
    if cookies:
        headers += b"Cookie: %b\r\n" % b"; ".join(cookies)
    message = message_rule(messages, values) if messages else None
    return Injection(headers, b"&".join(query), path, Redactor(secrets), message=message)


def _render(template: str, values: Mapping[str, bytes]) -> bytes:
    return parse_template(template).render(values)


def _sent(template: Template, values: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield the parts of a rendered template that come from secrets.

    Of a JSON secret that is the field, since the provider never receives the document. Parts that
    are too short to be redacted by themselves are yielded with all that is between them as well.
    """
    pieces = template.pieces
    places = [at for at, piece in enumerate(pieces) if isinstance(piece, str)]
    parts = [Template((pieces[at],)).render(values) for at in places]
    yield from parts
    if len(parts) > 1 and any(len(part) < SHORTEST for part in parts):
        yield Template(pieces[places[0] : places[-1] + 1]).render(values)


def _basic(placement: BasicPlacement, values: Mapping[str, bytes]) -> bytes:
    """Encode Basic credentials. The user name has no colon (RFC 7617 section 2)."""
    username = _render(placement.basic.username, values)
    if b":" in username:
        raise ValueError("the user name of Basic authorization has a colon")
    return base64.b64encode(username + b":" + _render(placement.basic.password, values))


def _pieces(template: str) -> tuple[bytes | str, ...]:
    return parse_template(template).pieces


def _segment(piece: bytes | str, values: Mapping[str, bytes]) -> bytes:
    """Render part of a path; a value is encoded after a field of it has been selected."""
    if isinstance(piece, bytes):
        return piece
    return _quoted(Template((piece,)).render(values), _SEGMENT_SAFE)


def _quoted(value: bytes, safe: str) -> bytes:
    return quote_from_bytes(value, safe=safe).encode("ascii")


class RequestProof(Protocol):
    """Proof of possession that each request needs besides its credential (RFC 9449)."""

    def fields(self, method: bytes, path: bytes) -> bytes:
        """Return field lines, each ended by CRLF, for a request with this raw path (no query)."""

    def take_challenge(self, nonces: Sequence[bytes], challenges: Sequence[bytes]) -> bool:
        """Store the nonce of a response; return whether only the proof was rejected.

        ``nonces`` and ``challenges`` are the values of ``DPoP-Nonce`` and ``WWW-Authenticate``.
        """


@dataclass(frozen=True, slots=True, repr=False)
class Injection:
    """A credential in its placements, ready to be inserted. Contains secret bytes: never printed.

    headers   field lines, each ended by CRLF
    query     ``name=value`` pairs joined by ``&``
    path      inserted between the upstream's base path and the rest; starts with ``/`` or is empty
    redactor  redacts the credential in responses
    proof     creates the proof for each request with the credential, None if it needs none
    message   places the credential in the first messages of a WebSocket, None for none
    """

    headers: bytes = b""
    query: bytes = b""
    path: bytes = b""
    redactor: Redactor = field(default_factory=lambda: Redactor(()), compare=False)
    proof: RequestProof | None = None
    message: MessageRule | None = None

    def __repr__(self) -> str:
        return "<injection>"


class Injections(NamedTuple):
    """The injections for HTTP requests and for WebSocket handshakes; None without a placement."""

    http: Injection | None
    websocket: Injection | None


@dataclass(frozen=True, slots=True)
class Placements:
    """The placements of a strategy for HTTP requests and WebSocket handshakes; None for none."""

    http: tuple[Placement, ...] | None
    websocket: tuple[Placement, ...] | None

    def inject(
        self, values: Mapping[str, bytes], others: Collection[Mapping[str, bytes]] = ()
    ) -> Injections:
        """Return the credential for both kinds of requests. Raises ValueError as ``inject``."""
        return Injections(
            None if self.http is None else inject(self.http, values, others),
            None if self.websocket is None else inject(self.websocket, values, others),
        )
