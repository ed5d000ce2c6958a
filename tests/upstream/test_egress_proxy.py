"""The egress proxy: what it is sent, what its refusals become, and what it never gets."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable
from typing import Any

import pytest

from proxy.errors import ConfigValueError, UpstreamFailure
from proxy.http.address import Origin
from proxy.upstream.dialer import Dialer
from proxy.upstream.egress_proxy import EgressProxy, NoProxy, parse_proxy_url
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.connect_proxy import REFUSED, connect_proxy
from tests.support.keyrelay import both_loops, raw_provider, until

API = Origin("https", "api.example", 8443)
PASSWORD = "CANARY-dummy-password"


class Greeted(asyncio.Protocol):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport
        self.received = b""
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


def dialer(proxy_url: str, origin: Origin = API, no_proxy: str = "", **more: Any) -> Dialer:
    return Dialer(
        origin,
        connect_seconds=more.pop("seconds", 10),
        tls=tls_context(),
        egress_proxy=EgressProxy(proxy_url, no_proxy),
        **more,
    )


async def failure(dialling: Dialer) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await dialling.dial(Greeted)
    assert caught.value.__cause__ is None
    assert PASSWORD not in f"{caught.value!r} {vars(caught.value)}"
    return caught.value


@both_loops
async def test_tls_with_the_provider_goes_through(trusted: Authority) -> None:
    """The proxy gets one CONNECT and bytes of TLS; the certificate is the provider's, verified."""
    async with (
        raw_provider(greet, trusted.server("api.example")) as provider,
        connect_proxy({"api.example": provider.port}) as proxy,
    ):
        connection = await dialer(proxy.url).dial(Greeted)
        await until(lambda: connection.received == b"hello")
        tls = connection.transport.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.transport.close()
        await until(lambda: connection.ended)
    assert proxy.heads == [b"CONNECT api.example:8443 HTTP/1.1\r\nHost: api.example:8443\r\n\r\n"]


@both_loops
async def test_the_certificate_of_another(trusted: Authority) -> None:
    """A proxy that leads elsewhere is found out by the certificate."""
    async with (
        raw_provider(greet, trusted.server("other.example")) as provider,
        connect_proxy({"api.example": provider.port}) as proxy,
    ):
        assert (await failure(dialer(proxy.url))).proxy_error == "tls_certificate_error"


async def test_user_name_and_password(trusted: Authority) -> None:
    """They are sent to the proxy in Basic authorization, and what a URL encodes is decoded."""
    wanted = b"Basic " + base64.b64encode(b"d\xc3\xbcmmy:a:b@c")
    async with (
        raw_provider(greet, trusted.server("api.example")) as provider,
        connect_proxy({"api.example": provider.port}, credentials=wanted) as proxy,
    ):
        url = proxy.url.replace("://", "://d%C3%BCmmy:a:b%40c@")
        connection = await dialer(url).dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()
    (head,) = proxy.heads
    assert head.count(b"\r\nProxy-Authorization: " + wanted + b"\r\n") == 1


@pytest.mark.parametrize("user", [f"dummy:{PASSWORD}", "dummy", f":{PASSWORD}"])
def test_nothing_shows_the_password(user: str) -> None:
    """Neither text of a proxy has its credentials."""
    proxy = EgressProxy(f"http://{user}@proxy.example:3128")
    assert str(proxy) == "http://proxy.example:3128"
    assert repr(proxy) == "<egress proxy http://proxy.example:3128>"
    assert proxy.authorization.startswith(b"Basic ")
    assert b":" in base64.b64decode(proxy.authorization[6:])


