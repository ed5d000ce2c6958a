"""The file by which a running keyrelay is found: the user's own, and gone with its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.admin import runtime_file

URL = "http://127.0.0.1:8081"
TOKEN = "dummy-admin-token"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "keyrelay"


def ended() -> int:
    """The id of a process that is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_is_written_is_found(place: Path) -> None:
    """Address, token and process, in a file and a directory that are the user's alone."""
    old = os.umask(0)
    try:
        written = runtime_file.write(URL, TOKEN)
    finally:
        os.umask(old)
    assert written.path == place / "admin-8081.json"
    assert written.path.stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in place.iterdir()] == ["admin-8081.json"]
    assert runtime_file.running() == [written]
    assert (written.url, written.token, written.pid) == (URL, TOKEN, os.getpid())


def test_the_token_is_not_printed() -> None:
    """Whatever prints the object leaves the token out."""
    assert TOKEN not in repr(runtime_file.write(URL, TOKEN))


def test_a_socket_has_a_name_too(place: Path) -> None:
    """A unix socket's file is found as well, beside that of a port."""
    runtime_file.write("unix:/run/a", "")
    runtime_file.write("unix:/run/b", "")
    runtime_file.write(URL, TOKEN)
    assert len(list(place.iterdir())) == 3
    assert {one.url for one in runtime_file.running()} == {"unix:/run/a", "unix:/run/b", URL}


def test_removing_is_for_one_s_own(place: Path) -> None:
    """A process that ends late leaves the file of the next one at the same port alone."""
    mine = runtime_file.write(URL, TOKEN)
    said = {"url": URL, "token": "dummy-other", "pid": os.getppid()}
    mine.path.write_text(json.dumps(said))
    mine.remove()
    assert mine.path.exists()
    again = runtime_file.write(URL, TOKEN)
    again.remove()
    assert not again.path.exists()
    again.remove()


def test_a_dead_process_is_not_found(place: Path) -> None:
    """The file of a killed process is removed at the next search."""
    written = runtime_file.write(URL, TOKEN)
    written.path.write_text(json.dumps({"url": URL, "token": TOKEN, "pid": ended()}))
    assert runtime_file.running() == []
    assert not written.path.exists()


def test_somebody_else_s_process_lives(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not be signalled is there all the same."""
    written = runtime_file.write(URL, TOKEN)
    written.path.write_text(json.dumps({"url": URL, "token": TOKEN, "pid": 1}))
    assert [one.pid for one in runtime_file.running()] == [1]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"url": 1, "token": "", "pid": 1}', '{"url": "", "pid": -1}', "\0"]
)
def test_what_is_no_such_file(place: Path, content: str) -> None:
    """Anything else that lies there is passed over."""
    written = runtime_file.write(URL, TOKEN)
    written.path.write_text(content)
    assert runtime_file.running() == []


def test_a_file_that_others_may_read(place: Path) -> None:
    """A token that others may know, or have put there, is not used."""
    written = runtime_file.write(URL, TOKEN)
    written.path.chmod(0o644)
    assert runtime_file.running() == []


def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    """Neither read through nor written through."""
    written = runtime_file.write(URL, TOKEN)
    target = tmp_path / "elsewhere.json"
    written.path.rename(target)
    written.path.symlink_to(target)
    assert runtime_file.running() == []
    before = target.read_text()
    runtime_file.write(URL, "dummy-next")
    assert target.read_text() == before
    assert not written.path.is_symlink()


def test_a_directory_that_others_may_use(place: Path) -> None:
    """It is neither written into nor believed; the reason says what to run."""
    runtime_file.write(URL, TOKEN)
    place.chmod(0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        runtime_file.write(URL, TOKEN)
    assert runtime_file.running() == []


def test_without_a_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's state directory serves, and its default if none or no absolute one is named."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert runtime_file.folder() == tmp_path / "state" / "keyrelay"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runtime_file.folder() == tmp_path / ".local" / "state" / "keyrelay"
    assert runtime_file.running() == []
    assert runtime_file.write(URL, TOKEN).path.is_file()


@pytest.mark.parametrize("home", ["~", "~nobody-of-that-name"])
def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    """As in containers: nothing can be written, which is reported; no process is found."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(OSError, match="set XDG_RUNTIME_DIR"):
        runtime_file.write(URL, TOKEN)
    assert runtime_file.running() == []


def test_the_page_s_address() -> None:
    """With the token behind the ``#``; on a unix socket there is none."""
    assert runtime_file.write(URL, TOKEN).page_url == f"{URL}/#token={TOKEN}"
    assert runtime_file.write("unix:/run/a", "").page_url == "unix:/run/a"
