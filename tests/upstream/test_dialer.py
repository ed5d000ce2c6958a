"""Opening connections to providers: where to, how, and what is said when it fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.errors import ConfigError, UpstreamFailure
from proxy.http.address import Origin
from proxy.upstream.authorities import read_authorities
from proxy.upstream.dialer import Dialer
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.keyrelay import RawProvider, both_loops, raw_provider, until
from tests.support.resolution import address_info


class Greeted(asyncio.Protocol):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is bound, so that no other program listens there, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def names_lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name resolves to these addresses; none of them to nothing."""

    async def getaddrinfo(host: str, port: int, **hints: object) -> list[object]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "dummy")
        return address_info(addresses, port)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def failure(dialer: Dialer) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await dialer.dial(Greeted)
    assert caught.value.__cause__ is None
    return caught.value


def https(provider: RawProvider, host: str = "localhost", *, seconds: float = 5) -> Dialer:
    origin = Origin("https", host, provider.port)
    return Dialer(origin, connect_seconds=seconds, tls=tls_context())


# -- plain connections -------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_dials_and_hands_over_the_protocol(host: str) -> None:
    """The connection comes with the protocol it was asked with, and sends without delay."""
    async with raw_provider(greet) as provider:
        dialer = Dialer(Origin("http", host, provider.port), connect_seconds=5)
        connection = await dialer.dial(Greeted)
        await until(lambda: connection.received == b"hello")
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.transport.close()


@both_loops
async def test_an_address_instead_of_the_name() -> None:
    """The built-in provider is dialled at its address; its name is never looked up."""
    async with raw_provider(greet) as provider:
        dialer = Dialer(
            Origin("http", "demo.invalid", 80),
            connect_seconds=5,
            address=("127.0.0.1", provider.port),
        )
        connection = await dialer.dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()


@both_loops
async def test_no_listener() -> None:
    """A refused connection says so."""
    with refusing_port() as port:
        dialer = Dialer(Origin("http", "127.0.0.1", port), connect_seconds=5)
        refused = await failure(dialer)
        assert (refused.proxy_error, refused.timed_out) == ("connection_refused", False)


async def test_no_listener_at_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if the name has several addresses and all of them refuse."""
    names_lead_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with refusing_port() as port:
        dialer = Dialer(Origin("http", "localhost", port), connect_seconds=5)
        assert (await failure(dialer)).proxy_error == "connection_refused"


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address that refuses does not matter if another answers."""
    names_lead_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with raw_provider(greet) as provider:
        dialer = Dialer(Origin("http", "localhost", provider.port), connect_seconds=5)
        connection = await dialer.dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()


async def test_a_name_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved says so."""
    names_lead_to(monkeypatch)
    dialer = Dialer(Origin("http", "api.invalid", 80), connect_seconds=5)
    assert (await failure(dialer)).proxy_error == "dns_error"


async def test_no_way_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the system says becomes one kind of failure, in words of ours."""
    names_lead_to(monkeypatch, "8.8.8.8")

    async def sock_connect(sock: socket.socket, address: object) -> None:
        raise OSError(101, "Network is unreachable: dummy-canary")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    failed = await failure(Dialer(Origin("http", "api.invalid", 80), connect_seconds=5))
    assert failed.proxy_error == "destination_unavailable"
    assert "dummy-canary" not in failed.detail


@both_loops
async def test_a_connection_that_takes_too_long(trusted: Authority) -> None:
    """The time for a connection includes its TLS handshake; when it is over, it is given up."""
    async with raw_provider(hang) as provider:
        slow = await failure(https(provider, seconds=0.05))
        assert (slow.proxy_error, slow.timed_out) == ("connection_timeout", True)


@both_loops
async def test_cancelling_leaves_nothing(trusted: Authority) -> None:
    """A dial that is cancelled closes its half-open connection."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with raw_provider(serve) as provider:
        dial = asyncio.get_running_loop().create_task(https(provider).dial(Greeted))
        await until(lambda: provider.connections)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        async with asyncio.timeout(5):
            await gone.wait()


# -- which addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
    ],
)
async def test_addresses_that_are_never_dialled(
    monkeypatch: pytest.MonkeyPatch, address: str, private: bool
) -> None:
    """Metadata services, multicast and unspecified addresses in any spelling are refused, whether
    a name leads there or the configuration says so, and allow_private changes nothing.
    """
    literal = Origin("http", address, 80)
    dialer = Dialer(literal, connect_seconds=5, allow_private=private)
    assert (await failure(dialer)).proxy_error == "destination_ip_prohibited"
    names_lead_to(monkeypatch, address)
    named = Origin("http", "api.example", 80)
    dialer = Dialer(named, connect_seconds=5, allow_private=private)
    assert (await failure(dialer)).proxy_error == "destination_ip_prohibited"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"],
)
async def test_names_that_lead_inside(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """A public name that resolves to this machine or the private network is not followed."""
    names_lead_to(monkeypatch, address)
    dialer = Dialer(Origin("http", "api.example", 80), connect_seconds=5)
    refused = await failure(dialer)
    assert refused.proxy_error == "destination_ip_prohibited"
    assert "allow_private" in refused.detail


async def test_the_public_ones_of_a_mixed_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses only those allowed are dialled."""
    names_lead_to(monkeypatch, "169.254.169.254", "127.0.0.1")
    async with raw_provider(greet) as provider:
        dialer = Dialer(
            Origin("http", "api.example", provider.port), connect_seconds=5, allow_private=True
        )
        connection = await dialer.dial(Greeted)
        await until(lambda: connection.received)
        assert connection.transport.get_extra_info("peername")[0] == "127.0.0.1"
        connection.transport.close()