@both_loops
@pytest.mark.parametrize(
    ("response", "error", "words"),
    [
        (REFUSED % 407, "proxy_configuration_error", "refused the user name and password (407)"),
        (REFUSED % 401, "proxy_configuration_error", "refused the user name and password (401)"),
        (REFUSED % 403, "proxy_configuration_error", "permit connections to api.example:8443"),
        (REFUSED % 405, "proxy_configuration_error", "(405)"),
        (REFUSED % 502, "destination_unavailable", "could not connect to api.example:8443 (502)"),
        (REFUSED % 503, "destination_unavailable", "(503)"),
        (REFUSED % 504, "destination_unavailable", "(504)"),
        (REFUSED % 302, "destination_unavailable", "(302)"),
        (b"SSH-2.0-dummy\r\n\r\n", "http_protocol_error", "did not respond as an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n", "http_protocol_error", "did not respond as an HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "http_protocol_error", "did not respond as an HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 20_000, "http_protocol_error", "did not respond"),
    ],
)
async def test_responses_other_than_a_tunnel(response: bytes, error: str, words: str) -> None:
    """Each is a failure that names proxy and cause, with advice, and without credentials."""
    async with connect_proxy({}, response=response) as proxy:
        url = proxy.url.replace("://", f"://dummy:{PASSWORD}@")
        found = await failure(dialer(url))
    assert found.proxy_error == error
    assert words in found.detail
    assert f"127.0.0.1:{proxy.port}" in found.detail
    assert found.advice
    assert found.timed_out == (b" 504 " in response)


async def test_a_proxy_that_wants_a_password() -> None:
    """Without credentials the failure says that the proxy wants some, not that it refused them."""
    async with connect_proxy({}, response=REFUSED % 407) as proxy:
        assert "wants a user name and password (407)" in (await failure(dialer(proxy.url))).detail


@pytest.mark.parametrize("credentials", ["", f"dummy:{PASSWORD}@"])
@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (b"Proxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n", "NTLM, Negotiate"),
        (b"proxy-authenticate:negotiate, Kerberos\r\n", "negotiate, Kerberos"),
        (b'Proxy-Authenticate: Digest realm="basic", nonce="a"\r\n', "Digest"),
    ],
)
async def test_a_proxy_that_does_not_take_a_password(
    credentials: str, fields: bytes, names: str
) -> None:
    """Without Basic among its challenges: a user name and password would not help."""
    response = b"HTTP/1.1 407 No\r\n" + fields + b"Content-Length: 0\r\n\r\n"
    async with connect_proxy({}, response=response) as proxy:
        found = await failure(dialer(proxy.url.replace("://", f"://{credentials}")))
    assert f"wants authentication by {names} (407), and keyrelay has Basic only" in found.detail
    assert "signs in to this one" in found.advice


@pytest.mark.parametrize(
    "fields",
    [
        b'Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: basic realm="x"\r\n',
        b'Proxy-Authenticate: NTLM, Basic realm="x"\r\n',
        b"Proxy-Authenticate:\r\n",
        b"Proxy-Authenticate: <script>\r\n",
    ],
)
async def test_a_proxy_that_takes_basic_too(fields: bytes) -> None:
    """Basic among the challenges, or none that can be read."""
    response = b"HTTP/1.1 407 No\r\n" + fields + b"Content-Length: 0\r\n\r\n"
    async with connect_proxy({}, response=response) as proxy:
        assert "wants a user name and password (407)" in (await failure(dialer(proxy.url))).detail


@both_loops
async def test_a_proxy_that_cannot_be_reached() -> None:
    """No listener and no such name are failures of the proxy, not of the provider."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await failure(dialer(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert found.proxy_error == "connection_refused"
    assert "egress proxy" in found.detail
    found = await failure(dialer("http://proxy.invalid:3128"))
    assert (found.proxy_error, "egress proxy" in found.detail) == ("dns_error", True)


@both_loops
async def test_a_proxy_that_stays_silent() -> None:
    """The time to connect covers the proxy's response, and the connection is closed."""
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with raw_provider(silent) as proxy:
        found = await failure(dialer(proxy.url, seconds=0.2))
        assert (found.proxy_error, found.timed_out) == ("connection_timeout", True)
        assert f"through the proxy http://127.0.0.1:{proxy.port}" in found.detail
        await asyncio.wait_for(ended.wait(), 10)


@both_loops
async def test_cancelling_closes_the_connection() -> None:
    """A dial that is cancelled while the proxy works leaves nothing open."""
    came, ended = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        ended.set()

    async with raw_provider(silent) as proxy:
        dialling = asyncio.ensure_future(dialer(proxy.url).dial(Greeted))  # noqa: TID251
        await asyncio.wait_for(came.wait(), 10)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await asyncio.wait_for(ended.wait(), 10)


