from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.errors import ConfigValueError
from proxy.http.address import (
    DEMO_UPSTREAM,
    ListenAddress,
    Origin,
    check_guarded,
    check_served_host,
    parse_browser_origin,
    parse_listen,
    parse_upstream,
)


def finding(parse: Callable[[str], object], text: str) -> str:
    """The message of the error by which ``text`` is refused: what is wrong, and what to do."""
    with pytest.raises(ConfigValueError, match=r".: .") as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080, None)),
        ("127.0.0.2:0", ListenAddress("127.0.0.2", 0, None)),
        ("[::1]:8080", ListenAddress("::1", 8080, None)),
        ("[0:0:0:0:0:0:0:1]:1", ListenAddress("::1", 1, None)),
        ("unix:/run/keyrelay/socket", ListenAddress(None, 0, "/run/keyrelay/socket")),
    ],
)
def test_loopback_and_unix_sockets_may_be_listened_on(text: str, address: ListenAddress) -> None:
    """Each spelling of a loopback address gives the one address that it means."""
    assert parse_listen(text) == address
    assert parse_listen(str(address)) == address


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "", "*", "0", "0x0", "00000", "[::]", "[::ffff:0.0.0.0]", "[0:0::0]"],
)
def test_no_spelling_of_the_wildcard_is_listened_on_without_a_token(host: str) -> None:
    """An address that means every network is reported as such, with the remedy for a container."""
    with pytest.raises(ValueError, match="every network") as caught:
        check_guarded(f"{host}:8080")
    assert "network_mode" in str(caught.value)
    assert "inbound_token" in str(caught.value)


@pytest.mark.parametrize("host", ["", "*", "0", "0x0", "00000", "[::ffff:0.0.0.0]", "[0:0::0]"])
def test_odd_spellings_of_the_wildcard_are_never_listened_on(host: str) -> None:
    """With a token too every network is written in one of two unambiguous ways."""
    with pytest.raises(ValueError, match="every network"):
        parse_listen(f"{host}:8080")


@pytest.mark.parametrize(
    ("text", "exposed", "wildcard"),
    [
        ("0.0.0.0:8080", True, True),
        ("[::]:8080", True, True),
        ("192.168.1.5:8080", True, False),
        ("[2001:db8::1]:8080", True, False),
        ("127.0.0.1:8080", False, False),
        ("127.9.9.9:8080", False, False),
        ("[::1]:8080", False, False),
        ("unix:/run/x", False, False),
    ],
)
def test_paths_that_need_a_token(text: str, exposed: bool, wildcard: bool) -> None:
    """What others than this machine can reach is refused without a token, and nothing else is."""
    address = parse_listen(text)
    assert (address.exposed, address.wildcard) == (exposed, wildcard)
    assert str(address) == text
    if exposed:
        with pytest.raises(ValueError, match="inbound_token"):
            check_guarded(text)
    else:
        check_guarded(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:81", False),
        ("0.0.0.0:80", "[::1]:80", False),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "0.0.0.0:0", False),
    ],
)
def test_every_address_overlaps_with_each(one: str, other: str, overlap: bool) -> None:
    """A listener on every address takes the place of each one of its family, in either order."""
    assert parse_listen(one).overlaps(parse_listen(other)) is overlap
    assert parse_listen(other).overlaps(parse_listen(one)) is overlap


@pytest.mark.parametrize("name", ["keyrelay", "192.168.1.5", "[2001:db8::1]", "a.b-c.example"])
def test_names_of_hosts_may_be_served(name: str) -> None:
    """Names and addresses in their own spelling."""
    check_served_host(name)


@pytest.mark.parametrize("name", ["0.0.0.0", "[::]", "0", "127.1", "0x7f.1", "a.0x1"])
def test_what_names_no_host_is_never_served(name: str) -> None:
    """Browsers take 0.0.0.0 for this machine, and odd numbers for addresses."""
    with pytest.raises(ConfigValueError, match=r".: ."):
        check_served_host(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[::ffff:127.0.0.1]:8080", "write 127.0.0.1:8080"),
        ("localhost:8080", "write 127.0.0.1:8080"),
        ("LOCALHOST.:8080", "write 127.0.0.1:8080"),
        ("example.com:8080", "not a name"),
        ("0177.0.0.1:8080", "not a name"),
        ("[127.0.0.1]:8080", "not a name"),
        ("[::1%lo]:8080", "not a name"),
        ("::1:8080", "brackets"),
        ("8080", "port is missing"),
        ("127.0.0.1", "port is missing"),
        ("[::1]", "port is missing"),
        ("127.0.0.1:", "port is not a number"),
        ("127.0.0.1:65536", "port is not a number"),
        ("127.0.0.1:-1", "port is not a number"),
        ("127.0.0.1:٣", "port is not a number"),
        ("unix:relative", "absolute path"),
        ("unix:", "absolute path"),
        ("unix:/a\nb", "absolute path"),
        ("unix:/" + "x" * 120, "at most 107 bytes"),
    ],
)
def test_other_listen_addresses_are_refused_with_advice(text: str, expected: str) -> None:
    """What is no address is refused in one line, and a second says what to write."""
    assert expected in finding(parse_listen, text)


