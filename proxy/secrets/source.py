"""Shared parts of secret sources: the error, the check of values, and the time limit."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from typing import Protocol

from proxy.http.abnf import VISIBLE_CHARS

LIMIT_BYTES = 64 * 1024
"""Maximum size of a secret: above the size of any key; a larger file is the wrong file."""

# Visible ASCII, spaces, and bytes above ASCII: field content of RFC 9110 section 5.5.
_SENDABLE = re.compile(rf"[{VISIBLE_CHARS}\x20\x80-\xff]+".encode())


class SourceError(Exception):
    """No usable value. The message is a remedy (``set HUME_API_KEY``), never a value.

    Plugins raise it as well. The message is public: it is part of the status and of 503 responses.
    """


def check(value: bytes, origin: str, *, multiline: bool) -> None:
    """Raise SourceError for a value that cannot be a secret.

    A secret becomes part of a field or URL and must not contain what ends one. ``origin`` describes
    the source for the message. ``multiline`` allows line breaks, for PEM keys and JSON files.
    """
    if not value:
        raise SourceError(f"write the value first: {origin} is empty")
    if len(value) > LIMIT_BYTES:
        raise SourceError(f"use another: {origin} is larger than 64 KiB, too large for a key")
    if multiline:
        if b"\0" in value:
            raise SourceError(f"use a text file: {origin} is binary")
        return
    if not _SENDABLE.fullmatch(value):
        raise SourceError(f"remove line breaks and control characters from {origin}")
    if value != value.strip(b" "):
        raise SourceError(f"remove the spaces around {origin}")


def strip_line_end(value: bytes) -> bytes:
    """Remove the one trailing line end that editors, ``echo`` and most programs write."""
    return value.removesuffix(b"\r\n") if value.endswith(b"\r\n") else value.removesuffix(b"\n")


def call_with_timeout(read: Callable[[], object], what: str, timeout_seconds: float) -> object:
    """Return or raise what ``read`` does. Raises SourceError after ``timeout_seconds``.

    ``read`` runs in its own daemon thread, which cannot be ended: a blocked one is abandoned and
    does not prevent the process from exiting. ``what`` describes the source for the message.
    """
    results: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((read(), None))
        except BaseException as error:  # noqa: BLE001  raised again in the waiting thread
            results.put((None, error))

    threading.Thread(target=run, name=f"keyrelay {what}", daemon=True).start()
    try:
        value, error = results.get(timeout=timeout_seconds)
    except queue.Empty:
        raise SourceError(
            f"check why {what} does not respond, or raise timeout_seconds: "
            f"it timed out after {timeout_seconds:g} s"
        ) from None
    if error is not None:
        raise error
    return value


class SecretSpec(Protocol):
    """The settings of a secret that the resolver reads; implemented by ``config.secret``."""

    @property
    def references(self) -> tuple[str, ...]: ...
    @property
    def multiline(self) -> bool: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def ttl_seconds(self) -> float | None: ...
    @property
    def external(self) -> bool: ...
