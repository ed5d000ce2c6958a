"""Write log lines to standard output and error without ever blocking the event loop.

A reader that stops (a full pipe, Ctrl-S, a stuck log driver) must not stop requests or signals.
Lines are handed to a thread; what does not fit into a bounded buffer is dropped and counted.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import click

from proxy.observability.exchange_log import LineFormat, json_line
from proxy.observability.terminal_lines import TerminalLines

LogChoice = Literal["text", "json"]

# Lines kept while the reader does not read (bytes), some 5,000 lines of the access log.
LIMIT_BYTES: Final = 1 << 20
# How long the last lines may take at the end (seconds).
END_SECONDS: Final = 0.5


class OutputWriter:
    """Writes text to a descriptor in the order of the calls, from a thread of its own.

    descriptor  where to write; stays the caller's
    on_dropped  gets the number of lines that were dropped, once the reader reads again;
                called in the thread
    on_broken   called once, in the thread, when nothing can be written any more

    The thread starts with the first text. ``write`` and ``close`` may be called from any thread.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        limit_bytes: int = LIMIT_BYTES,
        on_dropped: Callable[[int], object] | None = None,
        on_broken: Callable[[], object] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._limit = limit_bytes
        self._on_dropped = on_dropped
        self._on_broken = on_broken
        # A descriptor of a file that several processes have; each writes while it holds the lock.
        self.lock: int | None = None
        self.dropped = 0
        self._unreported = 0
        self._pending: deque[bytes] = deque()
        # Bytes pending or in the write under way.
        self._size = 0
        self._broken = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Queue ``text``, whole lines, for writing. Never blocks for long and never raises."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._broken:
                return
            # A single text larger than the buffer still goes through an empty one.
            if self._size and self._size + len(data) > self._limit:
                lines = data.count(b"\n")
                self.dropped += lines
                self._unreported += lines
                return
            self._pending.append(data)
            self._size += len(data)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"output-{self._descriptor}", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def close(self, seconds: float = END_SECONDS) -> bool:
        """Wait at most ``seconds`` until everything is written. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._size == 0 or self._broken, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending)
                data = b"".join(self._pending)
                self._pending.clear()
            try:
                self._write(data)
            except OSError:
                self._break()
                return
            with self._changed:
                self._size -= len(data)
                dropped, self._unreported = self._unreported, 0
                self._changed.notify_all()
            if dropped and self._on_dropped is not None:
                self._on_dropped(dropped)

    def _write(self, data: bytes) -> None:
        """Blocks while the reader does not read. Raises OSError."""
        if self.lock is not None:
            fcntl.lockf(self.lock, fcntl.LOCK_EX)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        finally:
            if self.lock is not None:
                fcntl.lockf(self.lock, fcntl.LOCK_UN)

    def _break(self) -> None:
        """Discard output after the reader has closed, as ``| head`` does; requests continue."""
        with self._changed:
            self._broken = True
            self._pending.clear()
            self._size = 0
            self._changed.notify_all()
        if self._on_broken is not None:
            self._on_broken()


def line_format(chosen: LogChoice | None) -> LineFormat:
    """The form of the access log on standard output: by default text on a terminal, else JSON."""
    terminal = sys.stdout.isatty()
    if chosen == "json" or (chosen is None and not terminal):
        return json_line
    return TerminalLines(colours=terminal and not os.environ.get("NO_COLOR"))


class StandardStreams:
    """Standard output for the access log, standard error for messages to the operator."""

    def __init__(self) -> None:
        self.err = OutputWriter(sys.stderr.fileno(), on_dropped=self._report_messages)
        self.out = OutputWriter(
            sys.stdout.fileno(), on_dropped=self._report_log, on_broken=self._report_end
        )
        self._plain = not sys.stderr.isatty()

    def log(self, lines: str) -> None:
        """Write lines of the access log."""
        self.out.write(lines)

    def warn(self, text: str) -> None:
        """Write a message, with its line end added, without styles unless to a terminal."""
        self.err.write((click.unstyle(text) if self._plain else text) + "\n")

    def close(self) -> None:
        """Flush the last lines, each stream for at most END_SECONDS."""
        self.out.close()
        self.err.close()

    def _report_log(self, count: int) -> None:
        self.warn(f"{count} lines of the access log were dropped: its reader is too slow.")

    def _report_messages(self, count: int) -> None:
        self.warn(f"{count} messages were dropped: the reader of standard error is too slow.")

    def _report_end(self) -> None:
        self.warn("The access log has no reader any more; it ends here.")
