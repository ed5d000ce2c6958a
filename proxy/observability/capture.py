"""Capture WebSocket messages and server-sent events for the inspector.

Captures read a copy of the bytes while the inspector has subscribers, and redact before anything is
kept. Data that cannot be parsed (an unknown content coding, invalid frames) is not guessed at: the
inspector shows a note with the reason, and the bytes are forwarded unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from proxy.http.content_coding import decoder
from proxy.observability.capture_buffer import Sender
from proxy.secrets.redaction import Redactor, StreamRedactor
from proxy.websocket.captured_messages import Message, MessageReader, negotiated_deflate

# Bytes that are parsed of a message or event, and characters that are shown of it.
_READ = 64 * 1024
_SHOWN = 16 * 1024
_SHOWN_BINARY = 64  # bytes
# Maximum decompressed bytes of one read of a compressed stream.
_DECOMPRESSED_LIMIT = 4 * 1024 * 1024

# The end of an event: two consecutive line ends (HTML standard, section 9.2.5).
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")
# Bytes at the end of a read that may begin such an end.
_PARTIAL_END = 3

_NOT_CAPTURED = "Capture stopped as the inspector was closed; later messages cannot be parsed."

_UNREADABLE = "(compressed, and refers to a message that was too long to be parsed)"


class OnMessage(Protocol):
    """Receives one message or event, which has been redacted."""

    def __call__(
        self, sender: Sender, kind: str, text: str, size: int, *, cut: bool = False
    ) -> None: ...


class WebSocketCapture:
    """Captures the messages of one WebSocket from its start. A ``Tap`` of the relay.

    on_message  receives each message
    done        called at the end, with this capture
    extensions  the value of ``Sec-WebSocket-Extensions`` in the provider's response
    """

    def __init__(
        self,
        on_message: OnMessage,
        done: Callable[[WebSocketCapture], None],
        extensions: bytes,
        redactor: Redactor,
    ) -> None:
        self._on_message = on_message
        self._done = done
        self._redactor = redactor
        deflate = negotiated_deflate(extensions.decode("latin-1"))
        self._readers: dict[Sender, MessageReader] = {
            "client": MessageReader(True, limit=_READ, deflate=deflate),
            "provider": MessageReader(False, limit=_READ, deflate=deflate),
        }

    def from_client(self, data: bytes) -> None:
        """Capture bytes sent to the provider. Never raises."""
        self._read("client", data)

    def from_provider(self, data: bytes) -> None:
        """Capture bytes sent to the client. Never raises."""
        self._read("provider", data)

    def note(self, text: str) -> None:
        """Show what keyrelay did with the client's last message."""
        if self._readers:
            self._on_message("keyrelay", "note", text, 0)

    def ended(self) -> None:
        """End the capture with the session."""
        self._readers = {}
        self._done(self)

    def stop(self) -> None:
        """Stop parsing, as the inspector has no subscribers. Frame boundaries are lost."""
        if self._readers:
            self._readers = {}
            self._on_message("keyrelay", "note", _NOT_CAPTURED, 0)

    def _read(self, sender: Sender, data: bytes) -> None:
        if (reader := self._readers.get(sender)) is None:
            return
        try:
            for message in reader.feed(data):
                self._emit(sender, message)
            broken = reader.broken
        except Exception as error:  # noqa: BLE001  a failed capture must not end the session
            broken = type(error).__name__
        if broken:
            del self._readers[sender]
            text = f"Messages of the {sender} cannot be parsed any further: {broken}."
            self._on_message("keyrelay", "note", text, 0)

    def _emit(self, sender: Sender, message: Message) -> None:
        if message.unreadable:
            self._on_message(sender, message.kind, _UNREADABLE, message.wire, cut=True)
            return
        data, cut = _redacted(message.data, self._redactor, cut=message.truncated)
        if message.kind == "close":
            code, reason = data[:2], data[2:]
            text = f"{int.from_bytes(code)} {_text(reason)}".rstrip() if code else "no code"
        elif message.kind == "text":
            text, cut = _text(data[:_SHOWN]), cut or len(data) > _SHOWN
        else:
            text, cut = data[:_SHOWN_BINARY].hex(" "), cut or len(data) > _SHOWN_BINARY
        self._on_message(sender, message.kind, text, message.size, cut=cut)


class EventStreamCapture:
    """Captures the events of one ``text/event-stream``.

    on_message  receives each event
    done        called at the end, with this capture
    coding      the value of ``Content-Encoding``
    """

    def __init__(
        self,
        on_message: OnMessage,
        done: Callable[[EventStreamCapture], None],
        coding: str,
        redactor: Redactor,
    ) -> None:
        self._on_message = on_message
        self._done = done
        self._decoder = decoder(coding)
        self._redactor = StreamRedactor(redactor)
        self._text = b""
        self._size = 0  # bytes of the current event, including those beyond the limit
        if self._decoder is None:
            self._stop("The content coding of the response is not supported.")

    def feed(self, data: bytes) -> None:
        """Capture bytes of the response body, as received from the provider. Never raises."""
        if self._decoder is None:
            return
        decompressed = 0
        try:
            for chunk in self._decoder.feed(data):
                decompressed += len(chunk)
                if decompressed > _DECOMPRESSED_LIMIT:
                    self._stop("The decompressed data is too large.")
                    return
                self._read(self._redactor.feed(chunk))
        except ValueError as error:
            self._stop(f"The response body cannot be decoded: {error}.")
        except Exception as error:  # noqa: BLE001  a failed capture must not end the response
            self._stop(f"The capture failed ({type(error).__name__}).")

    def ended(self) -> None:
        """End the capture with the response, complete or not."""
        if self._decoder is not None:
            self._read(self._redactor.finish())
            self._emit(self._text, self._size)
        self._decoder = None
        self._done(self)

    def stop(self) -> None:
        """Stop parsing, as the inspector has no subscribers."""
        if self._decoder is not None:
            self._stop(_NOT_CAPTURED)

    def _read(self, text: bytes) -> None:
        before = len(self._text)
        self._text += text
        self._size += len(text)
        at = 0
        for found in _EVENT_END.finditer(self._text, max(0, before - _PARTIAL_END)):
            if found.end() == len(self._text) and found[0].endswith(b"\r"):
                break  # the next byte may be the LF of this CRLF
            rest = len(self._text) - found.end()
            self._emit(self._text[at : found.start()], self._size - rest)
            self._size, at = rest, found.end()
        self._text = self._text[at:][:_READ]

    def _emit(self, event: bytes, size: int) -> None:
        event = event.strip(b"\r\n")
        if event:
            cut = len(event) > _SHOWN or size > _READ
            self._on_message("provider", "event", _text(event[:_SHOWN]), size, cut=cut)

    def _stop(self, reason: str) -> None:
        self._decoder = None
        self._text = b""
        self._on_message("keyrelay", "note", reason, 0)


def _redacted(data: bytes, redactor: Redactor, *, cut: bool) -> tuple[bytes, bool]:
    """Redact; if the data is cut, also remove a suffix that may begin a secret."""
    redacted = redactor.redact(data)
    return (redacted[: redactor.pending(data)] if cut else redacted), cut


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
