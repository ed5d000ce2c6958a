"""Files of variables: what is read, what is refused, and that no value is in any message."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.secrets.env_file import read_env_files

CANARY = "dummy-canary-5f0c"


def written(folder: Path, text: str | bytes, name: str = ".env", mode: int = 0o600) -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=dummy", "dummy"),
        ("export KEY=dummy\n", "dummy"),
        ("KEY = dummy", "dummy"),
        ("KEY='dummy # 1'", "dummy # 1"),
        ('KEY="dummy # 1" # comment', "dummy # 1"),
        ("KEY=dummy # comment", "dummy"),
        ("KEY=dummy#1", "dummy#1"),
        ("# comment\n\nKEY=dummy\r\n", "dummy"),
        ("KEY=$OTHER", "$OTHER"),
        ("KEY=${OTHER}", "${OTHER}"),
        ("KEY='a$b\\c'", "a$b\\c"),
        ("KEY=", ""),
        ("KEY=old\nKEY=dummy", "dummy"),
        (b"\xef\xbb\xbfKEY=dummy", "dummy"),
    ],
)
def test_values(tmp_path: Path, text: str | bytes, value: str) -> None:
    """As Compose and dotenv read them, without expanding variables."""
    assert read_env_files([written(tmp_path, text)]) == {"KEY": value}


def test_of_several_files_the_last_counts(tmp_path: Path) -> None:
    """A later file replaces what an earlier one has, and keeps the rest."""
    first = written(tmp_path, "A=1\nB=1", "first")
    second = written(tmp_path, "B=2\nC=2", "second")
    assert read_env_files([first, second]) == {"A": "1", "B": "2", "C": "2"}


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (f"A=1\n{CANARY}\n", 0o600, ".env:2:1: invalid line"),
        (f'A=1\nB="{CANARY}\nC=1\n', 0o600, ".env:2:1: invalid line"),
        (f"A=1\nB {CANARY}=1\n", 0o600, ".env:2:1: invalid line"),
        (f"A=1\n$env:B={CANARY}\n", 0o600, ".env:2:1: invalid line"),
        (f'A=1\n"B"={CANARY}\n', 0o600, ".env:2:1: invalid line"),
        (f"A=1\nB: C={CANARY}\n", 0o600, ".env:2:1: invalid line"),
        (b"A=\xff" + CANARY.encode(), 0o600, "invalid UTF-8"),
        (f"A={CANARY}", 0o644, "others may read it"),
        (f"A={CANARY}", 0o666, "others may write to it"),
        ("A=" + "a" * 70_000, 0o600, "too large"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, text: str | bytes, mode: int, words: str
) -> None:
    """Each is a finding with its place and what to do, without a value."""
    with pytest.raises(ConfigError) as caught:
        read_env_files([written(tmp_path, text, mode=mode)])
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)
    assert all(one.advice for one in caught.value.findings)


def test_every_file_is_judged(tmp_path: Path) -> None:
    """A missing file, a directory and a link are findings, all at once."""
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path, "A=1"))
    with pytest.raises(ConfigError) as caught:
        read_env_files([tmp_path / "none", tmp_path, link])
    said = str(caught.value)
    for words in ("no such file", "is a directory", "symbolic link"):
        assert words in said
