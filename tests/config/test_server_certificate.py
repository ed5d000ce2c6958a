"""The certificate of TLS listeners; the whole listener: tests.e2e.test_tls_listener."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config.server_certificate import certified_hosts, has_tls, read_key_pair
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError


def settings(**more: Any) -> Settings:
    return Settings.model_validate({"routes": {"demo": {"provider": "demo"}}, **more})


def test_without_a_tls_listener_nothing_is_read(tmp_path: Path) -> None:
    """Files that are named but not needed may be missing."""
    files = {"certificate": str(tmp_path / "a.pem"), "key": str(tmp_path / "a.key")}
    plain = settings(listen="127.0.0.1:8080", tls=files)
    assert not has_tls(plain)
    assert read_key_pair(plain, 0.0) is None


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """By its setting, before anything is served."""
    files = {"certificate": str(tmp_path / "a.pem"), "key": str(tmp_path / "a.key")}
    if missing == "key":
        (tmp_path / "a.pem").write_text("no certificate")
    with pytest.raises(KeyrelayError, match=r"tls\.certificate"):
        read_key_pair(settings(listen="https://127.0.0.1:8443", tls=files), 0.0)


def test_only_names_of_this_host_are_certified() -> None:
    """Routes have names below localhost; what the authority may not certify is left out."""
    hosts = certified_hosts(
        settings(
            listen=["https://127.0.0.1:8443", "https://[::1]:8443"], hosts=["keyrelay.demo.svc"]
        )
    )
    assert {"localhost", "demo.localhost", "127.0.0.1", "::1"} <= set(hosts)
    assert not any("svc" in one for one in hosts)
