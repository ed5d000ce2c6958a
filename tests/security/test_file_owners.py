"""Rows T50, T34 and T85: other users as owners of files and connections, and files unnamed."""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import loader
from proxy.errors import ConfigError
from proxy.secrets.file import read_file
from proxy.secrets.file_permissions import is_unmapped
from proxy.secrets.keyfile import read_keys, write_key
from proxy.secrets.sealing import SealingKey, UnsealError
from proxy.secrets.source import SourceError
from tests.support.command import CANARY, keyrelay

ROUTES = "routes: {api: {provider: demo}}\n"
OTHER = 54321
CREATED = datetime.date(2026, 11, 21)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def written(folder: Path) -> Path:
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / "routes.yaml"
    path.write_text(ROUTES, encoding="utf-8")
    path.chmod(0o644)
    return path


def refused(path: Path, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        loader.load(path)


@only_root
def test_t50_a_routes_file_of_another_user(tmp_path: Path) -> None:
    """Its owner could write other addresses into it."""
    path = written(tmp_path / "a")
    loader.load(path)
    os.chown(path, OTHER, OTHER)
    refused(path, "belongs to another user")


@only_root
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
def test_t50_a_directory_of_another_user(tmp_path: Path, mode: int) -> None:
    """Its owner could put another file in its place, whatever its mode."""
    (tmp_path / "a").mkdir()
    path = written(tmp_path / "a" / "b")
    (tmp_path / "a").chmod(mode)
    os.chown(tmp_path / "a", OTHER, OTHER)
    refused(path, "belongs to user 54321")


@only_root
def test_t50_a_link_of_another_user(tmp_path: Path) -> None:
    """In a directory with the sticky bit: its owner could let it lead to another file."""
    path = written(tmp_path / "a")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(path)
    loader.load(link)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    refused(link, "belongs to user 54321")


@only_root
def test_t50_a_directory_that_a_group_may_write_to(tmp_path: Path) -> None:
    """The members of the group could replace the file; the sticky bit keeps them from it."""
    path = written(tmp_path / "a")
    path.parent.chmod(0o775)
    refused(path, "may write to")
    path.parent.chmod(0o1775)
    loader.load(path)


def test_t34_the_overflow_user_is_nobody_in_particular() -> None:
    """It counts as unmapped only where the namespace has no user of this number."""
    lines = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    assert is_unmapped(65534) is not (int(lines[0]) == 0 and int(lines[2]) > 65534)
    assert not is_unmapped(0)
    assert not is_unmapped(os.geteuid()) or os.geteuid() == 65534


@pytest.mark.parametrize("at", ["keyrelay", "."])
@pytest.mark.parametrize("kind", ["sealing key", "secret"])
def test_t50_directories_above_keys_and_secrets(tmp_path: Path, kind: str, at: str) -> None:
    """Of the sealing key and of secret files too: one that others may write to, at any height."""
    file = tmp_path / "a" / "keyrelay" / "keys"
    key = SealingKey.generate(CREATED)
    write_key(file, key)

    def read() -> object:
        return read_keys(file) if kind == "sealing key" else read_file(str(file))

    read()
    folder = tmp_path / "a" / at
    folder.chmod(0o777)
    with pytest.raises((UnsealError, SourceError), match="other users may put another file"):
        read()
    folder.chmod(0o1777)
    read()


@pytest.mark.skipif(sys.platform != "linux", reason="user namespaces are Linux's")
def test_t34_the_overflow_user_in_a_user_namespace() -> None:
    """In a namespace that maps one user only, the kernel shows all others as the overflow user:
    that number then is none of a single user.
    """
    unshare = ("unshare", "--user", "--map-root-user")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine permits no user namespace")
    overflow = Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii").strip()
    script = (
        "from proxy.secrets.file_permissions import is_unmapped; "
        "from proxy.server.peer_credentials import _own_users; "
        f"print(is_unmapped({overflow}), is_unmapped(0), sorted(_own_users()))"
    )
    done = subprocess.run(
        [*unshare, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True False [0]\n"


def test_t85_a_file_of_the_directory_sends_no_known_key_elsewhere(tmp_path: Path) -> None:
    """Started in a directory with a hostile file of the user's: no connection, no program."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        (tmp_path / "routes.yaml").write_text(
            f"listen: 127.0.0.1:0\nroutes:\n  hume: {{provider: hume, upstream: {url}}}\n"
            f"  it: {{provider: demo, secrets: {{key: 'exec:/usr/bin/touch {tmp_path}/ran'}}}}\n",
            encoding="utf-8",
        )
        for command in (("run",), ("doctor",), ("check",), ("exec", "--", "true")):
            done = keyrelay(*command, cwd=tmp_path, variables={"HUME_API_KEY": CANARY})
            assert (done.code, done.out) == (2, "")
            assert "routes.yaml:3:" in done.err
            assert "HUME_API_KEY would be sent to another provider" in done.err
        with pytest.raises(BlockingIOError):
            other.accept()
    assert not (tmp_path / "ran").exists()
