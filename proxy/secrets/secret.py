"""A secret value that cannot be printed, copied or compared by accident.

``repr``, ``str`` and ``format`` show the name; comparing, hashing and pickling raise. Python cannot
erase memory reliably, so this module does not attempt to.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NoReturn, final

from proxy.secrets.oddities import Usage, oddities

# Random per process: digests compare within the process and reveal nothing outside it.
_KEY: Final = secrets.token_bytes(32)


@final
class Secret:
    """One secret value under its configured name. Immutable.

    ``reference`` is the displayable source: ``env:NEW``. ``reveal`` is the only access to the
    value; a test restricts its callers.
    """

    __slots__ = ("__value", "name", "reference")

    def __init__(self, name: str, value: bytes, reference: str = "") -> None:
        self.name = name
        self.reference = reference
        self.__value = value

    def reveal(self) -> bytes:
        """Return the value, to build a credential or a digest from it."""
        return self.__value

    def fingerprint(self) -> str:
        """Return eight hex digits that distinguish two values without disclosing either."""
        return hashlib.sha256(b"keyrelay fingerprint\0" + self.__value).hexdigest()[:8]

    def oddities(self, usage: Usage) -> list[str]:
        """Describe what is odd about the value, without a part of it; see ``oddities``."""
        return oddities(self.__value, usage)

    def digest(self) -> bytes:
        """Return a digest that is equal for equal values within this process. Not for display."""
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
