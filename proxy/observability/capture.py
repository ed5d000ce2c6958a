"""Reading along in what passes, for the inspector: WebSocket messages and server-sent events.

From a copy of the bytes, only while somebody watches. Whatever is said of them has been masked
first. What cannot be read (a coding unknown here, frames that are none) is not guessed at: the
inspector says why it shows nothing, and the bytes go their way as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from proxy.http.content_coding import decoder
from proxy.observability.capture_buffer import Sender
from proxy.secrets.redaction import Redactor, StreamMasker
from proxy.websocket.messages import Message, MessageReader, agreed

# Bytes of a message, or of an event, that are looked at; and characters of it that are shown.
_READ = 64 * 1024
_SHOWN = 16 * 1024
_SHOWN_BINARY = 64  # bytes
# Bytes that one read of a compressed stream may unfold to.
_MOST_AT_ONCE = 4 * 1024 * 1024

# The end of an event: a line end behind a line end (HTML standard, section 9.2.5).
_BETWEEN = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")
# What may be the beginning of such an end stays until the next read.
_MAY_END = 3

_NOT_WATCHED = "Nobody watched for a while, so what follows cannot be told apart any more."

_UNREADABLE = "(compressed, and it refers to a message that was too long to be read)"


class Say(Protocol):
    """Takes down one message or event, which has been masked."""

    def __call__(
        self, sender: Sender, kind: str, text: str, size: int, *, cut: bool = False
    ) -> None: ...


class WebSocketCapture:
    """Reads along in one WebSocket from its beginning. A ``Tap`` of the relay.

    done        called at the end, with this
    extensions  the value of ``Sec-WebSocket-Extensions`` in the provider's answer
    """

    def __init__(
        self,
        say: Say,
        done: Callable[[WebSocketCapture], None],
        extensions: bytes,
        redactor: Redactor,
    ) -> None:
        self._say = say
        self._done = done
        self._masker = redactor
        deflate = agreed(extensions.decode("latin-1"))
        self._readers: dict[Sender, MessageReader] = {
            "client": MessageReader(True, limit=_READ, deflate=deflate),
            "provider": MessageReader(False, limit=_READ, deflate=deflate),
        }

    def from_client(self, data: bytes) -> None:
        """Bytes that go to the provider. Never raises."""
        self._read("client", data)

    def from_provider(self, data: bytes) -> None:
        """Bytes that go to the client. Never raises."""
        self._read("provider", data)

    def ended(self) -> None:
        """The session is over."""
        self._readers = {}
        self._done(self)

    def rest(self) -> None:
        """Nobody watches any more: stop reading. Where a frame begins is lost with that."""
        if self._readers:
            self._readers = {}
            self._say("keyrelay", "note", _NOT_WATCHED, 0)

    def _read(self, sender: Sender, data: bytes) -> None:
        if (reader := self._readers.get(sender)) is None:
            return
        try:
            for message in reader.feed(data):
                self._tell(sender, message)
            broken = reader.broken
        except Exception as error:  # noqa: BLE001  whatever fails here must not end the session
            broken = type(error).__name__
        if broken:
            del self._readers[sender]
            self._say("keyrelay", "note", f"The {sender} cannot be read any further: {broken}.", 0)

    def _tell(self, sender: Sender, message: Message) -> None:
        if message.unreadable:
            self._say(sender, message.kind, _UNREADABLE, message.wire, cut=True)
            return
        data, cut = _masked(message.data, self._masker, cut=message.truncated)
        if message.kind == "close":
            code, reason = data[:2], data[2:]
            text = f"{int.from_bytes(code)} {_text(reason)}".rstrip() if code else "no code"
        elif message.kind == "text":
            text, cut = _text(data[:_SHOWN]), cut or len(data) > _SHOWN
        else:
            text, cut = data[:_SHOWN_BINARY].hex(" "), cut or len(data) > _SHOWN_BINARY
        self._say(sender, message.kind, text, message.size, cut=cut)


class EventStreamCapture:
    """Reads along in one ``text/event-stream``.

    done    called at the end, with this
    coding  the value of ``Content-Encoding``
    """

    def __init__(
        self, say: Say, done: Callable[[EventStreamCapture], None], coding: str, redactor: Redactor
    ) -> None:
        self._say = say
        self._done = done
        self._decoder = decoder(coding)
        self._masker = StreamMasker(redactor)
        self._text = b""
        self._size = 0  # of the event that has begun, with what was not kept of it
        if self._decoder is None:
            self._give_up("Its content coding cannot be undone here.")

    def feed(self, data: bytes) -> None:
        """Bytes of the answer's body, as they came from the provider. Never raises."""
        if self._decoder is None:
            return
        unfolded = 0
        try:
            for piece in self._decoder.feed(data):
                unfolded += len(piece)
                if unfolded > _MOST_AT_ONCE:
                    self._give_up("It unfolds to too much.")
                    return
                self._read(self._masker.feed(piece))
        except ValueError as error:
            self._give_up(f"It cannot be read: {error}.")
        except Exception as error:  # noqa: BLE001  whatever fails here must not end the answer
            self._give_up(f"The inspector failed to read along ({type(error).__name__}).")

    def ended(self) -> None:
        """The answer is over, whole or not."""
        if self._decoder is not None:
            self._read(self._masker.finish())
            self._tell(self._text, self._size)
        self._decoder = None
        self._done(self)

    def rest(self) -> None:
        """Nobody watches any more: stop reading."""
        if self._decoder is not None:
            self._give_up(_NOT_WATCHED)

    def _read(self, text: bytes) -> None:
        before = len(self._text)
        self._text += text
        self._size += len(text)
        at = 0
        for found in _BETWEEN.finditer(self._text, max(0, before - _MAY_END)):
            if found.end() == len(self._text) and found[0].endswith(b"\r"):
                break  # a line feed may follow that belongs to it
            rest = len(self._text) - found.end()
            self._tell(self._text[at : found.start()], self._size - rest)
            self._size, at = rest, found.end()
        self._text = self._text[at:][:_READ]

    def _tell(self, event: bytes, size: int) -> None:
        event = event.strip(b"\r\n")
        if event:
            cut = len(event) > _SHOWN or size > _READ
            self._say("provider", "event", _text(event[:_SHOWN]), size, cut=cut)

    def _give_up(self, why: str) -> None:
        self._decoder = None
        self._text = b""
        self._say("keyrelay", "note", why, 0)


def _masked(data: bytes, redactor: Redactor, *, cut: bool) -> tuple[bytes, bool]:
    """Masked. An end that was cut may be the beginning of a secret, so it goes as well."""
    masked = redactor.mask(data)
    return (masked[: redactor.pending(data)] if cut else masked), cut


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
