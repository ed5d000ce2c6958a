"""TLS contexts for connections to providers and token endpoints."""

from __future__ import annotations

import os
import ssl

from proxy.upstream.authorities import check_environment
from proxy.upstream.unread import TlsContext


def tls_context(authorities: str = "") -> ssl.SSLContext:
    """A context that always verifies: TLS 1.2 or newer, the system's CAs or ``SSL_CERT_FILE``.

    ``authorities`` are further CAs in PEM. Raises ConfigError for a SSL_CERT_FILE of no use.

    Not ``create_default_context``, which writes session keys to ``SSLKEYLOGFILE``.
    """
    check_environment()
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if authorities:
        context.load_verify_locations(cadata=authorities)
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_tls_context(certificate: bytes, key: bytes, authorities: str = "") -> ssl.SSLContext:
    """``tls_context`` with a certificate of this side, in PEM (RFC 8446 section 4.4.2).

    OpenSSL reads it from a file that has no name and is gone afterwards. Raises ValueError, without
    the values, if certificate and key do not go together.
    """
    context = tls_context(authorities)
    if not hasattr(os, "memfd_create"):
        raise ValueError(
            "client_certificate needs Linux, where a key can be passed in memory alone"
        )
    # ``load_cert_chain`` takes paths only; this file is in memory and has no name.
    with open(os.memfd_create("client_certificate", os.MFD_CLOEXEC), "wb") as file:  # noqa: PTH123
        file.write(certificate.replace(b"\\n", b"\n") + b"\n" + key.replace(b"\\n", b"\n") + b"\n")
        file.flush()
        try:
            context.load_cert_chain(f"/dev/fd/{file.fileno()}", password=_no_password)
        except (ssl.SSLError, OSError, ValueError):
            raise ValueError(
                "client_certificate and client_key are no certificate in PEM with its key, or the "
                "key is encrypted"
            ) from None
    return context


def _no_password() -> str:
    """Without this OpenSSL asks on the terminal for the password of an encrypted key."""
    raise ValueError("no password can be given")
