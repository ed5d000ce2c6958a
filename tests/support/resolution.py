"""Answers of a name resolution, for tests that decide what a name leads to."""

from __future__ import annotations

import socket
from collections.abc import Iterable


def address_info(addresses: Iterable[str], port: int) -> list[object]:
    """What ``loop.getaddrinfo`` returns for a name with these addresses."""
    return [
        (
            socket.AF_INET6 if ":" in address else socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            (address, port, 0, 0) if ":" in address else (address, port),
        )
        for address in addresses
    ]
