"""Secret source ``sealed:…``: an encrypted value in the routes file, bound to route and origin."""

from __future__ import annotations

from proxy.secrets.envelope import SealBinding, parse_envelope
from proxy.secrets.source import SourceError


def read_sealed(text: str, slot: str, binding: SealBinding | None) -> bytes:
    """Open a sealed value for the secret ``slot`` of a route. Raises SourceError."""
    # cryptography is slow to import, and most routes files have no sealed values.
    from proxy.secrets.keyfile import read_keys
    from proxy.secrets.sealing import UnsealError

    if binding is None:
        raise SourceError("use another source here: only secrets of routes can be sealed")
    envelope = parse_envelope(text)
    try:
        return read_keys().open(envelope, binding, slot)
    except UnsealError as error:
        raise SourceError(str(error)) from None
