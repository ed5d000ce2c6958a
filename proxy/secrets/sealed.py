"""``sealed:…``: a value that stands in the routes file and opens for its route and origin alone."""

from __future__ import annotations

from proxy.secrets.envelope import Place, parse_envelope
from proxy.secrets.source import Unusable


def read_sealed(text: str, slot: str, place: Place | None) -> bytes:
    """Open a sealed value for the secret ``slot`` of a route. Raises Unusable."""
    # cryptography takes long to load, and most routes files have nothing sealed.
    from proxy.secrets.keyfile import read_keys
    from proxy.secrets.sealing import NotOpened

    if place is None:
        raise Unusable("use another source here: only secrets of routes can be sealed")
    envelope = parse_envelope(text)
    try:
        return read_keys().open(envelope, place, slot)
    except NotOpened as error:
        raise Unusable(str(error)) from None
