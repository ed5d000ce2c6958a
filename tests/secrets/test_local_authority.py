"""The authority for TLS on loopback: what it can certify, and its files."""

from __future__ import annotations

import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from proxy.errors import KeyrelayError
from proxy.secrets import local_authority
from proxy.secrets.certificates import LOOPBACK, Authority, new_authority

DAY = 86_400


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_its_files_are_its_user_s() -> None:
    """Mode 0600 in a directory with 0700; a second call replaces nothing unasked."""
    local_authority.create(time.time())
    for path in (local_authority.certificate_file(), local_authority.key_file()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first = local_authority.load().certificate
    with pytest.raises(KeyrelayError, match="--renew"):
        local_authority.create(time.time())
    assert local_authority.load().certificate == first
    local_authority.create(time.time(), replace=True)
    assert local_authority.load().certificate != first


def test_a_key_that_others_can_read_is_refused() -> None:
    """As any secret's file."""
    local_authority.create(time.time())
    local_authority.key_file().chmod(0o644)
    with pytest.raises(KeyrelayError, match="others may read it"):
        local_authority.load()


def test_its_constraints_are_critical() -> None:
    """Localhost, names below it and loopback addresses; no authority below it; servers only."""
    authority = new_authority("dummy", LOOPBACK, time.time())
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees is not None
    assert [str(one.value) for one in constraints.value.permitted_subtrees] == list(LOOPBACK)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        ("localhost", True),
        ("acme.localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("api.example.com", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
        ("::2", False),
    ],
)
def test_clients_hold_it_to_its_constraints(tmp_path: Path, host: str, valid: bool) -> None:
    """OpenSSL rejects what it may not certify, though its key has signed it."""
    authority = new_authority("dummy", LOOPBACK, time.time())
    pair = authority.issue([host], time.time(), 7)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "leaf.pem").write_bytes(pair.certificate)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode == 0) is valid, done.stdout + done.stderr


def test_certificates_last_days() -> None:
    """They are renewed with a third left, and never outlast their authority."""
    now = time.time()
    authority = new_authority("dummy", LOOPBACK, now, days=10)
    pair = authority.issue(["localhost"], now, 6)
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    assert leaf.not_valid_after_utc.timestamp() == pytest.approx(now + 6 * DAY, abs=2)
    assert pair.renew_at == pytest.approx(now + 4 * DAY, abs=2)
    late = authority.issue(["localhost"], now + 9 * DAY, 6)
    last = x509.load_pem_x509_certificate(late.certificate)
    assert last.not_valid_after_utc.timestamp() <= authority.expires
    assert "PRIVATE KEY" not in repr(pair)


def test_what_does_not_belong_together_is_refused() -> None:
    """Neither another key nor text that is no PEM; the values are in no message."""
    one, other = (new_authority("dummy", LOOPBACK, time.time()) for _ in range(2))
    with pytest.raises(ValueError, match="does not belong"):
        Authority(one.certificate, other.key)
    with pytest.raises(ValueError, match="no certificate") as raised:
        Authority(one.certificate, b"dummy-canary")
    assert "canary" not in str(raised.value)
    ssl.create_default_context(cadata=one.certificate.decode())
