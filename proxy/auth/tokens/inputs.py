"""What sources of tokens are made of beside their settings, and texts with secrets in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_from_bytes

from proxy.config.oauth2 import RefreshToken
from proxy.config.template import Template, parse_template
from proxy.config.token import Exec, TokenSettings
from proxy.upstream.egress_proxy import EgressProxy

Values = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class SourceInputs:
    """What a source is made of beside its settings. Holds secrets: never printed.

    values         the secrets by name
    base           the route's upstream, for URLs that are paths
    allow_private  as of the route, like ``allow_plaintext``
    references     where the secrets come from, by name: ``env:NAME``
    route          its name, for lines to the operator
    authorities    further CAs in PEM
    egress_proxy   the proxy for token endpoints that it serves
    """

    values: Values
    base: str
    allow_private: bool = False
    allow_plaintext: bool = False
    references: Mapping[str, str] = field(default_factory=dict)
    route: str = ""
    authorities: str = ""
    egress_proxy: EgressProxy | None = None


def identity_of(settings: TokenSettings, inputs: SourceInputs) -> str:
    """A digest of everything that decides which token one gets, and from where.

    Of one route. Only strategies with the same refresh token share their access token across
    routes: servers that issue a new refresh token each time revoke what the old one gave.
    """
    document = settings.model_dump(mode="json", by_alias=True, exclude={"refused", "url"})
    given = {**inputs.values, **dict.fromkeys(settings.given, b"")}
    url = getattr(settings, "url", None)
    parts = {
        # A command has its braces to itself.
        "settings": document if isinstance(settings, Exec) else _in_hex(document, given),
        "allow_private": inputs.allow_private,
        "allow_plaintext": inputs.allow_plaintext,
        # The source of a cached token keeps its way to the endpoint.
        "authorities": inputs.authorities,
        "egress_proxy": None if inputs.egress_proxy is None else inputs.egress_proxy.identity(),
        # A path is at the upstream; a whole URL is the same one for every route.
        "url": inputs.base if url is None else endpoint_url(url, inputs.values, inputs.base),
        "route": "" if isinstance(settings, RefreshToken) else inputs.route,
    }
    text = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(b"keyrelay token\0" + text).hexdigest()


def _in_hex(value: Any, values: Values) -> Any:
    """``value`` with every text in it rendered: a secret counts by its value, not by its name."""
    if isinstance(value, str):
        return render(value, values).hex()
    if isinstance(value, Mapping):
        return {key: _in_hex(one, values) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_in_hex(one, values) for one in value]
    return value


def endpoint_url(template: str, values: Values, base: str) -> str:
    """The URL, at the route's upstream if it is a path; values in it percent-encoded."""
    url = "".join(
        # By itself, as a field of a secret can only be found before it is encoded.
        quote_from_bytes(Template((piece,)).render(values), safe="")
        if isinstance(piece, str)
        else piece.decode("ascii")
        for piece in parse_template(template).pieces
    )
    return base + url if url.startswith("/") else url


def render(template: str, values: Values) -> bytes:
    """A text with its secrets. Raises ValueError, without a value, for an absent field."""
    return parse_template(template).render(values)


def render_text(template: str, values: Values) -> str:
    """The same as text. Raises ValueError as well if a secret is not UTF-8."""
    return decode(render(template, values))


def decode(value: bytes) -> str:
    """UTF-8. Raises ValueError without the value, as the library's has it."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a secret that goes into a text is not UTF-8") from None


def header_value(name: str, template: str, values: Values) -> str:
    """The value of a header field. Raises ValueError for one that would end it."""
    value = render_text(template, values)
    if re.search(r"[\0\r\n]", value):
        raise ValueError(f"a value for the header {name} has a line break")
    return value


def render_optional(template: str | None, values: Values) -> bytes | None:
    """A text with its secrets, None if there is no text."""
    return None if template is None else render(template, values)


def fill(value: Any, values: Values) -> Any:
    """``value`` with every text in it rendered, however deep."""
    if isinstance(value, str):
        return render_text(value, values)
    if isinstance(value, Mapping):
        return {key: fill(one, values) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [fill(one, values) for one in value]
    return value
