"""A session whose first messages are parsed, until the credential is placed in one of them.

Afterwards it is a ``Relay`` as any other: both sides are replaced by its own, and nothing of the
parsers remains. A failure ends the session with a Close frame to both sides.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from proxy.websocket.first_messages import FirstMessages
from proxy.websocket.frame_sync import FrameSync
from proxy.websocket.frames import CloseCode, Opcode, close_frame
from proxy.websocket.incoming_messages import Failure, cut_off
from proxy.websocket.relay import Relay, RelaySide, Tap

# Time (seconds) for a peer to respond to a Close frame.
_CLOSE_SECONDS = 2.0


class OpeningListener(Protocol):
    """Receives what became of the credential. Released together with the parsers."""

    def on_failure(self, reason: str) -> None:
        """The session ends without the credential. ``reason`` is fixed text."""

    def on_rejection(self, how: str) -> None:
        """The provider refused the credential. ``how`` is fixed text."""


class OpeningRelay(Relay):
    """One WebSocket session with a credential in its first messages.

    messages  parses them, and places the credential
    listener  see ``OpeningListener``
    seconds   time until the credential has been placed
    ending    both sides have got a Close frame of the proxy; their bytes are discarded
    """

    __slots__ = ("_deadline", "_listener", "_messages", "ending")

    def __init__(
        self,
        client: asyncio.Transport,
        provider: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Relay, int, int], None],
        tap: Tap | None,
        *,
        messages: FirstMessages,
        listener: OpeningListener,
        seconds: float,
    ) -> None:
        super().__init__(client, provider, loop, ended, tap)
        self._messages: FirstMessages | None = messages
        self._listener: OpeningListener | None = listener
        self.ending = False
        self._deadline: asyncio.TimerHandle | None = None
        if not messages.placed:
            self._deadline = loop.call_later(seconds, self._expire)
        self._client = _ParsedSide(self, client, masked=True)
        self._provider = _ParsedSide(self, provider, masked=False)
        self._client.far, self._provider.far = self._provider, self._client

    def received(self, side: RelaySide, data: bytes) -> None:
        """Parse bytes of one side, and forward what can be forwarded."""
        messages = self._messages
        assert messages is not None
        failure: Failure | None = None
        try:
            if side is self._client:
                messages.from_client(data)
            else:
                messages.from_provider(data)
        except Failure as caught:
            failure = caught
        self._forward(messages)
        if failure is not None:
            self._fail(messages, failure)
        else:
            self._settle(messages)

    def _forward(self, messages: FirstMessages) -> None:
        """Send what is to be sent, to the provider first."""
        tap = self._tap
        if messages.to_provider:
            data = bytes(messages.to_provider)
            messages.to_provider.clear()
            if not self._provider.transport.is_closing():
                self._provider.transport.write(data)
            if tap is not None:
                tap.from_client(data)
        for note in messages.notes:
            if tap is not None:
                tap.note(note)
        messages.notes.clear()
        if messages.to_client:
            data = bytes(messages.to_client)
            messages.to_client.clear()
            if not self._client.transport.is_closing():
                self._client.transport.write(data)
            if tap is not None:
                tap.from_provider(data)

    def _settle(self, messages: FirstMessages) -> None:
        """Splice the directions that need no parser any more."""
        if messages.placed:
            self._cancel_deadline()
            if isinstance(self._client, _ParsedSide) and self._client.waits_to_end:
                self._end_behind(messages)
                return
        if messages.refused and self._listener is not None:
            self._listener.on_rejection(messages.refused)
            self._listener = None
        if messages.client_done and isinstance(self._client, _ParsedSide):
            self._client = self._spliced(self._client)
        if messages.client_done and messages.provider_done:
            if isinstance(self._provider, _ParsedSide):
                self._provider = self._spliced(self._provider)
            self._messages = self._listener = None

    def _spliced(self, side: RelaySide) -> RelaySide:
        """The side that replaces a parsed one."""
        plain = self.new_side(side.transport, from_client=side is self._client)
        return _replaced(side, plain)

    # -- a peer that ends its sending direction ------------------------------------------------

    def sending_ended(self, side: _ParsedSide) -> bool:
        """A peer has ended its direction. Whether its connection stays open for the other one.

        Not before the credential has been placed, since the session cannot go on without: but for
        a client whose messages wait until the provider asks, and pass before the end.
        """
        messages = self._messages
        if messages is None or self.ending:
            return False
        if messages.closing:
            return side.pass_end()
        if messages.placed:
            return self._end_behind(messages, side)
        if side is self._client and messages.waits_for_provider:
            side.waits_to_end = True
            return True
        side.silent = True
        self._fail(messages, cut_off(by_client=side is self._client))
        return True

    def _end_behind(self, messages: FirstMessages, side: RelaySide | None = None) -> bool:
        """Splice the session, and end a direction, the client's by default, behind what is sent."""
        is_provider = side is self._provider
        if isinstance(self._client, _ParsedSide):
            self._client.waits_to_end = False
        messages.finish()
        self._forward(messages)
        self._settle(messages)
        ending = self._provider if is_provider else self._client
        stays = ending.eof_received()
        if side is None and not stays:
            ending.close()
        return stays

    # -- the end -------------------------------------------------------------------------------

    def _expire(self) -> None:
        self._deadline = None
        messages = self._messages
        assert messages is not None
        self._fail(messages, messages.expired())

    def _fail(self, messages: FirstMessages, failure: Failure) -> None:
        if self._listener is not None and not messages.closing:
            self._listener.on_failure(failure.reason)
        self._close(messages, failure.code, f"keyrelay: {failure.reason}")

    def _close(self, messages: FirstMessages, code: CloseCode, reason: str = "") -> None:
        """Send the Close frames that may be sent, and wait for those of the peers."""
        self.ending = True
        self._messages = self._listener = None
        self._cancel_deadline()
        to_client = close_frame(code, mask=None, reason=reason)
        to_provider = close_frame(CloseCode.GOING_AWAY, mask=os.urandom(4))
        # Nothing can be sent behind an end that has been passed on.
        open_to_client, open_to_provider = (
            not _passed_end(self._provider),
            not _passed_end(self._client),
        )
        if not isinstance(self._client, _ParsedSide):
            # What it still sends is discarded from now on.
            self._client = _replaced(
                self._client, _ParsedSide(self, self._client.transport, masked=True)
            )
        for side, possible, frame in (
            (self._client, open_to_client and messages.client_at_boundary, to_client),
            (self._provider, open_to_provider and messages.provider_at_boundary, to_provider),
        ):
            if possible and not (side.lost or side.transport.is_closing()):
                side.transport.write(frame)
                if side.silent:
                    side.close()  # no Close frame can come in response
            else:
                side.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def close_gracefully(self, grace_seconds: float) -> None:
        """End the session within ``grace_seconds``; see ``Relay.close_gracefully``."""
        messages = self._messages
        if messages is None:
            if not self.ending:
                super().close_gracefully(grace_seconds)
        elif messages.client_done or self._in_frame(messages):
            messages.finish()
            self._forward(messages)
            self._settle(messages)
            super().close_gracefully(grace_seconds)
        elif not (messages.closing or self._client.lost or self._provider.lost):
            self._close(messages, CloseCode.GOING_AWAY)

    def _in_frame(self, messages: FirstMessages) -> bool:
        """Whether a frame of the provider has begun to be forwarded behind the credential."""
        at_boundary = messages.closing or messages.client_at_boundary
        return messages.provider_done and not at_boundary

    def side_lost(self, side: RelaySide, exc: Exception | None) -> None:
        """Close the other connection, unless it has yet to respond to a Close frame."""
        self._cancel_deadline()
        if self.ending and not side.far.lost:
            return
        super().side_lost(side, exc)


