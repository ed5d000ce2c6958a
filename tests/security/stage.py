"""The stage of the acceptance list: keyrelay between a raw client, a provider and a token endpoint.

Two routes lead to the same provider: ``/api`` with a key, ``/minted`` with a token of the token
endpoint. Both far sides count connections, and the token in stock has lapsed, so that whatever is
let in dials both. That none of them is dialled is then proof that a request was stopped before.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.relay import accepts  # noqa: F401  the handshake below is checked by it
from tests.clock import ManualClock
from tests.running import RawProvider, Running, answering, exchange, keyrelay, raw_provider

KEY = "dummy-real-key-8f2c"
TOKEN = "dummy-minted-token-51"
CLIENT_SECRET = "dummy-client-secret-93"
PAGE = "http://localhost:5173"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

HOST = b"Host: localhost\r\n"
GET = b"GET /api/x HTTP/1.1\r\n" + HOST
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
# What answers HANDSHAKE (RFC 6455 section 1.3).
ACCEPT = b"Sec-WebSocket-Accept: +w6J1VGZUBgqWCcTHvCGkC1vjhw=\r\n"
