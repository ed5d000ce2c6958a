"""Checks on a WebSocket opening handshake: the client's request and the provider's 101 response."""

from __future__ import annotations

import base64
import hashlib
import re

from proxy.errors import Refusal
from proxy.http.request import Request
from proxy.http.response import ResponseHead


def check_handshake(request: Request) -> None:
    """Check a client's opening handshake (RFC 6455 section 4.2.1). Raises Refusal."""
    headers = request.headers
    if request.method != "GET" or request.version != (1, 1) or request.has_body:
        raise Refusal(400, "bad-handshake", "A WebSocket handshake is a GET without a body.")
    if headers.getall("Sec-WebSocket-Version", ()) != ["13"]:
        raise Refusal(
            426,
            "bad-handshake",
            "Keyrelay speaks version 13 of the WebSocket protocol.",
            # RFC 9110 section 7.8: Upgrade requires a Connection that names it.
            headers=(
                ("Sec-WebSocket-Version", "13"),
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
            ),
        )
    keys = headers.getall("Sec-WebSocket-Key", ())
    if len(keys) != 1 or re.fullmatch(r"[A-Za-z0-9+/]{22}==", keys[0]) is None:
        raise Refusal(400, "bad-handshake", "Sec-WebSocket-Key must be 16 bytes in Base64.")


# RFC 6455 section 1.3.
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accepts(request: Request, head: ResponseHead, *, extensible: bool = True) -> bool:
    """Whether a 101 response accepts this handshake (RFC 6455 section 4.1, items 2 to 5).

    ``extensible``: the client's offer of extensions was forwarded, so the response may select some.
    """
    key = request.headers["Sec-WebSocket-Key"].encode("ascii")
    digest = hashlib.sha1(key + ACCEPT_GUID, usedforsecurity=False).digest()
    connection = b",".join(head.values(b"connection")).lower().split(b",")
    return (
        [value.lower() for value in head.values(b"upgrade")] == [b"websocket"]
        and b"upgrade" in [token.strip() for token in connection]
        and head.values(b"sec-websocket-accept") == [base64.b64encode(digest)]
        and (extensible or not head.values(b"sec-websocket-extensions"))
    )
