"""``sealed:…``: a value that stands in the routes file and opens for its route and origin alone."""

from __future__ import annotations

from proxy.secrets.envelope import SealBinding, parse_envelope
from proxy.secrets.source import SourceError


def read_sealed(text: str, slot: str, place: SealBinding | None) -> bytes:
    """Open a sealed value for the secret ``slot`` of a route. Raises SourceError."""
    # cryptography takes long to load, and most routes files have nothing sealed.
    from proxy.secrets.keyfile import read_keys
    from proxy.secrets.sealing import UnsealError

    if place is None:
        raise SourceError("use another source here: only secrets of routes can be sealed")
    envelope = parse_envelope(text)
    try:
        return read_keys().open(envelope, place, slot)
    except UnsealError as error:
        raise SourceError(str(error)) from None
