"""What all sources of secrets share: how they fail, what a value may be, how long they may take."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from typing import Protocol

LIMIT_BYTES = 64 * 1024
"""Largest value of a secret: above the size of any key, below that of a mistake."""

# Visible ASCII, blanks between, and what latin-1 has above it: RFC 9110 section 5.5 field content.
_SENDABLE = re.compile(rb"[\x20-\x7e\x80-\xff]+")


class SourceError(Exception):
    """No usable value. The text says what to do (``set HUME_API_KEY``); never a value.

    Own sources raise it as well. Their text is shown to whoever asks why a route is not ready.
    """


def check(value: bytes, origin: str, *, multiline: bool) -> None:
    """Raise SourceError for what cannot be a secret: it becomes part of a header or a URL, which it
    must not be able to end. ``origin`` says in words where the value is from.
    """
    if not value:
        raise SourceError(f"write the value first: {origin} is empty")
    if len(value) > LIMIT_BYTES:
        raise SourceError(f"take another: {origin} is larger than 64 KiB, which no key is")
    if multiline:
        if b"\0" in value:
            raise SourceError(f"name a text: {origin} is binary")
        return
    if not _SENDABLE.fullmatch(value):
        raise SourceError(f"remove line breaks and control characters from {origin}")
    if value != value.strip(b" "):
        raise SourceError(f"remove the blanks around {origin}")


def without_line_end(value: bytes) -> bytes:
    """The bytes without the one line end that editors, ``echo`` and most programs leave."""
    return value.removesuffix(b"\r\n") if value.endswith(b"\r\n") else value.removesuffix(b"\n")


def in_time(read: Callable[[], object], what: str, timeout_seconds: float) -> object:
    """What ``read`` returns or raises. Raises SourceError if it takes longer than that.

    It runs in a thread of its own, which cannot be ended: one that hangs is left behind, and does
    not keep the process from ending.
    """
    answers: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((read(), None))
        except BaseException as error:  # noqa: BLE001  raised again below, where it is waited for
            answers.put((None, error))

    threading.Thread(target=run, name=f"keyrelay {what}", daemon=True).start()
    try:
        value, error = answers.get(timeout=timeout_seconds)
    except queue.Empty:
        raise SourceError(
            f"look why {what} does not answer, or raise timeout_seconds: "
            f"it timed out after {timeout_seconds:g} s"
        ) from None
    if error is not None:
        raise error
    return value


class SecretSpec(Protocol):
    """What the resolver needs to know of a configured secret."""

    @property
    def references(self) -> tuple[str, ...]: ...
    @property
    def multiline(self) -> bool: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def ttl_seconds(self) -> float | None: ...
    @property
    def asks(self) -> bool: ...
