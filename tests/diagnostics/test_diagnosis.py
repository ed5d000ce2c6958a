"""What doctor makes of certificates, clocks and answers, at the edges of each judgement."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from proxy.diagnostics.diagnosis import of_answer, of_certificate, of_clock, of_plain_http

END = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
DAY = 86_400.0
CERTIFICATE = {
    "notAfter": "Jan 15 08:00:00 2027 GMT",
    "subjectAltName": (("DNS", "a.example"), ("DNS", "b.example"), *[("DNS", "more.example")] * 9),
}


@pytest.mark.parametrize(
    ("days", "mark", "end"),
    [(14.0, "ok", "2027-01-15"), (13.9, "warn", ": 13 days are left"), (0.5, "warn", ": 0 days")],
)
def test_a_certificate_should_not_be_in_its_last_two_weeks(
    days: float, mark: str, end: str
) -> None:
    """Its names, the first of them, and its last day are shown in any case."""
    found = of_certificate("TLSv1.3", CERTIFICATE, END - days * DAY)
    assert found.mark == mark
    assert end in found.finding
    names = "a.example, b.example, more.example"
    assert found.finding.startswith(f"TLSv1.3, certificate of {names}, valid until 2027-01-15")
    assert bool(found.advice) == (mark == "warn")


def test_plain_http_is_fine_on_this_machine_only() -> None:
    """Elsewhere the credential can be read on the way."""
    assert of_plain_http(loopback=True).mark == "skip"
    assert of_plain_http(loopback=False).mark == "warn"


@pytest.mark.parametrize(
    ("ahead", "mark", "words"),
    [
        (60, "ok", "within 60 s"),
        (-60, "ok", "within 60 s"),
        (61, "warn", "61 s behind the provider's"),
        (-61, "warn", "61 s ahead of the provider's"),
    ],
)
def test_a_minute_apart_is_too_far(ahead: int, mark: str, words: str) -> None:
    """In either direction; what is said is about this machine's clock."""
    found = of_clock([formatdate(END + ahead, usegmt=True).encode()], END)
    assert (found.mark, found.finding[: len(words)]) == (mark, words)


@pytest.mark.parametrize("dates", [[], [b""], [b"yesterday"], [b"\xff"], [b"1, 99 Foo 99999"]])
def test_a_date_that_cannot_be_read_is_none(dates: list[bytes]) -> None:
    """Providers say what they like."""
    assert of_clock(dates, END).mark == "skip"


@pytest.mark.parametrize(
    ("status", "mark"),
    [(200, "ok"), (299, "ok"), (300, "warn"), (400, "warn"), (401, "fail"), (403, "fail")],
)
def test_only_a_refusal_tells_of_the_credential(status: int, mark: str) -> None:
    """With the page of the provider, if there is one."""
    found = of_answer("GET /me", status, "https://docs.example")
    assert (found.mark, f"GET /me was answered {status}" in found.finding) == (mark, True)
    assert found.advice.endswith("See https://docs.example") == (mark == "fail")
    assert "See" not in of_answer("GET /me", status, None).advice