# -- TLS ---------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls_with_an_authority_of_ones_own(trusted: Authority, host: str) -> None:
    """SSL_CERT_FILE names the authorities that are trusted; HTTP/1.1 is agreed on."""
    async with raw_provider(greet, trusted.server("localhost", "127.0.0.1")) as provider:
        connection = await https(provider, host).dial(Greeted)
        await until(lambda: connection.received == b"hello")
        tls = connection.transport.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() in {"TLSv1.2", "TLSv1.3"}
        connection.transport.close()


@both_loops
async def test_a_foreign_authority(authority: Authority) -> None:
    """A certificate of an untrusted authority is refused."""
    async with raw_provider(greet, authority.server("localhost")) as provider:
        refused = await failure(https(provider))
        assert refused.proxy_error == "tls_certificate_error"


@both_loops
@pytest.mark.parametrize("names", [("other.example",), ("127.0.0.2",), ("*.localhost",)])
async def test_the_certificate_of_another(trusted: Authority, names: tuple[str, ...]) -> None:
    """A certificate for another name is refused, whatever its authority."""
    async with raw_provider(greet, trusted.server(*names)) as provider:
        refused = await failure(https(provider))
        assert refused.proxy_error == "tls_certificate_error"
        assert "mismatch" in refused.detail


@both_loops
async def test_an_old_certificate(trusted: Authority) -> None:
    """A certificate past its time is refused."""
    async with raw_provider(greet, trusted.server("localhost", expired=True)) as provider:
        refused = await failure(https(provider))
        assert refused.proxy_error == "tls_certificate_error"
        assert "expired" in refused.detail


@both_loops
async def test_a_server_without_tls(trusted: Authority) -> None:
    """Something that speaks no TLS is told apart from a bad certificate."""
    async with raw_provider(greet) as provider:
        assert (await failure(https(provider))).proxy_error == "tls_protocol_error"


@both_loops
async def test_old_versions_of_tls(trusted: Authority) -> None:
    """TLS 1.1 is refused."""
    old = trusted.server("localhost")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with raw_provider(greet, old) as provider:
        # asyncio's server hangs up without the alert that other servers send.
        refused = await failure(https(provider))
        assert refused.proxy_error in {"tls_protocol_error", "destination_unavailable"}


async def test_session_keys_are_not_written(
    trusted: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSLKEYLOGFILE, which other programs obey, gets nothing."""
    keys = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    async with raw_provider(greet, trusted.server("localhost")) as provider:
        connection = await https(provider).dial(Greeted)
        await until(lambda: connection.received)
        connection.transport.close()
    assert not keys.exists()


def test_verification_cannot_be_forgotten() -> None:
    """An https origin cannot be dialled without a context, and the context verifies."""
    with pytest.raises(ValueError, match="TLS context"):
        Dialer(Origin("https", "api.example", 443), connect_seconds=5)
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@both_loops
async def test_further_authorities(authority: Authority) -> None:
    """Authorities of a file are trusted beside the system's, for this context alone."""
    text = read_authorities(authority.file)
    async with raw_provider(greet, authority.server("localhost")) as provider:
        origin = Origin("https", "localhost", provider.port)
        dialer = Dialer(origin, connect_seconds=5, tls=tls_context(text))
        connection = await dialer.dial(Greeted)
        await until(lambda: connection.received == b"hello")
        connection.transport.close()
        assert (await failure(https(provider))).proxy_error == "tls_certificate_error"
    assert len(tls_context(text).get_ca_certs()) == len(tls_context().get_ca_certs()) + 1


def test_authorities_with_words_around_them(authority: Authority, tmp_path: Path) -> None:
    """Comments in any alphabet, and line ends of Windows, are no hindrance."""
    pem = authority.file.read_bytes().replace(b"\n", b"\r\n")
    file = tmp_path / "company.pem"
    file.write_bytes(b"# Pr\xfcfstelle\r\n" + pem + b"\r\n# end\r\n" + pem)
    text = read_authorities(file)
    assert text.count("BEGIN CERTIFICATE") == 2
    tls_context(text)


@pytest.mark.parametrize("content", [None, b"", b"dummy", b"\x30\x82"])
def test_a_file_of_the_environment_without_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """OpenSSL ignores such a SSL_CERT_FILE, and every certificate would be refused for it."""
    file = tmp_path / "company.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE") as caught:
        tls_context()
    assert caught.value.findings[0].advice
