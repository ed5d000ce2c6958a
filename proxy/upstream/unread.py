"""Received bytes that were not read: detect them, and read them after a reset.

A provider that responds before it has read a request's body, and closes, causes a reset. The next
write fails, and the event loop then closes the connection without reading the response that the
kernel still holds (RFC 9112 section 9.6).
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from collections.abc import Iterator
from typing import Any, cast

_READ = 65_536


def unread_poll(transport: asyncio.BaseTransport) -> select.poll:
    """A poll object whose ``poll(0)`` is truthy if ``has_unread``; kept for frequent checks."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return poll


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes, or the end, have arrived on the socket of ``transport``. Never blocks."""
    return bool(unread_poll(transport).poll(0))


class _TlsObject(ssl.SSLObject):
    """``incoming`` holds what was received and is not decrypted yet."""

    incoming: ssl.MemoryBIO


class TlsContext(ssl.SSLContext):
    """A TLS context of whose connections the leftover can be decrypted."""

    sslobject_class = _TlsObject

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any
    ) -> ssl.SSLObject:
        tls = cast(_TlsObject, super().wrap_bio(incoming, outgoing, *args, **kwargs))
        tls.incoming = incoming
        return tls


class Leftover:
    """Access to the received bytes of one connection after the event loop has closed it.

    Holds a duplicate of the socket's descriptor, because a TLS transport closes its own before the
    protocol learns of it. The connection ends for the provider once both are closed, so ``close``
    must be called as soon as the transport closes.
    """

    __slots__ = ("_fd", "_tls")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        """Raises OSError without a free descriptor."""
        self._tls: _TlsObject | None = transport.get_extra_info("ssl_object")
        self._fd = os.dup(transport.get_extra_info("socket").fileno())

    def read(self) -> Iterator[bytes]:
        """Yield all bytes that arrived before the reset, decrypted. Never blocks.

        They are at most what the kernel buffers for one socket.
        """
        received = self._received()
        return received if self._tls is None else _decrypted(self._tls, received)

    def close(self) -> None:
        os.close(self._fd)

    def _received(self) -> Iterator[bytes]:
        while True:
            try:
                data = os.read(self._fd, _READ)
            except OSError:
                # Nothing is left, or only the reset itself.
                return
            if not data:
                return
            yield data


def leftover_of(transport: asyncio.BaseTransport) -> Leftover | None:
    """None without a free descriptor: a response before a reset may then be lost, nothing else."""
    try:
        return Leftover(transport)
    except OSError:
        return None


def _decrypted(tls: _TlsObject, received: Iterator[bytes]) -> Iterator[bytes]:
    for data in (b"", *received):
        tls.incoming.write(data)
        while True:
            try:
                plain = tls.read(_READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                # The closing alert, or a record that the reset has cut.
                return
            if not plain:
                return
            yield plain


def has_close_notify(tls: ssl.SSLObject) -> bool:
    """Whether TLS was ended by its closing alert.

    Without the alert anyone on the path may have cut the stream off, and a body that ends with the
    connection is incomplete (RFC 9112 section 9.8).
    """
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
