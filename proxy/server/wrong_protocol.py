"""Recognise what is sent to a port by clients that are configured for another protocol."""

from __future__ import annotations

from proxy.errors import Refusal

_TLS_HANDSHAKE = 0x16
_SOCKS = frozenset({4, 5})
_HTTP2 = b"PRI * HTTP/2"
_PROXY_1 = b"PROXY "
_PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n"


def refusal(data: bytes) -> Refusal | None:
    """The refusal of bytes that are no HTTP/1.1, None if they are of no protocol known here.

    ``data`` is what the parser rejected, from the beginning of a message.
    """
    if data[:1] and data[0] == _TLS_HANDSHAKE:
        return _wrong(
            "The client uses TLS; this port is plain HTTP.",
            "Write http:// and ws:// in the client's base URL. TLS to the provider is keyrelay's. "
            "A client that insists on TLS needs a listener with it: listen: https://127.0.0.1:8443.",
        )
    if data.startswith(_HTTP2):
        return _wrong(
            "The client uses HTTP/2; this port is HTTP/1.1.",
            "Switch off HTTP/2 without TLS (h2c, prior knowledge) in the client. gRPC is not "
            "served.",
        )
    if data[:1] and data[0] in _SOCKS:
        return _wrong(
            "The client uses SOCKS; keyrelay is no SOCKS proxy.",
            "Set the client's base URL to keyrelay instead of a proxy.",
        )
    if data.startswith((_PROXY_1, _PROXY_2)):
        return _wrong(
            "The client begins with the PROXY protocol; this port expects HTTP.",
            "Switch off the PROXY protocol in the load balancer before keyrelay.",
        )
    return None


def without_tls() -> Refusal:
    """The refusal of a connection to a TLS listener that does not begin with a handshake."""
    return _wrong(
        "The client uses plain HTTP; this port is TLS.",
        "Write https:// and wss:// in the client's base URL, or the address of a listener without "
        "TLS.",
    )


def _wrong(detail: str, advice: str) -> Refusal:
    return Refusal(400, "wrong-protocol", detail, advice, notice=detail)
