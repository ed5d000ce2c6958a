"""Files that only their owner can read, and their replacement in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from proxy.secrets import private_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask() -> object:
    """The modes must not depend on the umask."""
    old = os.umask(0)
    yield
    os.umask(old)


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask."""
    private_file.create(tmp_path / "a", b"dummy")
    assert (mode(tmp_path / "a"), (tmp_path / "a").read_bytes()) == (0o600, b"dummy")


@pytest.mark.parametrize("link", [False, True])
def test_an_existing_path_is_never_written(tmp_path: Path, link: bool) -> None:
    """Neither a file nor the target of a link, even of one that leads nowhere."""
    path, target = tmp_path / "a", tmp_path / "b"
    if link:
        path.symlink_to(target)
    else:
        path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        private_file.create(path, b"new")
    assert not target.exists()
    assert link or path.read_bytes() == b"old"


@pytest.mark.parametrize("before", [b"", b"a\n", b"a"])
def test_a_line_is_appended_as_one(tmp_path: Path, before: bytes) -> None:
    """A missing line end of the last line is added first; the mode stays."""
    path = tmp_path / "a"
    path.write_bytes(before)
    path.chmod(0o640)
    private_file.append_line(path, b"new\n")
    lines = path.read_bytes().splitlines()
    assert lines == [*before.splitlines(), b"new"]
    assert mode(path) == 0o640


def test_a_line_needs_a_file(tmp_path: Path) -> None:
    """A file that does not exist is not created."""
    with pytest.raises(FileNotFoundError):
        private_file.append_line(tmp_path / "a", b"new\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, old: bytes | None) -> None:
    """A reader of the old file keeps it; the new one is private, and nothing else is left."""
    path = tmp_path / "a"
    if old is not None:
        path.write_bytes(old)
    reader = None if old is None else path.open("rb")
    private_file.replace(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
    if reader is not None:
        with reader:
            assert reader.read() == old


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What the link leads to stays as it is."""
    path, target = tmp_path / "a", tmp_path / "b"
    target.write_bytes(b"other")
    path.symlink_to(target)
    private_file.replace(path, b"new")
    assert target.read_bytes() == b"other"
    assert not path.is_symlink()


def test_mode_and_owner_of_another_file(tmp_path: Path) -> None:
    """``like`` decides about the mode."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    private_file.replace(path, b"new", like=path.stat())
    assert (path.read_bytes(), mode(path)) == (b"new", 0o644)


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    """A path that cannot be replaced, such as a directory, stays; the temporary file goes."""
    path = tmp_path / "a"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        private_file.replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, b"old and longer than the new content"])
def test_a_reserved_file_replaces_another(tmp_path: Path, old: bytes | None) -> None:
    """Mode 0600 whatever was there before, the space given back, no further file left."""
    path, reserved = tmp_path / "a", tmp_path / "a.new"
    if old is not None:
        path.write_bytes(old)
        reserved.write_bytes(b"left behind")
        reserved.chmod(0o644)
    private_file.reserve(reserved, 4096)
    assert reserved.stat().st_size == 4096
    private_file.replace_by_reserved(path, reserved, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