@pytest.mark.parametrize(
    ("text", "origin", "base", "authority"),
    [
        ("https://api.x.example", Origin("https", "api.x.example", 443), "", "api.x.example"),
        ("https://API.x.Example/", Origin("https", "api.x.example", 443), "", "api.x.example"),
        ("HTTPS://a.example:443/v1/", Origin("https", "a.example", 443), "/v1", "a.example"),
        (
            "http://localhost:3000/a%20b",
            Origin("http", "localhost", 3000),
            "/a%20b",
            "localhost:3000",
        ),
        ("http://[::1]:80", Origin("http", "::1", 80), "", "[::1]"),
        ("http://[0:0::1]:81/x", Origin("http", "::1", 81), "/x", "[::1]:81"),
        (
            "https://bücher.example",
            Origin("https", "xn--bcher-kva.example", 443),
            "",
            "xn--bcher-kva.example",
        ),
        ("https://my_service:8443", Origin("https", "my_service", 8443), "", "my_service:8443"),
        ("http://127.0.0.1:9", Origin("http", "127.0.0.1", 9), "", "127.0.0.1:9"),
    ],
)
def test_an_upstream_is_an_origin_and_a_base_path(
    text: str, origin: Origin, base: str, authority: str
) -> None:
    """The parts of an upstream are canonical, and Host leaves the default port out."""
    assert parse_upstream(text) == (origin, base)
    assert origin.authority == authority
    assert str(origin) == f"{origin.scheme}://{authority}"


def test_the_demo_upstream_is_marked() -> None:
    """The built-in provider has an origin that is known not to be a real host."""
    origin, base = parse_upstream(DEMO_UPSTREAM)
    assert (origin.builtin, origin.loopback, base) == (True, True, "")
    assert not parse_upstream("http://demo.localhost")[0].builtin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.example.com", "not a URL"),
        ("wss://api.example.com", "https:// instead"),
        ("ftp://api.example.com", "neither https nor http"),
        ("https://dummy-user:dummy-pass@api.example.com", "user or a password"),
        ("https://api.example.com?x=1", "no query"),
        ("https://api.example.com/#x", "no query"),
        ("https://api.example.com//x", "empty segment"),
        ("https://api.example.com/a b", "empty segment"),
        ("https://api.example.com/%zz", "empty segment"),
        ("https://api.example.com/a/../b", "dot segment"),
        ("https://api.example.com/a/%2E%2e/b", "dot segment"),
        ("https://", "host is missing"),
        ("https://:443", "host is missing"),
        ("https://a..b", "not a valid name"),
        ("https://a.example.", "not a valid name"),
        ("https://-a.example", "not a valid name"),
        ("https://a\n.example", "not a valid name"),
        ("https://a%2eexample", "not a valid name"),
        ("https://" + "a." * 150 + "b", "too long"),
        ("https://\u2488.example", "international name"),
        ("https://-ü.example", "international name"),
        ("https://0x7f.1", "unusual spelling"),
        ("https://2130706433", "unusual spelling"),
        ("https://127.1", "unusual spelling"),
        ("https://[127.0.0.1]", "no IPv6 address"),
        ("https://[fe80::1%25eth0]", "no IPv6 address"),
        ("https://a.example:0", "1 to 65535"),
        ("https://a.example:70000", "1 to 65535"),
        ("https://a.example:http", "host and port"),
    ],
)
def test_other_upstreams_are_refused_without_repeating_them(text: str, expected: str) -> None:
    """A URL that could lead elsewhere is refused, and what it holds is not in the message."""
    assert expected in finding(parse_upstream, text)
    assert "dummy-pass" not in finding(parse_upstream, text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("[::1]", True),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("192.168.0.1", False),
        ("x.localhost", False),
    ],
)
def test_only_what_is_surely_this_machine_is_loopback(host: str, loopback: bool) -> None:
    """Plain http with a credential is for loopback literals and localhost alone."""
    assert parse_upstream(f"http://{host}")[0].loopback is loopback


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://localhost:5173", ("http", "localhost", 5173)),
        ("https://app.example", ("https", "app.example", None)),
        ("http://[::1]:3000", ("http", "::1", 3000)),
        ("tauri://localhost", ("tauri", "localhost", None)),
    ],
)
def test_an_origin_of_a_page_is_a_triple(text: str, parts: tuple[str, str, int | None]) -> None:
    """Scheme, host and port are compared apart, so that no prefix can pass for another."""
    assert parse_browser_origin(text) == parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", "not chosen"),
        ("*", "not chosen"),
        ("localhost:5173", "not an origin"),
        ("http://*.example", "not a valid name"),
        ("http://localhost:5173/", "without path"),
        ("http://localhost:5173?x", "without path"),
        ("http://me@localhost", "without path"),
        ("http://LOCALHOST:5173", "lower case"),
        ("http://localhost:80", "without :80"),
        ("file://", "host is missing"),
    ],
)
def test_other_origins_of_pages_are_refused(text: str, expected: str) -> None:
    """An origin is exact; what would never match, or match too much, is refused."""
    assert expected in finding(parse_browser_origin, text)


def test_an_origin_is_written_as_browsers_send_it() -> None:
    """An international host would never match: browsers send it encoded."""
    with pytest.raises(ValueError, match="international names encoded"):
        parse_browser_origin("http://bücher.test")
