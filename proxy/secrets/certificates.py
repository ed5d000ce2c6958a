"""Certificates for TLS listeners: an authority, and the certificates that it issues.

ECDSA with P-256, which every client has. The authority has a critical name constraint (RFC 5280
section 4.2.1.10), so that its key is of no use for any other name. This module loads
``cryptography``, which nothing needs without TLS to clients: import it where it is used.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.secrets.key_pair import KeyPair

LOOPBACK = ("localhost", "127.0.0.0/8", "::1/128")
"""Constraints of an authority for loopback: a DNS name includes those below it."""

_AUTHORITY_DAYS = 3650
# Clients' clocks may be slow.
_EARLIER = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority whose key is in memory.

    certificate, key  in PEM; the key is a secret
    """

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Raises ValueError if they are no certificate in PEM with its unencrypted key."""
        self.certificate = certificate
        self.key = key
        try:
            loaded = serialization.load_pem_private_key(key, None)
            self._certificate = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError):
            # A message of the library may quote what it could not parse.
            raise ValueError("no certificate and key in PEM") from None
        if (
            not isinstance(loaded, ec.EllipticCurvePrivateKey)
            or loaded.public_key() != self._certificate.public_key()
        ):
            raise ValueError("the key does not belong to the certificate")
        self._key = loaded

    @property
    def expires(self) -> float:
        """The end of its validity, in seconds since the epoch."""
        return self._certificate.not_valid_after_utc.timestamp()

    def issue(self, hosts: Iterable[str], now: float, days: float) -> KeyPair:
        """A server's certificate for these names and addresses, with a new key.

        now   seconds since the epoch
        days  its validity; a third of it remains when it is to be renewed
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = datetime.datetime.fromtimestamp(now, datetime.UTC)
        end = min(start + datetime.timedelta(days=days), self._certificate.not_valid_after_utc)
        names = [_general_name(host) for host in hosts]
        usage = _key_usage(digital_signature=True)
        certificate = (
            _builder("keyrelay", self._certificate.subject, key, start, end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        renew_at = now + (end - start).total_seconds() * 2 / 3
        return KeyPair(_pem(certificate), _key_pem(key), renew_at)


def new_authority(
    title: str, constraints: Iterable[str], now: float, days: float = _AUTHORITY_DAYS
) -> Authority:
    """An authority with a new key that can issue for ``constraints`` only.

    constraints  DNS names, each with those below it, and networks such as ``127.0.0.0/8``
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    start = datetime.datetime.fromtimestamp(now, datetime.UTC)
    permitted = [_constraint(one) for one in constraints]
    if not any(isinstance(one, x509.IPAddress) for one in permitted):
        excluded = [_constraint(one) for one in ("0.0.0.0/0", "::/0")]
    else:
        excluded = None
    certificate = (
        _builder(title, name, key, start, start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, excluded), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_pem(certificate), _key_pem(key))


def _builder(
    title: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _EARLIER)
        .not_valid_after(end)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _constraint(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
