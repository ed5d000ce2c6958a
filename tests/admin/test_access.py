"""Access to the admin listener."""

from __future__ import annotations

import pytest

from proxy.admin.access import AdminGuard
from proxy.errors import Refusal
from proxy.http.address import ListenAddress

TOKEN = "dummy-admin-token"
GUARD = AdminGuard(ListenAddress("127.0.0.1", 8081, None), TOKEN)
RIGHT = {"host": ["127.0.0.1:8081"], "authorization": [f"Bearer {TOKEN}"]}


def refused(headers: dict[str, list[str]], guard: AdminGuard = GUARD, *, data: bool = True) -> int:
    """The status of the refusal, 0 if there is none."""
    try:
        guard.admit(headers, data=data)
    except Refusal as refusal:
        return refusal.status
    return 0


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "LocalHost:8081", "[::1]:8081"])
def test_its_own_names(host: str) -> None:
    """Every name of loopback with the listener's port."""
    assert refused({**RIGHT, "host": [host]}) == 0


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.test:8081"],
        ["127.0.0.1"],
        ["127.0.0.1:8080"],
        ["127.0.0.1:8081."],
        ["localhost.:8081"],
        ["0.0.0.0:8081"],
        ["user@localhost:8081"],
        ["localhost:8081:8081"],
        ["hume.localhost:8081"],
        [""],
        [],
        ["127.0.0.1:8081", "127.0.0.1:8081"],
    ],
)
def test_other_names(hosts: list[str]) -> None:
    """A rebound name, another port or no single Host gets nothing, not even the page."""
    for data in (True, False):
        assert refused({**RIGHT, "host": hosts}, data=data) == 421


def test_the_default_port_may_be_left_out() -> None:
    """Browsers write no :80."""
    guard = AdminGuard(ListenAddress("127.0.0.1", 80, None), TOKEN)
    for host in ("127.0.0.1", "127.0.0.1:80"):
        assert refused({**RIGHT, "host": [host]}, guard) == 0


def test_the_literal_that_was_written() -> None:
    """Another loopback address than 127.0.0.1 is a name of its own listener."""
    guard = AdminGuard(ListenAddress("127.0.0.5", 8081, None), TOKEN)
    assert refused({**RIGHT, "host": ["127.0.0.5:8081"]}, guard) == 0
    guard = AdminGuard(ListenAddress("::1", 8081, None), TOKEN)
    assert refused({**RIGHT, "host": ["[::1]:8081"]}, guard) == 0


@pytest.mark.parametrize(
    "marks",
    [
        {"origin": ["https://evil.test"]},
        {"origin": ["null"]},
        {"origin": ["http://127.0.0.1:8080"]},
        {"origin": ["http://localhost:8081"]},
        {"origin": ["https://127.0.0.1:8081"]},
        {"origin": ["http://127.0.0.1:8081", "https://evil.test"]},
        {"sec-fetch-site": ["cross-site"]},
        {"sec-fetch-site": ["same-site"]},
        {"sec-fetch-site": ["none", "cross-site"]},
        {"sec-fetch-site": [""]},
        {"origin": ["http://127.0.0.1:8081"], "sec-fetch-site": ["cross-site"]},
    ],
)
def test_foreign_pages(marks: dict[str, list[str]]) -> None:
    """A page of any other origin gets nothing, though it knew the token; nor does a frame of it."""
    for data in (True, False):
        assert refused({**RIGHT, **marks}, data=data) == 403


NAVIGATION = {"sec-fetch-site": ["cross-site"], "sec-fetch-mode": ["navigate"]}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_on_another_page(site: str) -> None:
    """It may open the page, which holds nothing, in a tab; it gets no data, not with the token."""
    marks = {**NAVIGATION, "sec-fetch-dest": ["document"], "sec-fetch-site": [site]}
    assert refused({**RIGHT, **marks}, data=False) == 0
    assert refused({**RIGHT, **marks}, data=True) == 403
    assert refused({**RIGHT, **marks, "host": ["evil.test:8081"]}, data=False) == 421


@pytest.mark.parametrize(
    "marks",
    [
        *({"sec-fetch-dest": [one]} for one in ("iframe", "frame", "object", "embed", "empty")),
        {},
        {"sec-fetch-dest": ["document"], "origin": ["https://evil.test"]},
        {"sec-fetch-dest": ["document"], "origin": ["null"]},
        {"sec-fetch-dest": ["document"], "sec-fetch-mode": ["no-cors"]},
        {"sec-fetch-dest": ["document"], "sec-fetch-mode": ["navigate", "cors"]},
        {"sec-fetch-dest": ["document", "iframe"]},
    ],
)
def test_other_requests_of_another_page(marks: dict[str, list[str]]) -> None:
    """Frames, scripts and forms that post get nothing, not even the page."""
    assert refused({**RIGHT, **NAVIGATION, **marks}, data=False) == 403


@pytest.mark.parametrize(
    "marks",
    [
        {},
        {"origin": ["http://127.0.0.1:8081"]},
        {"sec-fetch-site": ["none"]},
        {"origin": ["http://127.0.0.1:8081"], "sec-fetch-site": ["same-origin"]},
    ],
)
def test_its_own_page(marks: dict[str, list[str]]) -> None:
    """Its page, a typed address and programs pass."""
    assert refused({**RIGHT, **marks}) == 0


@pytest.mark.parametrize(
    "brought",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Basic {TOKEN}"],
        [TOKEN],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        ["Bearer é\udcff"],
    ],
)
def test_without_the_token(brought: list[str]) -> None:
    """Missing, wrong, cut, doubled or no text: refused alike. The page's files hold nothing."""
    headers = {**RIGHT, "authorization": brought}
    assert refused(headers) == 401
    assert refused(headers, data=False) == 0


def test_the_scheme_in_any_case() -> None:
    """RFC 9110 section 11.1."""
    assert refused({**RIGHT, "authorization": [f"bearer {TOKEN}"]}) == 0


def test_a_unix_socket() -> None:
    """Its mode restricts access: no token, no name. Requests of pages are refused all the same."""
    guard = AdminGuard(ListenAddress(None, 0, "/run/admin"), None)
    assert refused({"host": ["localhost"]}, guard) == 0
    assert refused({}, guard) == 0
    assert refused({"host": ["localhost"], "origin": ["https://evil.test"]}, guard) == 403
