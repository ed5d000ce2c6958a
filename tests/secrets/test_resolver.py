from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from proxy.config.secret import SecretSettings
from proxy.errors import SecretUnavailable
from proxy.secrets.resolver import in_thread, resolve, resolve_all
from proxy.secrets.source import LIMIT_BYTES
from tests.support.keyrelay import until


def secret(*references: str) -> SecretSettings:
    return SecretSettings(references=references)


def remedy(*references: str) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        resolve("api_key", secret(*references))
    assert caught.value.name == "api_key"
    return caught.value.remedy


def test_a_variable_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """``env:`` gives the variable's bytes under the configured name, hidden."""
    monkeypatch.setenv("KEYRELAY_TEST_KEY", "dummy-ä key")
    found = resolve("api_key", secret("env:KEYRELAY_TEST_KEY"))
    assert found.reveal() == "dummy-ä key".encode()
    assert "dummy" not in f"{found!r} {found}"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_file_is_a_secret_without_its_line_end(tmp_path: Path, end: bytes) -> None:
    """``file:`` leaves out the one line end that editors add."""
    path = tmp_path / "key"
    path.write_bytes(b"dummy-key" + end)
    path.chmod(0o600)
    assert resolve("api_key", secret(f"file:{path}")).reveal() == b"dummy-key"


@pytest.mark.parametrize(
    "value",
    [
        b"dummy\nX-Other: 1",
        b"dummy\r",
        b"dum\0my",
        b"dummy\x7f",
        b"dummy\n\n",
        b"\tdummy",
        b"\x1b[m",
    ],
)
def test_a_value_that_could_end_a_header_is_refused(tmp_path: Path, value: bytes) -> None:
    """No secret can smuggle a line into a request, and the refusal does not show it."""
    path = tmp_path / "key"
    path.write_bytes(value)
    path.chmod(0o600)
    said = remedy(f"file:{path}")
    assert "control characters" in said
    assert "dummy" not in said


def test_files_that_are_no_secrets_are_refused_in_words(tmp_path: Path) -> None:
    """Missing, empty, too large, a directory, a pipe: each has its own sentence, none hangs."""
    empty, large, pipe = tmp_path / "empty", tmp_path / "large", tmp_path / "pipe"
    empty.write_bytes(b"\n")
    large.write_bytes(b"x" * (LIMIT_BYTES + 1))
    for path in (empty, large):
        path.chmod(0o600)
    os.mkfifo(pipe)
    assert "no such file" in remedy(f"file:{tmp_path}/none")
    assert "is empty" in remedy(f"file:{empty}")
    assert "larger than 64 KiB" in remedy(f"file:{large}")
    assert "is a directory" in remedy(f"file:{tmp_path}")
    assert "is a device or pipe" in remedy(f"file:{pipe}")
    assert "readable" in remedy(f"file:{empty}/below")


def test_a_file_that_cannot_be_opened_is_refused_in_words(tmp_path: Path) -> None:
    """What the system says about a file becomes a remedy."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "make" in remedy(f"file:{loop}")


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    """The limit itself is still a secret."""
    path = tmp_path / "key"
    path.write_bytes(b"x" * LIMIT_BYTES)
    path.chmod(0o600)
    assert len(resolve("k", secret(f"file:{path}")).reveal()) == LIMIT_BYTES


def test_a_file_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write access decides on the credential; what an engine mounts is taken as it is."""
    path = tmp_path / "key"
    path.write_bytes(b"dummy-key")
    path.chmod(0o622)
    assert "chmod 600" in remedy(f"file:{path}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve("k", secret(f"file:{path}")).reveal() == b"dummy-key"
    assert "chmod 600" in remedy(f"file:{tmp_path}/../{tmp_path.name}/key")


def test_equal_values_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key under two names is no rotation; two keys are, in the order of the references."""
    names = ("env:KEYRELAY_TEST_NEW", "env:KEYRELAY_TEST_OLD")
    monkeypatch.setenv("KEYRELAY_TEST_NEW", "dummy-one")
    monkeypatch.setenv("KEYRELAY_TEST_OLD", "dummy-one")
    (found,) = resolve_all("k", secret(*names))
    assert (found.reveal(), found.reference) == (b"dummy-one", "env:KEYRELAY_TEST_NEW")
    monkeypatch.setenv("KEYRELAY_TEST_OLD", "dummy-two")
    values = [one.reveal() for one in resolve_all("k", secret(*names))]
    assert values == [b"dummy-one", b"dummy-two"]


def test_the_first_reference_that_is_there_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several references are tried in order; if none is there, each has its remedy."""
    monkeypatch.delenv("KEYRELAY_TEST_NEW", raising=False)
    monkeypatch.setenv("KEYRELAY_TEST_OLD", "dummy-old")
    both = ("env:KEYRELAY_TEST_NEW", "env:KEYRELAY_TEST_OLD")
    assert resolve("k", secret(*both)).reveal() == b"dummy-old"
    monkeypatch.setenv("KEYRELAY_TEST_NEW", "dummy-new")
    assert resolve("k", secret(*both)).reveal() == b"dummy-new"
    monkeypatch.delenv("KEYRELAY_TEST_NEW")
    said = remedy("env:KEYRELAY_TEST_NEW", f"file:{tmp_path}/none")
    assert said.startswith("set KEYRELAY_TEST_NEW, or write the value to")


async def test_a_read_in_a_thread_returns_and_raises() -> None:
    """What the function returns or raises; a program that it runs ends as it always does."""
    settings = secret("exec:printf dummy-value")
    found = await in_thread(lambda: resolve("key", settings))
    assert found.reveal() == b"dummy-value"
    failing = secret("exec:false")
    with pytest.raises(SecretUnavailable):
        await in_thread(lambda: resolve("key", failing))


async def test_cancelling_a_read_ends_its_programs(tmp_path: Path) -> None:
    """The one that runs, and those of later references."""
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first, second):
        file.with_suffix(".sh").write_text(f"#!/bin/sh\necho $$ > {file}\nsleep 60\n")
        file.with_suffix(".sh").chmod(0o700)
    settings = secret(f"exec:{first}.sh", f"exec:{second}.sh")
    ended = threading.Event()

    def read() -> None:
        try:
            resolve_all("key", settings)
        finally:
            ended.set()

    task = asyncio.get_running_loop().create_task(in_thread(read))
    await until(lambda: first.exists() and first.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(ended.is_set, seconds=10)
