"""Certificate authorities in files, beside those of the system."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from proxy.errors import ConfigError, ConfigValueError, Finding

# Also one whose end is missing, which is damaged.
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?(?:-----END CERTIFICATE-----|(?=-----BEGIN )|\Z)", re.DOTALL
)
# OpenSSL's own form, which it reads from SSL_CERT_FILE as well.
_TRUSTED = b"-----BEGIN TRUSTED CERTIFICATE-----"
_LIMIT_BYTES = 4 * 1024 * 1024  # the bundle of a distribution has a quarter of a MiB


def read_authorities(path: Path) -> str:
    """Return the certificates of a PEM file. Raises ConfigValueError. Blocking."""
    found = _CERTIFICATE.findall(_read(path))
    if not found:
        raise _no_certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, certificate in enumerate(found, 1):
        if not _is_readable(certificate, context):
            raise ConfigValueError(
                f"certificate {number} of the file is damaged", "copy it into the file anew"
            )
    return b"\n".join(found).decode("ascii") + "\n"


def system_authorities() -> str:
    """Return the certificates that OpenSSL trusts here, or those of SSL_CERT_FILE, in PEM.

    From the bundle of the system, else from each file of its directory. Blocking.
    """
    # For the paths only: no context of it is used.
    import ssl

    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if not files and paths.capath:
        files = sorted(Path(paths.capath).glob("*.[0-9]"))
    found: dict[str, None] = {}
    for file in files:
        try:
            found[read_authorities(file)] = None
        except ConfigValueError:
            continue  # a directory may hold other files
    return "".join(found)


def check_environment() -> None:
    """Raise ConfigError if SSL_CERT_FILE names no file with certificates. Blocking.

    OpenSSL ignores such a file without an error, and no certificate would be valid.
    """
    name = os.environ.get("SSL_CERT_FILE")
    if not name:
        return
    try:
        raw = _read(Path(name))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found = _CERTIFICATE.findall(raw)
        if _TRUSTED not in raw and not any(_is_readable(one, context) for one in found):
            raise _no_certificate()
    except ConfigValueError as error:
        message = f"SSL_CERT_FILE: {error.message}"
        raise ConfigError([Finding("environment", 0, 0, message, error.hint)]) from None


def _is_readable(certificate: bytes, context: ssl.SSLContext) -> bool:
    """Whether OpenSSL reads a certificate in PEM, into a context that is used for nothing else."""
    try:
        context.load_verify_locations(cadata=certificate.decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise ConfigValueError(
            "no such file", "write the path of a PEM file with the certificate of the CA"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid path"
        raise ConfigValueError(f"the file cannot be read: {reason}", "check it") from None
    if len(raw) > _LIMIT_BYTES:
        raise ConfigValueError(
            "the file is larger than 4 MiB", "name a PEM file with the certificate of the CA"
        )
    return raw


def _no_certificate() -> ConfigValueError:
    return ConfigValueError(
        "the file has no certificate in PEM",
        "if it is DER, convert it: openssl x509 -inform DER -in FILE -out company.pem",
    )