async def test_keyrelay_itself_is_no_proxy() -> None:
    """An egress proxy at a listener of keyrelay would be a loop; nothing is dialled."""
    async with connect_proxy({}) as proxy:
        own: Callable[[], list[tuple[str, int]]] = lambda: [("0.0.0.0", proxy.port)]  # noqa: E731
        found = await failure(dialer(proxy.url, own=own))
        assert (found.proxy_error, proxy.heads) == ("proxy_loop_detected", [])


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "224.0.0.1"])
async def test_addresses_that_no_proxy_is_asked_for(address: str) -> None:
    """An upstream that is a forbidden address is refused before the proxy is dialled."""
    async with connect_proxy({address: 1}) as proxy:
        found = await failure(dialer(proxy.url, Origin("https", address, 443)))
        assert (found.proxy_error, proxy.heads) == ("destination_ip_prohibited", [])


@pytest.mark.parametrize("url", ["http://169.254.169.254:80", "http://224.0.0.1:3128"])
async def test_addresses_where_no_proxy_is(url: str) -> None:
    """A metadata service is not dialled as a proxy either."""
    assert (await failure(dialer(url))).proxy_error == "destination_ip_prohibited"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_is_reached_directly(host: str) -> None:
    """The loopback of the proxy is another one, to which a credential would go in plain text."""
    assert not EgressProxy("http://proxy.example:3128").serves(Origin("http", host, 8000))
    assert EgressProxy("http://proxy.example:3128").serves(API)


async def test_excluded_hosts_are_reached_directly(trusted: Authority) -> None:
    """A host of no_proxy is dialled itself."""
    async with (
        raw_provider(greet, trusted.server("127.0.0.1")) as provider,
        connect_proxy({}, response=REFUSED % 403) as proxy,
    ):
        origin = Origin("https", "127.0.0.1", provider.port)
        connection = await dialer(proxy.url, origin, "127.0.0.0/8").dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("text", "host", "covered"),
    [
        ("", "api.example", False),
        ("*", "api.example", True),
        (" * ", "10.0.0.1", True),
        ("*.example", "api.example", False),
        ("api.example", "api.example", True),
        ("API.Example", "api.example", True),
        ("example", "api.example", True),
        (".example", "api.example", True),
        (".example", "example", True),
        ("example.", "api.example", True),
        ("example", "myexample", False),
        ("pi.example", "api.example", False),
        ("api.example", "example", False),
        ("other.example, api.example", "api.example", True),
        ("other.example api.example", "api.example", True),
        ("other.example,,api.example,", "api.example", True),
        ("api.example:443", "api.example", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("0.1", "10.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("[fd12::1]", "fd12::1", True),
        ("fd12:0::1", "fd12::1", True),
        ("10.0.0.0/8", "api.example", False),
        ("10.0.0.0/99", "10.0.0.1", False),
    ],
)
def test_rules_of_no_proxy(text: str, host: str, covered: bool) -> None:
    """Hosts are excluded as curl excludes them."""
    assert NoProxy(text).covers(host) is covered


@pytest.mark.parametrize(
    "text",
    [
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://proxy.example",
        "proxy.example",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?x",
        "http://proxy.example:99999",
        "http://:3128",
        "",
        "http://",
    ],
)
def test_urls_that_name_no_proxy(text: str) -> None:
    """Each is refused with advice, and without the text, which may hold a password."""
    with pytest.raises(ConfigValueError) as caught:
        parse_proxy_url(text.replace("://", f"://dummy:{PASSWORD}@"))
    assert caught.value.hint
    assert PASSWORD not in str(caught.value)


def test_urls_of_proxies() -> None:
    """A scheme may be left out, as programs allow it in HTTPS_PROXY."""
    for text in ("http://Proxy.Example:3128", "http://proxy.example:3128/", "proxy.example:3128"):
        assert parse_proxy_url(text) == (Origin("http", "proxy.example", 3128), b"")
    assert parse_proxy_url("http://[::1]:8")[0] == Origin("http", "::1", 8)


@both_loops
async def test_a_tunnel_for_plain_http() -> None:
    """An upstream with plain http gets a tunnel too, so that the proxy changes nothing."""
    async with (
        raw_provider(greet) as provider,
        connect_proxy({"api.example": provider.port}) as proxy,
    ):
        origin = Origin("http", "api.example", 80)
        connection = await dialer(proxy.url, origin).dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()
    assert proxy.heads[0].startswith(b"CONNECT api.example:80 ")
