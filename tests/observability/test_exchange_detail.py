"""What keyrelay did with an exchange: bounded, without values that could be secret."""

from __future__ import annotations

import time

import pytest

from proxy.observability.exchange_detail import ExchangeDetail, shown_fields


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"Content-Type", True),
        (b"RETRY-AFTER", True),
        (b"x-ratelimit-remaining-tokens", True),
        (b"RateLimit-Policy", True),
        (b"anthropic-ratelimit-requests-reset", True),
        (b"Authorization", False),
        (b"Cookie", False),
        (b"Set-Cookie", False),
        (b"Location", False),
        (b"X-Api-Key", False),
        (b"X-Content-Type", False),
        (b"User-Agent", False),
        (b"My-RateLimit", False),
    ],
)
def test_values_of_fields(name: bytes, *, shown: bool) -> None:
    """Type, length, encoding, time to wait and rate limits; of all others the name alone."""
    [(text, value)] = shown_fields([(name, b" dummy ")])
    assert text == name.decode()
    assert value == ("dummy" if shown else None)


def test_fields_are_bounded() -> None:
    """Many or long fields do not fill the memory."""
    every = shown_fields([(b"content-type" + b"x" * 5000, b"v" * 5000)] * 5000)
    assert len(every) == 100
    assert len(every[0][0]) == 100
    [(_, value)] = shown_fields([(b"content-type", b"v" * 5000)])
    assert value is not None
    assert len(value) == 200


def test_times_add_up() -> None:
    """The phases are the whole exchange; a repeated request waits twice; each part is its own."""
    detail = ExchangeDetail()
    began = time.perf_counter()
    detail.token_waited(0.5)
    detail.dial.start()
    detail.dial.resolved()
    detail.dial.connected()
    detail.dial.secured()
    for _ in range(2):
        detail.sent()
        time.sleep(0.01)
        detail.responded()
    detail.responded()
    passed = time.perf_counter() - began
    phases = detail.timings(total=2.0, first_byte=1.25)
    assert phases["token"] == 500
    assert phases["transfer"] == 750
    assert 20 <= phases["wait"] <= passed * 1000
    assert sum(phases.values()) == pytest.approx(2000)


def test_an_open_exchange_waits_until_now() -> None:
    """Before the response the wait grows, and there is no transfer."""
    detail = ExchangeDetail()
    detail.sent()
    first = detail.timings(total=1.0, first_byte=-1.0)
    time.sleep(0.005)
    later = detail.timings(total=1.0, first_byte=-1.0)
    assert first["wait"] < later["wait"]
    assert later["transfer"] == 0
