"""A value that must not be seen.

Everything that could print, copy or compare a secret by accident either shows its name or
refuses. Python cannot wipe memory reliably, so nothing here pretends to.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NoReturn, final

# New in each process: what is made with it can be compared here and tells nobody else anything.
_KEY: Final = secrets.token_bytes(32)


@final
class Secret:
    """One secret value under its configured name. Immutable.

    ``reference`` says where it is from, in words that may be shown: ``env:NEW``. ``reveal`` is the
    only way to the value; a test holds who may call it.
    """

    __slots__ = ("__value", "name", "reference")

    def __init__(self, name: str, value: bytes, reference: str = "") -> None:
        self.name = name
        self.reference = reference
        self.__value = value

    def reveal(self) -> bytes:
        """The value itself: to make a credential of it, or the digest that it is compared by."""
        return self.__value

    def fingerprint(self) -> str:
        """Eight hex digits that tell two values apart and say nothing about either."""
        return hashlib.sha256(b"keyrelay fingerprint\0" + self.__value).hexdigest()[:8]

    def digest(self) -> bytes:
        """Tells whether two values are the same, within this process; never to be shown."""
        return hmac.digest(_KEY, self.__value, hashlib.sha256)

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are not compared: equality would leak through timing")

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled or copied")
