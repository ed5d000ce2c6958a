"""Detect received bytes that the event loop has not read yet."""

from __future__ import annotations

import asyncio
import select


def unread_poll(transport: asyncio.BaseTransport) -> select.poll:
    """A poll object whose ``poll(0)`` is truthy if ``has_unread``; kept for frequent checks."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), select.POLLIN)
    return poll


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes, or the end, have arrived on the socket of ``transport``. Never blocks."""
    return bool(unread_poll(transport).poll(0))
