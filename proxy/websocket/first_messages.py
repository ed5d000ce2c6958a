"""Place a credential in the first messages of a WebSocket session (RFC 6455, RFC 8259).

Until the credential is placed, both directions are parsed, and only whole frames are forwarded:
both outgoing streams are then at a frame boundary, at which a Close frame may follow. Pure, without
I/O: ``opening`` moves the bytes. Memory is bounded: a message that is parsed has at most 64 KiB.

A message is forwarded as it is, with its fragments, or as one frame if a member of it was set or
removed. Control frames between fragments are forwarded at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from proxy.secrets.json_redaction import redact_json
from proxy.secrets.redaction import Redactor
from proxy.websocket.frames import CloseCode, Frame, Opcode
from proxy.websocket.incoming_messages import (
    Failure,
    IncomingMessages,
    encode_frames,
    fail,
    parse_client_message,
    parse_provider_message,
    refuse,
    text_frame,
)
from proxy.websocket.json_edit import (
    Json,
    JsonEditError,
    Pointer,
    edit_members,
    matches,
)
from proxy.websocket.message_rules import MessageRules, SendMessage, SetMembers

# Maximum size (bytes) of a message that is parsed, and of what waits for the credential.
LIMIT = 64 * 1024
# Maximum number of its fragments: empty ones would not count otherwise.
MOST_FRAGMENTS = 1024
# Number of the client's messages in which one of its own is searched for behind ``within``, where
# the proxy sends the credential: a client that has none would be parsed without end.
MOST_MESSAGES = 100

# Maximum payload (bytes) of a control frame.
_CONTROL_PAYLOAD = 125

_TOO_LONG = "the message is longer than 64 KiB, or has more than 1024 fragments"


class FirstMessages:
    """The parsed part of one session.

    to_provider, to_client      bytes that are to be sent
    client_done, provider_done  the messages from there need no parser any more, and all of their
                                bytes are among those to be sent; the provider's frames are counted
                                until both are done
    placed                      the credential is among the bytes that are to be sent, or has been
    refused                     how the provider refused the credential, "" if it did not
    notes                       what was done, for the inspector

    ``from_client`` and ``from_provider`` raise Failure; bytes that are to be sent precede it.
    """

    __slots__ = (
        "_client",
        "_held",
        "_own_seen",
        "_provider",
        "_redactor",
        "_rules",
        "_streaming",
        "_waiting",
        "client_done",
        "notes",
        "placed",
        "provider_done",
        "refused",
        "to_client",
        "to_provider",
    )

    def __init__(self, rules: MessageRules, redactor: Redactor) -> None:
        self._rules = rules
        self._redactor = redactor
        self._client = IncomingMessages(masked=True)
        self._provider = IncomingMessages(masked=False)
        self._own_seen = False
        # A message that has to wait for the credential, and the client's bytes behind it.
        self._held: tuple[list[Frame], str] | None = None
        self._waiting = bytearray()
        # The provider's message is forwarded as it arrives, because it is binary or too long.
        self._streaming = False
        self.to_provider = bytearray()
        self.to_client = bytearray()
        self.client_done = self.provider_done = False
        self.placed = rules.placement is None
        self.refused = ""
        self.notes: list[str] = []

    @property
    def client_at_boundary(self) -> bool:
        """Whether a frame of the proxy's own may be sent to the client."""
        reader = self._provider.reader
        if self.provider_done:
            return not (reader.pending or reader.broken or self._provider.closed)
        return not (self._streaming or self._provider.closed)

    @property
    def provider_at_boundary(self) -> bool:
        """Whether a frame of the proxy's own may be sent to the provider."""
        return not (self.client_done or self._client.closed)

    @property
    def closing(self) -> bool:
        """Whether one side has sent a Close frame; its bytes behind that are discarded."""
        return self._client.closed or self._provider.closed

    def expired(self) -> Failure:
        """What to do if the credential has not been placed in time."""
        assert self._rules.placement is not None
        if isinstance(self._rules.placement.place, SendMessage):
            return Failure(
                CloseCode.INTERNAL_ERROR, "the provider did not ask for the credential in time"
            )
        return Failure(CloseCode.POLICY_VIOLATION, "no message for the credential arrived in time")

    @property
    def waits_for_provider(self) -> bool:
        """Whether the client has done its part: the credential is sent when the provider asks."""
        placement = self._rules.placement
        sends = placement is not None and isinstance(placement.place, SendMessage)
        return sends and not self.placed

    # -- from the client -----------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        """Parse bytes of the client."""
        at = 0
        while at < len(data) and not self._client.closed:
            if self.client_done:
                self.to_provider += data[at:]
                return
            if self._held is not None:
                self._wait(data[at:])
                return
            frame, at = self._client.reader.feed_one(data, at)
            if self._client.reader.broken:
                raise refuse(f"malformed frame of the client: {self._client.reader.broken}")
            if frame is not None and frame.control:
                self._client.closed = frame.opcode is Opcode.CLOSE
                self._forward_to_provider([frame], frame.payload)
                continue
            if frame is not None and (fault := self._client.add(frame)):
                raise refuse(f"malformed frame of the client: {fault}")
            self._check_client_message()
            if frame is not None and frame.fin and not self.client_done:
                self._client_message()

    def _check_client_message(self) -> None:
        """Check what is known of a message before it is complete."""
        opcode, size = self._client.message
        if opcode is Opcode.BINARY:
            if not self.placed:
                raise refuse("a binary message arrived before the credential was placed")
            self._finish_client()
        elif size > LIMIT or len(self._client.frames) > MOST_FRAGMENTS:
            if not self._is_late:
                raise refuse(_TOO_LONG)
            self._finish_client()

    @property
    def _is_late(self) -> bool:
        """Whether the client's message is parsed only to find one of its own behind the bound.

        A message that cannot be parsed then is no error: it ends the search.
        """
        placement = self._rules.placement
        return placement is not None and self.placed and self._client.count >= placement.within

    def _client_message(self) -> None:
        late = self._is_late
        frames, content = self._client.take()
        self._client.count += 1
        try:
            text, value = parse_client_message(content)
        except Failure:
            if not late:
                raise
            self._forward_to_provider(frames, content)
            self._finish_client()
            return
        placement = self._rules.placement
        if placement is None:
            self._forward_message(frames, text)
            self._finish_client()
        elif isinstance(placement.place, SetMembers):
            self._set_members(placement.place, placement.within, frames, text, value)
        else:
            self._beside_own(placement.place, placement.within, frames, text, value)

    def _set_members(
        self, place: SetMembers, within: int, frames: list[Frame], text: str, value: Json
    ) -> None:
        """Set the credential in the message, if it is the one."""
        if not matches(value, place.when):
            if self._client.count >= within:
                raise refuse(
                    "the first message has no place for the credential"
                    if within == 1
                    else f"none of the first {within} messages has a place for the credential"
                )
            # Where the credential would be, the client has its own.
            own = [pointer for pointer, _ in place.members]
            self._forward_message(frames, text, [*self._rules.strip, *own])
            return
        try:
            edited = edit_members(text, remove=self._rules.strip, members=place.members)
        except JsonEditError as error:
            raise refuse(str(error)) from None
        self.to_provider += text_frame(edited)
        self.placed = True
        names = ", ".join(str(pointer) for pointer, _ in place.members)
        self.notes.append(f"The credential was set at {names} of message {self._client.count}.")
        self._finish_client()

    def _beside_own(
        self, place: SendMessage, within: int, frames: list[Frame], text: str, value: Json
    ) -> None:
        """Drop the client's own message with a credential, and forward any other."""
        if matches(value, place.own):
            self._own_seen = True
            self.notes.append("The client's own message with a credential was not forwarded.")
        elif not self.placed and (self._own_seen or self._client.count >= within):
            self._held = frames, text
            return
        else:
            self._forward_message(frames, text)
        self._finish_behind_own(within)

    def _finish_behind_own(self, within: int) -> None:
        """Parse no further if no message of the client's own is to be expected any more."""
        expected = not self._own_seen and self._client.count < MOST_MESSAGES
        if self.placed and self._client.count >= within and not expected:
            self._finish_client()

    def _wait(self, data: bytes) -> None:
        """Keep bytes that follow a held message."""
        self._waiting += data
        if len(self._waiting) > LIMIT:
            raise refuse("more than 64 KiB arrived before the credential was placed")

    def _release(self, within: int) -> None:
        """Forward what has waited for the credential."""
        if self._held is None:
            self._finish_behind_own(within)
            return
        held, self._held = self._held, None
        waiting, self._waiting = bytes(self._waiting), bytearray()
        self._forward_message(*held)
        self._finish_behind_own(within)
        self.from_client(waiting)

    def _finish_client(self) -> None:
        """Forward what has been read of an incomplete message, and parse no further."""
        self.client_done = True
        self._forward_to_provider(*self._client.take())
        self.to_provider += self._client.reader.unfinished
        if self._rules.placement is None:
            self._finish_provider()

    def _forward_message(
        self, frames: list[Frame], text: str, remove: Sequence[Pointer] | None = None
    ) -> None:
        """Forward a message without the members in ``remove``, ``strip`` by default."""
        stripped = edit_members(text, remove=self._rules.strip if remove is None else remove)
        if stripped == text:
            self._forward_to_provider(frames, text.encode())
        else:
            self.to_provider += text_frame(stripped)

    def _forward_to_provider(self, frames: list[Frame], content: bytes) -> None:
        self.to_provider += encode_frames(frames, content, masked=True)

    # -- from the provider ---------------------------------------------------------------------

    def from_provider(self, data: bytes) -> None:
        """Parse bytes of the provider."""
        at = 0
        while at < len(data) and not self._provider.closed:
            if self.provider_done:
                self._pass_to_client(data[at:])
                return
            start = at
            frame, at = self._provider.reader.feed_one(data, at)
            if self._provider.reader.broken:
                raise fail(f"malformed frame of the provider: {self._provider.reader.broken}")
            if self._streaming:
                self.to_client += data[start:at]
            if frame is not None and frame.control:
                self._provider_control(frame)
                continue
            if frame is not None and (fault := self._provider.add(frame)):
                raise fail(f"malformed frame of the provider: {fault}")
            if self._streaming:
                self._provider.frames = self._provider.frames[:1]
            else:
                self._begin_streaming()
            if frame is not None and frame.fin and not self.provider_done:
                self._provider_message()

    def _pass_to_client(self, data: bytes) -> None:
        """Forward bytes as they are; frames are only counted, for a Close frame between two."""
        self.to_client += data
        if any(one.opcode is Opcode.CLOSE for one in self._provider.reader.feed(data)):
            self._provider.closed = True

    def _provider_control(self, frame: Frame) -> None:
        code = int.from_bytes(frame.payload[:2])
        if frame.opcode is Opcode.CLOSE:
            self._provider.closed = True
            placement = self._rules.placement
            if placement is not None and self.placed and code in placement.refused.close:
                self.refused = f"close code {code}"
        if not self._streaming:
            self._forward_to_client([frame], frame.payload)

    def _begin_streaming(self) -> None:
        """Forward a message as it arrives, if it is not a text that can be parsed."""
        opcode, size = self._provider.message
        short = size <= LIMIT and len(self._provider.frames) <= MOST_FRAGMENTS
        if opcode is not Opcode.BINARY and short:
            return
        placement = self._rules.placement
        if placement is not None and self.placed and self._provider.count + 1 >= placement.within:
            self._finish_provider()
            return
        first = self._provider.frames[:1]
        self._forward_to_client(*self._provider.take())
        self.to_client += self._provider.reader.unfinished
        self._streaming = True
        # Only control frames are read from now on.
        self._provider.reader.limit = _CONTROL_PAYLOAD
        self._provider.frames = first

    def _provider_message(self) -> None:
        """Handle a complete message."""
        frames, content = self._provider.take()
        value: Json = None
        if self._streaming:
            self._streaming = False
            self._provider.reader.limit = sys.maxsize
        else:
            self._forward_to_client(frames, content)
            value = parse_provider_message(content)
        placement = self._rules.placement
        if placement is None:
            return
        if self.placed:
            self._provider.count += 1
            refused = placement.refused.message
            if refused is not None and matches(value, refused):
                self.refused = "a message"
            if self.refused or self._provider.count >= placement.within:
                self._finish_provider()
        elif isinstance(placement.place, SendMessage):
            self._provider.count += 1
            if matches(value, placement.place.after):
                self._send(placement.place, placement.within)
            elif self._provider.count >= placement.within:
                raise fail("the provider did not ask for the credential")

    def _send(self, place: SendMessage, within: int) -> None:
        """Send the message with the credential."""
        self.to_provider += text_frame(place.text)
        self.placed = True
        self._provider.count = 0
        self.notes.append("The message with the credential was sent by keyrelay.")
        self._release(within)

    def finish(self) -> None:
        """Forward what has been read of incomplete messages, and parse no further."""
        if not self.client_done:
            self._finish_client()
        self._finish_provider()

    def _finish_provider(self) -> None:
        if self.provider_done:
            return
        self.provider_done = True
        if not self._streaming:
            self._forward_to_client(*self._provider.take())
            self.to_client += self._provider.reader.unfinished
        self._provider.reader.limit = 0

    def _forward_to_client(self, frames: list[Frame], content: bytes) -> None:
        redacted = redact_json(self._redactor, content)
        self.to_client += encode_frames(frames, redacted, masked=False)
