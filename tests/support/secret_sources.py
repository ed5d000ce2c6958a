"""For each source of secrets a world in which it can be had, or not, and why."""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path
from typing import Protocol

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from proxy.secrets import keyfile as keys
from proxy.secrets.envelope import seal_binding
from proxy.secrets.sealing import SealingKey

PLACE = seal_binding("acme", "https://api.acme.dev/v2")
SLOT = "api_key"
CREATED = datetime.date(2026, 11, 21)


class World(Protocol):
    """Where a source reads from."""

    def put(self, name: str, value: bytes) -> str:
        """Make the value available under a name; the reference to it."""

    def absent(self) -> tuple[str, str]:
        """A reference to what is not there, and a word of the remedy."""

    def failing(self) -> tuple[str, str]:
        """A reference to what is there and cannot be used, and a word of the remedy."""


class Variables:
    """Variables of this process."""

    def __init__(self, _folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def put(self, name: str, value: bytes) -> str:
        self._patch.setenv(f"DUMMY_{name.upper()}", value.decode("utf-8", "surrogateescape"))
        return f"env:DUMMY_{name.upper()}"

    def absent(self) -> tuple[str, str]:
        self._patch.delenv("DUMMY_ABSENT", raising=False)
        return "env:DUMMY_ABSENT", "set DUMMY_ABSENT"

    def failing(self) -> tuple[str, str]:
        self._patch.setenv("DUMMY_BLANK", "")
        return "env:DUMMY_BLANK", "set but empty"


class Files:
    """Private files of this user."""

    def __init__(self, folder: Path, _patch: pytest.MonkeyPatch) -> None:
        self._folder = folder

    def put(self, name: str, value: bytes) -> str:
        path = self._folder / name
        path.write_bytes(value)
        path.chmod(0o600)
        return f"file:{path}"

    def absent(self) -> tuple[str, str]:
        return f"file:{self._folder}/absent", "no such file"

    def failing(self) -> tuple[str, str]:
        reference = self.put("open", b"dummy-too-open")
        (self._folder / "open").chmod(0o644)
        return reference, "chmod 600"


class Credentials:
    """What systemd passes."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        patch.setenv("CREDENTIALS_DIRECTORY", str(folder))

    def put(self, name: str, value: bytes) -> str:
        (self._folder / name).write_bytes(value)
        return f"credential:{name}"

    def absent(self) -> tuple[str, str]:
        return "credential:absent", "no such file"

    def failing(self) -> tuple[str, str]:
        (self._folder / "folder").mkdir()
        return "credential:folder", "is a directory"


class Backend(KeyringBackend):
    """A keyring in memory, and what can be wrong with one."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, route_service: str, username: str) -> str | None:
        if route_service == "locked":
            raise KeyringLocked("dummy-told-by-the-backend")
        if route_service == "broken":
            raise OSError("dummy-told-by-the-backend")
        return self.entries.get((route_service, username))

    def set_password(self, route_service: str, username: str, password: str) -> None:
        self.entries[route_service, username] = password

    def delete_password(self, route_service: str, username: str) -> None:
        del self.entries[route_service, username]


class Keyrings:
    """A keyring of this process."""

    def __init__(self, _folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._backend = Backend()
        patch.setattr("keyring.core._keyring_backend", self._backend)
        assert keyring.get_keyring() is self._backend

    def put(self, name: str, value: bytes) -> str:
        self._backend.entries["acme/dev", name] = value.decode("utf-8", "surrogateescape")
        return f"keyring:acme/dev/{name}"

    def absent(self) -> tuple[str, str]:
        return "keyring:acme/absent", "has no such entry"

    def failing(self) -> tuple[str, str]:
        return "keyring:locked/key", "unlock the keyring"


class Commands:
    """Programs that print."""

    def __init__(self, folder: Path, _patch: pytest.MonkeyPatch) -> None:
        self._folder = folder

    def put(self, name: str, value: bytes) -> str:
        (self._folder / name).write_bytes(value)
        return f"exec:cat {shlex.quote(str(self._folder / name))}"

    def absent(self) -> tuple[str, str]:
        return "exec:keyrelay-has-no-such-command --now", "command not found"

    def failing(self) -> tuple[str, str]:
        said = "import sys; print('dummy-said'); print('dummy-said', file=sys.stderr); sys.exit(3)"
        return f"exec:{shlex.join([sys.executable, '-c', said])}", "exited with 3"


class Sealed:
    """Values sealed with a key of ours."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.key = SealingKey.generate(CREATED)
        keys.write_key(folder / "keys", self.key)
        patch.setenv(keys.VARIABLE, str(folder / "keys"))

    def put(self, name: str, value: bytes) -> str:
        return str(self.key.public.seal(value, PLACE, SLOT))

    def absent(self) -> tuple[str, str]:
        other = SealingKey.generate(CREATED)
        return str(other.public.seal(b"dummy-other", PLACE, SLOT)), f"add the key {other.key_id}"

    def failing(self) -> tuple[str, str]:
        place = seal_binding("other", "https://api.acme.dev")
        return str(self.key.public.seal(b"dummy-moved", place, SLOT)), "for another route"


class Own:
    """A source of another package, which is installed in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._vault = folder / "vault"
        self._vault.mkdir()
        install(folder / "site", patch, "acme", OWN_SOURCE.format(vault=str(self._vault)))

    def put(self, name: str, value: bytes) -> str:
        (self._vault / name).write_bytes(value)
        return f"acme:{name}"

    def absent(self) -> tuple[str, str]:
        return "acme:absent", "ask the vault's owner"

    def failing(self) -> tuple[str, str]:
        return "acme:failing", "it failed (ZeroDivisionError)"


OWN_SOURCE = """
from pathlib import Path
from keyrelay import SourceError

def read(name):
    if name == "failing":
        raise ZeroDivisionError("dummy-said-by-the-source")
    path = Path({vault!r}, name)
    if not path.exists():
        raise SourceError("ask the vault's owner for a value")
    return path.read_bytes()
"""


def install(site: Path, patch: pytest.MonkeyPatch, scheme: str, code: str) -> None:
    """Install a distribution with one source, as an installer would."""
    package = f"keyrelay_{scheme}_{site.name}".replace("-", "_")
    about = site / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[keyrelay.sources]\n{scheme} = {package}:read\n")
    (site / f"{package}.py").write_text(code)
    patch.delitem(sys.modules, package, raising=False)
    patch.syspath_prepend(str(site))


WORLDS: dict[str, type[World]] = {
    "env": Variables,
    "file": Files,
    "credential": Credentials,
    "keyring": Keyrings,
    "exec": Commands,
    "sealed": Sealed,
    "acme": Own,
}
