"""``env:NAME``: a variable of this process's environment."""

from __future__ import annotations

import os

from .base import Unusable


def read_variable(name: str) -> bytes:
    """The variable's bytes. Raises Unusable if it is not set or empty."""
    text = os.environ.get(name)
    if text is None:
        raise Unusable(f"set {name}")
    if not text:
        raise Unusable(f"give {name} a value: it is set but empty")
    return os.fsencode(text)
