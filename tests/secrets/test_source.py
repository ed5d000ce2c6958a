from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.config.secret import SecretSettings
from proxy.secrets.resolver import resolve
from proxy.secrets.source import SourceError, call_with_timeout, check, strip_line_end
from tests.support.secret_sources import PLACE, SLOT, WORLDS


def test_one_line_end_is_left_out() -> None:
    """That of editors and programs; a second one is a mistake and stays."""
    ends = (b"a", b"a\n", b"a\r\n", b"a\n\n", b"a\r", b"\n")
    assert [strip_line_end(one) for one in ends] == [b"a", b"a", b"a", b"a\n", b"a\r", b""]


@pytest.mark.parametrize("value", [b" dummy", b"dummy ", b" "])
def test_blanks_around_a_value(value: bytes) -> None:
    """A slip while pasting is found before the provider refuses it."""
    with pytest.raises(SourceError, match="remove the spaces around the value"):
        check(value, "the value", multiline=False)


def test_what_is_binary_is_no_text_of_several_lines() -> None:
    """A keystore in place of a PEM file is told so."""
    check(b"dummy\n \t\n", "the value", multiline=True)
    with pytest.raises(SourceError, match="the value is binary"):
        check(b"dum\0my", "the value", multiline=True)


def test_what_takes_too_long_is_left_behind() -> None:
    """The waiter goes on; the thread does not keep the process from ending."""
    release = threading.Event()
    with pytest.raises(
        SourceError, match=r"why the vault does not respond, .* timed out after 0\.05 s"
    ):
        call_with_timeout(release.wait, "the vault", 0.05)
    (left,) = (one for one in threading.enumerate() if one.name == "keyrelay the vault")
    assert left.daemon
    release.set()
    left.join(5)
    assert not left.is_alive()


def test_what_is_raised_in_time_is_raised_here() -> None:
    """An error of the thread is the caller's."""
    with pytest.raises(ZeroDivisionError):
        call_with_timeout(lambda: 1 // 0, "the vault", 10)
    assert call_with_timeout(lambda: 7, "the vault", 10) == 7


def test_all_sources_may_be_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From many threads, as a reload and a start do it: each gets its own value."""
    references = []
    for word, world in WORLDS.items():
        (tmp_path / word).mkdir()
        made = world(tmp_path / word, monkeypatch)  # type: ignore[call-arg]
        references.append((made.put("key", f"dummy-{word}".encode()), f"dummy-{word}".encode()))

    def read(pair: tuple[str, bytes]) -> bool:
        found = resolve(SLOT, SecretSettings(references=(pair[0],)), PLACE)
        return found.reveal() == pair[1]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, references * 16))
