"""The answers that keyrelay gives itself: well-formed, typed, and never a page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.errors import Refusal
from proxy.http.problem import cors_fields, page_fields, plain, preflight, problem

ORIGIN = "http://localhost:5173"
SAFE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
}


def parsed(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, fields (each at most once) and body of a whole answer."""
    head, body = answer.split(b"\r\n\r\n", 1)
    status, *lines = head.decode("ascii").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name.lower() not in fields, name
        fields[name.lower()] = value
    return status, fields, body


def document(body: bytes) -> Any:
    return json.loads(body)


def test_a_problem_has_the_cause_and_the_correction() -> None:
    """RFC 9457 for programs and people, RFC 9209 to tell it from the provider's answers."""
    refusal = Refusal(
        403, "path-not-allowed", "Denied.", "See deny.", headers=(("Vary", "Origin"),)
    )
    status, fields, body = parsed(problem(refusal))
    assert status == "HTTP/1.1 403 Forbidden"
    assert fields["content-type"] == "application/problem+json"
    assert int(fields["content-length"]) == len(body)
    assert fields["proxy-status"] == (
        'keyrelay; error=http_request_denied; details="path-not-allowed"'
    )
    assert fields["vary"] == "Origin"
    assert fields.items() >= SAFE.items()
    assert document(body) == {
        "type": "urn:keyrelay:problem:path-not-allowed",
        "title": "Path not allowed",
        "status": 403,
        "detail": "Denied.",
        "advice": "See deny.",
        "error": {
            "message": "keyrelay: Denied. See deny.",
            "type": "invalid_request_error",
            "code": "path-not-allowed",
        },
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
    ],
)
def test_sdks_find_the_message_of_a_problem(status: int, kind: str) -> None:
    """The member that SDKs read has the message, a type that they have and the problem's name."""
    error = document(parsed(problem(Refusal(status, "some-kind", "Because.")))[2])["error"]
    assert error == {"message": "keyrelay: Because.", "type": kind, "code": "some-kind"}


def test_a_problem_never_repeats_what_the_log_may_say() -> None:
    """T38: the offending value is not in the answer."""
    answer = problem(Refusal(421, "host-not-allowed", "No.", log_detail="'<evil>'"))
    assert b"evil" not in answer
    assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert "advice" not in document(parsed(answer)[2])


def test_a_problem_for_head_has_the_length_and_no_body() -> None:
    """RFC 9110 section 9.3.2: the same fields as for GET, and nothing behind them."""
    refusal = Refusal(404, "no-route", "None.")
    status, fields, body = parsed(problem(refusal, head_only=True))
    assert (status, fields) == parsed(problem(refusal))[:2]
    assert body == b""


def test_an_allowed_page_can_read_a_problem() -> None:
    """A page sees why, by its exact origin; any other program gets no CORS field at all."""
    refusal = Refusal(502, "provider-failed", "Broken.", proxy_error="connection_refused")
    fields = parsed(problem(refusal, origin=ORIGIN))[1]
    assert fields["access-control-allow-origin"] == ORIGIN
    assert fields["vary"] == "Origin"
    assert "error=connection_refused" in fields["proxy-status"]
    assert b"access-control" not in problem(refusal).lower()


@pytest.mark.parametrize("close", [True, False])
def test_the_last_response_of_a_connection_is_marked(close: bool) -> None:
    """RFC 9112 section 9.6: a server that closes says so."""
    fields = parsed(problem(Refusal(400, "bad-host", "No."), close=close))[1]
    assert ("connection" in fields) is close
    assert ("connection" in parsed(plain(200, b"ok\n", close=close))[1]) is close


def test_a_plain_response_is_framed_and_not_cached() -> None:
    """Status pages have a type, a length, and no place in a cache."""
    status, fields, body = parsed(plain(200, b"ok\n"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"ok\n")
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["content-length"] == "3"
    assert fields.items() >= SAFE.items()
    assert parsed(plain(200, b"ok\n", head_only=True)) == (status, fields, b"")


def test_no_content_has_neither_length_nor_type() -> None:
    """RFC 9110 section 8.6: a 204 has no Content-Length."""
    status, fields, body = parsed(plain(204))
    assert (status, body) == ("HTTP/1.1 204 No Content", b"")
    assert not {"content-length", "content-type"} & fields.keys()


def test_a_status_without_a_phrase_is_still_a_response() -> None:
    """RFC 9112 section 4: the blank after the code stays where there is no phrase."""
    assert plain(299).startswith(b"HTTP/1.1 299 \r\n")


def test_a_preflight_response_is_for_exactly_this_page() -> None:
    """T10: exact origin, Vary, the names that were asked for, no credentials, no wildcard."""
    status, fields, body = parsed(
        preflight(ORIGIN, "authorization, content-type", private_network=False)
    )
    assert (status, body) == ("HTTP/1.1 204 No Content", b"")
    assert fields["access-control-allow-origin"] == ORIGIN
    assert fields["vary"] == "Origin"
    assert fields["access-control-allow-headers"] == "authorization, content-type"
    assert fields["access-control-allow-methods"].split(", ") == [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
    ]
    assert int(fields["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in fields
    assert "access-control-allow-private-network" not in fields


def test_a_preflight_grants_only_what_is_asked_for() -> None:
    """No header names without a question for them; the private network if it is asked for."""
    fields = parsed(preflight(ORIGIN, None, private_network=True))[1]
    assert "access-control-allow-headers" not in fields
    assert fields["access-control-allow-private-network"] == "true"


def test_cors_is_exact_and_without_credentials() -> None:
    """T10, T11: one origin, never ``*``, and cookies play no part."""
    lines = cors_fields(ORIGIN).split(b"\r\n")
    assert b"Access-Control-Allow-Origin: " + ORIGIN.encode() in lines
    assert b"Vary: Origin" in lines
    assert not any(line.startswith(b"Access-Control-Allow-Credentials") for line in lines)


@pytest.mark.parametrize(
    ("said", "added"),
    [
        ("", True),
        ("public, max-age=60", True),
        ("max-age=60", True),
        ("no-cache", True),
        # About one field only: RFC 9111 section 5.2.2.7.
        ('private="x-user", max-age=60', True),
        ("x-private-thing", True),
        ("private", False),
        ("No-Store", False),
        ("max-age=60 ,Private", False),
    ],
)
def test_a_page_s_response_is_not_cached(said: str, added: bool) -> None:
    """T15: no-store goes onto an answer unless the provider says private or no-store itself."""
    assert (b"Cache-Control: no-store\r\n" in page_fields(ORIGIN, said)) is added


def test_a_page_s_response_can_do_nothing_on_localhost() -> None:
    """T12: HTML of a provider runs nothing, is framed by no page and embedded nowhere."""
    lines = page_fields(ORIGIN, "").split(b"\r\n")
    assert b"Content-Security-Policy: sandbox; default-src 'none'" in lines
    assert b"X-Content-Type-Options: nosniff" in lines
    assert b"Cross-Origin-Resource-Policy: same-origin" in lines
    assert b"Referrer-Policy: no-referrer" in lines
    assert lines.count(b"Access-Control-Allow-Origin: " + ORIGIN.encode()) == 1
    assert page_fields(ORIGIN, "").endswith(b"\r\n")
