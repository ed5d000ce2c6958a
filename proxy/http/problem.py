"""Responses that keyrelay generates itself, as bytes.

Problems are RFC 9457 ``application/problem+json`` with a ``Proxy-Status`` field (RFC 9209), so that
a program can distinguish them from the provider's responses and the user gets the correction.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from proxy.errors import Refusal, UpstreamFailure

NAME = "keyrelay"

PROBLEM = "application/problem+json"
"""Media type of a problem document, for ``Content-Type``."""

# A generated response is never a page and must not be cached.
_ALWAYS = (
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Content-Security-Policy: sandbox; default-src 'none'\r\n"
)

_EXPOSED = b"Access-Control-Expose-Headers: *\r\n"


def cors_fields(origin: str) -> bytes:
    """Field lines that let a page of an allowed origin read the response (Fetch standard, CORS)."""
    return (
        b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin.encode("ascii") + _EXPOSED
    )


# Added to providers' responses to a page: all of them share one browser origin, this machine's.
_FOR_PAGES = (
    b"X-Content-Type-Options: nosniff\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\n"
    b"Content-Security-Policy: sandbox; default-src 'none'\r\n"
    b"Referrer-Policy: no-referrer\r\n"
)


def page_fields(origin: str, cache_control: str) -> bytes:
    """Field lines added to a provider's response to a page.

    ``cache_control`` is the provider's value. The client sent no ``Authorization``, so a cache
    would treat the response as public (RFC 9111 section 3.5).
    """
    fields = cors_fields(origin) + _FOR_PAGES
    # Whole directives only: private="name" concerns one field (RFC 9111 section 5.2.2.7).
    if {"no-store", "private"} & {one.strip().lower() for one in cache_control.split(",")}:
        return fields
    return fields + b"Cache-Control: no-store\r\n"


def plain(
    status: int,
    body: bytes = b"",
    *,
    fields: bytes = b"",
    content_type: bytes = b"text/plain; charset=utf-8",
    head_only: bool = False,
    close: bool = False,
) -> bytes:
    """A complete response. ``fields`` are further field lines, each terminated by CRLF."""
    head = b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status))
    if status != HTTPStatus.NO_CONTENT:
        head += b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type, len(body))
    if close:
        head += b"Connection: close\r\n"
    return head + fields + _ALWAYS + b"\r\n" + (b"" if head_only else body)


def problem_document(refusal: Refusal) -> dict[str, object]:
    """The members of the problem document (RFC 9457 section 3).

    ``error`` is an extension member (section 3.2) in the form of OpenAI's, Anthropic's and Stripe's
    errors: their SDKs read their message from it, and Stripe's for Node takes a response without
    it for a result, whatever the status.
    """
    document: dict[str, object] = {
        "type": f"urn:keyrelay:problem:{refusal.kind}",
        "title": refusal.kind.replace("-", " ").capitalize(),
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.advice:
        document["advice"] = refusal.advice
    document["error"] = {
        # The name distinguishes it from an error of the provider, where only this is shown.
        "message": f"{NAME}: {refusal.detail} {refusal.advice}".rstrip(),
        "type": _error_type(refusal.status),
        "code": refusal.kind,
    }
    return document


def _error_type(status: int) -> str:
    """The type in ``error``, of those that OpenAI, Anthropic and Stripe have in common."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "api_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def problem(
    refusal: Refusal,
    *,
    origin: str | None = None,
    head_only: bool = False,
    close: bool = False,
    request_id: str = "",
) -> bytes:
    """The response for a refusal. ``origin`` is the allowed origin of the page, None without."""
    fields = b"Proxy-Status: %b; error=%b; details=%b\r\n" % (
        NAME.encode(),
        refusal.proxy_error.encode(),
        _quoted(refusal.kind),
    )
    if request_id:
        fields += b"X-Request-Id: %b\r\n" % request_id.encode("ascii")
    for name, value in refusal.headers:
        fields += f"{name}: {value}\r\n".encode("latin-1")
    if origin is not None:
        fields += cors_fields(origin)
    return plain(
        refusal.status,
        json.dumps(problem_document(refusal), ensure_ascii=False, indent=2).encode() + b"\n",
        fields=fields,
        content_type=PROBLEM.encode(),
        head_only=head_only,
        close=close,
    )


def preflight(origin: str, requested_headers: str | None, *, private_network: bool) -> bytes:
    """The response to a CORS preflight, which is never forwarded.

    Field names are echoed because ``*`` does not cover ``Authorization``, which SDKs send. The
    guard has checked them.
    """
    fields = cors_fields(origin)
    fields += b"Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    if requested_headers:
        fields += b"Access-Control-Allow-Headers: %b\r\n" % requested_headers.encode("ascii")
    if private_network:
        fields += b"Access-Control-Allow-Private-Network: true\r\n"
    return plain(204, fields=fields + b"Access-Control-Max-Age: 600\r\n")


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _quoted(text: str) -> bytes:
    """An sf-string (RFC 8941 section 3.3.3); ``text`` is an ASCII constant of this program."""
    return b'"%b"' % text.encode("ascii")


# Other errors are 502, or 504 after a timeout (RFC 9110 sections 15.6.3 and 15.6.5).
_STATUS = {"proxy_internal_error": 500, "proxy_loop_detected": 508}
_ADVICE = {
    "connection_refused": "Check the route's upstream: nothing listens there.",
    "connection_timeout": "Check the route's upstream and the network between.",
    "destination_ip_prohibited": "Set allow_private: true on the route if this is intended.",
    "destination_unavailable": "Check the route's upstream and the network between.",
    "dns_error": "Check the host name in the route's upstream, and this machine's DNS.",
    "http_response_timeout": "Raise answer_timeout_seconds if the provider may take this long.",
    "proxy_loop_detected": "Write the provider's own address as the route's upstream.",
    "tls_certificate_error": "Verification cannot be switched off; for an authority of your own "
    "write ca_file:, or set SSL_CERT_FILE.",
}


def as_refusal(failure: UpstreamFailure) -> Refusal:
    """The refusal that the client gets for an upstream failure."""
    return Refusal(
        _STATUS.get(failure.proxy_error, 504 if failure.timed_out else 502),
        "provider-timeout" if failure.timed_out else "provider-failed",
        failure.detail,
        failure.advice or _ADVICE.get(failure.proxy_error, ""),
        proxy_error=failure.proxy_error,
        # Its text is keyrelay's own. The response is often lost in the client; the log is not.
        log_detail=failure.detail,
    )


def body_too_large(route: str) -> Refusal:
    """The refusal of a body over the route's ``max_body_bytes``."""
    return Refusal(
        413,
        "body-too-large",
        f"The body is larger than the route {route} lets through.",
        "Send less, or raise max_body_bytes in the routes file.",
        proxy_error="http_request_error",
    )


def unframed_response() -> Refusal:
    """The refusal of a response whose end the client could not tell from a failure."""
    return Refusal(
        502,
        "http10-on-unix-socket",
        "The response has no length. To an HTTP/1.0 client on a unix socket it would look complete "
        "if it broke off.",
        "Use HTTP/1.1, for nginx with proxy_http_version 1.1, or connect over TCP.",
        proxy_error="http_protocol_error",
    )