def _replaced(side: RelaySide, other: RelaySide) -> RelaySide:
    """Return ``other``, which takes the place of ``side``."""
    other.moved, other.full = side.moved, side.full
    other.silent, other.lost = side.silent, side.lost
    other.far = side.far
    side.far.far = other
    side.transport.set_protocol(other)
    return other


def _passed_end(side: RelaySide) -> bool:
    """Whether the end of a side's direction has been passed on to the other peer."""
    return side.passed_end if isinstance(side, _ParsedSide) else side.silent


class _ParsedSide(RelaySide):
    """A side whose bytes are parsed, and discarded after the proxy's Close frame.

    passed_end    the end of its direction has been passed on
    waits_to_end  that is to be done once the credential has been placed
    """

    __slots__ = ("_frame_sync", "_opening", "passed_end", "waits_to_end")

    def __init__(
        self, opening: OpeningRelay, transport: asyncio.Transport, *, masked: bool
    ) -> None:
        super().__init__(opening, transport)
        self._opening = opening
        self._frame_sync = FrameSync(masked)
        self.passed_end = self.waits_to_end = False

    def data_received(self, data: bytes) -> None:
        self.moved += len(data)
        if not self._opening.ending:
            self._opening.received(self, data)
            return
        # The Close frame in response to the proxy's ends the connection.
        frames = self._frame_sync.read(data, paused=True)
        if frames is not None and any(one.opcode is Opcode.CLOSE for one in frames):
            self.close()

    def eof_received(self) -> bool:
        if not (self.transport.can_write_eof() and self.far.transport.can_write_eof()):
            return False
        return self._opening.sending_ended(self)

    def pass_end(self) -> bool:
        """Pass the end on, as a side that is not parsed does at once."""
        self.passed_end = True
        return super().eof_received()
