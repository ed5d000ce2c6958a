"""The local authority: a certificate authority for loopback in the user's data directory.

``keyrelay ca`` makes it. Keyrelay never adds it to a trust store: each tool is pointed to its
certificate.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import KeyrelayError
from proxy.secrets import private_file
from proxy.secrets.file import read_file
from proxy.secrets.source import SourceError

if TYPE_CHECKING:
    from proxy.secrets.certificates import Authority

_MISSING = "there is no local authority; make it with keyrelay ca, or write tls: in the routes file"


def folder() -> Path:
    """The directory of the authority: ``keyrelay`` below ``$XDG_DATA_HOME`` or ``~/.local/share``.

    Raises KeyrelayError for a user without a home directory.
    """
    data = os.environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        try:
            data = f"{Path.home()}/.local/share"
        except RuntimeError:
            raise KeyrelayError("there is no home directory; set XDG_DATA_HOME") from None
    return Path(data) / "keyrelay"


def certificate_file() -> Path:
    """The path of its certificate, for the tools that are to trust it. Raises KeyrelayError."""
    return folder() / "ca.pem"


def key_file() -> Path:
    """The path of its private key. Raises KeyrelayError."""
    return folder() / "ca-key.pem"


def exists() -> bool:
    """Whether ``create`` has been called. Raises KeyrelayError."""
    return certificate_file().exists()


def create(now: float, *, replace: bool = False) -> None:
    """Make the authority, both files with mode 0600. Blocking.

    Raises KeyrelayError if a file cannot be written, or one exists that is not to be replaced.
    """
    from proxy.secrets.certificates import LOOPBACK, new_authority

    certificate, key = certificate_file(), key_file()
    for path in (certificate, key):
        if path.exists() and not replace:
            raise KeyrelayError(f"{path} exists; keyrelay ca --renew replaces it")
    authority = new_authority("keyrelay local authority", LOOPBACK, now)
    try:
        certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The key first: a certificate is the sign that the authority is complete.
        private_file.replace(key, authority.key)
        private_file.replace(certificate, authority.certificate)
    except OSError as error:
        raise KeyrelayError(f"cannot write {error.filename or key}: {error.strerror}") from None


def load() -> Authority:
    """Read the authority. Blocking. Raises KeyrelayError, with the remedy, if it is of no use."""
    from proxy.secrets.certificates import Authority

    if not exists():
        raise KeyrelayError(_MISSING)
    try:
        # The certificate as well: another one would be given out as trustworthy.
        return Authority(read_file(str(certificate_file())), read_file(str(key_file())))
    except (SourceError, ValueError) as error:
        raise KeyrelayError(f"the local authority cannot be used: {error}") from None
