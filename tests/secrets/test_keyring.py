from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.core
import pytest
from keyring.backends.fail import Keyring as NoKeyring

from proxy.secrets.keyring import read_keyring
from proxy.secrets.source import SourceError
from tests.support.secret_sources import Backend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The keyring of this process, empty."""
    made = Backend()
    monkeypatch.setattr(keyring.core, "_keyring_backend", made)
    return made


class Asking(Backend):
    """A keyring that waits for its owner."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = threading.Event()

    def get_password(self, route_service: str, username: str) -> str | None:
        self.answered.wait()
        return None


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    """One that waits until the test is over."""
    made = Asking()
    monkeypatch.setattr(keyring.core, "_keyring_backend", made)
    yield made
    made.answered.set()


def test_a_service_may_have_slashes(backend: Backend) -> None:
    """The last one parts service and user."""
    backend.entries["https://api.acme.dev/v2", "key"] = "dummy-key"
    assert read_keyring("https://api.acme.dev/v2/key", 10) == b"dummy-key"


def test_what_is_missing_can_be_added(backend: Backend) -> None:
    """The remedy is the command that asks for the value."""
    with pytest.raises(SourceError, match="keyring set acme key "):
        read_keyring("acme/key", 10)


def test_a_backend_that_fails(backend: Backend) -> None:
    """Only the kind of the error is told: its text is the backend's."""
    with pytest.raises(SourceError, match=r"it failed \(OSError\)$") as caught:
        read_keyring("broken/key", 10)
    assert caught.value.__cause__ is None


def test_a_keyring_that_waits_for_its_owner(asking: Asking) -> None:
    """No caller waits for it longer than configured."""
    with pytest.raises(
        SourceError, match=r"the keyring does not respond, .* timed out after 0.05 s"
    ):
        read_keyring("acme/key", 0.05)


def test_a_system_without_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has none, and is told to use another source."""
    monkeypatch.setattr(keyring.core, "_keyring_backend", NoKeyring())  # type: ignore[no-untyped-call]
    with pytest.raises(SourceError, match="this system has none"):
        read_keyring("acme/key", 10)


def test_the_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the command that installs it."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SourceError, match=r"pip install --editable '\.\[keyring\]'"):
        read_keyring("acme/key", 10)
