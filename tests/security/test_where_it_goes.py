"""Rows T27, T28 and T30 to T33: a credential goes to the configured origin and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import loader
from proxy.errors import ConfigError
from tests.security.scene import (
    GET,
    KEY,
    SOCKET,
    Provider,
    Stage,
    answer,
    problem,
    routes,
    stage,
    status,
    values,
)
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    RawProvider,
    answering,
    both_loops,
    exchange,
    keyrelay,
    raw_provider,
)
from tests.support.resolution import address_info

GATEWAY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@both_loops
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_t27_redirects_are_not_followed(open_stage: Stage, code: int) -> None:
    """The client gets the redirect and decides; its target sees neither key nor body."""
    async with raw_provider(answering(GATEWAY)) as evil:
        to = f"{evil.url}/steal"
        open_stage.provider.answer = answer(b"", f"Location: {to}", status=f"{code} Elsewhere")
        post = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        for request in (GET, post, GET.replace(b"/api", b"/minted")):
            got = await open_stage.ask(request)
            assert status(got) == code
            assert values(got, "Location") == [to]
        assert evil.connections == 0


@both_loops
@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("{provider}/v1/next?a=1", "/api/next?a=1"),
        ("/v1/next", "/api/next"),
        ("//{authority}/v1/next", "/api/next"),
        ("{provider}/v1//evil.test/", "/api/evil.test/"),
        ("{provider}/v1/\\evil.test/", "/api/evil.test/"),
        ("{provider}/v1/next?api_key=dummy", "/api/next"),
    ],
)
async def test_t27_a_redirect_within_the_provider_stays_with_us(
    open_stage: Stage, location: str, seen: str
) -> None:
    """It leads back through the route, never to ``//somewhere``, and repeats no credential."""
    url = open_stage.place.url
    place = location.format(provider=url, authority=url.removeprefix("http://"))
    open_stage.provider.answer = answer(b"", f"Location: {place}", status="302 Found")
    assert values(await open_stage.ask(GET), "Location") == [seen]


@both_loops
async def test_t28_a_redirected_handshake(open_stage: Stage) -> None:
    """Done differently: the client gets the redirect as the answer that it is; no WebSocket opens,
    and nobody goes there.
    """
    async with raw_provider(answering(GATEWAY)) as evil:
        place = f"Location: {evil.url}/steal"
        open_stage.provider.answer = answer(b"", place, status="302 Found")
        got = await open_stage.ask(SOCKET)
        assert status(got) == 302
        assert values(got, "Sec-WebSocket-Accept") == []
        assert evil.connections == 0


class Names:
    """What names resolve to, and which addresses were connected to beside keyrelay's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.dialled: list[str] = []
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect

        async def getaddrinfo(host: str, port: int, **hints: Any) -> list[object]:
            return address_info(self.addresses, port)

        async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
            self.dialled.append(str(address[0]))
            await connect(sock, address)

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "sock_connect", sock_connect)


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
async def inside() -> AsyncIterator[RawProvider]:
    """A provider on this machine."""
    async with raw_provider(Provider().serve) as provider:
        yield provider


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fd00:ec2::254",
        "100.64.0.1",
        "100.100.100.200",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
    ],
)
async def test_t30_a_name_that_leads_inside(secrets: None, names: Names, address: str) -> None:
    """The address that would be dialled is looked at, whatever DNS says and however it is written:
    502, and no attempt to connect.
    """
    names.addresses = [address]
    api = {"upstream": "https://up.test", "auth": [{"header": "X-Api-Key", "value": "{key}"}]}
    async with stage(api=api) as one:
        names.dialled.clear()
        for request in (GET, SOCKET.replace(b"/api", b"/api/socket")):
            got = await one.ask(request)
            assert (status(got), problem(got)) == (502, "provider-failed")
            assert b"destination_ip_prohibited" in got
            assert b"up.test" not in got
            assert address.encode() not in got
        assert [where for where in names.dialled if where != "127.0.0.1"] == []
        one.no_dial()


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1"])
async def test_t30_metadata_is_never_dialled(secrets: None, names: Names, address: str) -> None:
    """Not even where private addresses are allowed, nor if the route spells the address out."""
    names.addresses = [address]
    host = f"[{address}]" if ":" in address else address
    for upstream in ("https://up.test", f"https://{host}"):
        api = {"upstream": upstream, "allow_private": True}
        async with stage(api=api) as one:
            names.dialled.clear()
            got = await one.ask(GET)
            assert status(got) == 502
            assert b"destination_ip_prohibited" in got
            assert [where for where in names.dialled if where != "127.0.0.1"] == []


@pytest.mark.parametrize("address", ["192.0.2.1", "8.8.8.8", "10.0.0.1", "64:ff9b::7f00:1"])
async def test_t54_localhost_that_leads_to_another_machine(
    secrets: None, names: Names, address: str
) -> None:
    """Whatever the name resolves to: no key and no client secret leaves this machine in clear."""
    names.addresses = [address]
    both = routes("http://localhost:9", "http://localhost:9")
    for route in both.values():
        route["allow_private"] = True
    async with keyrelay(both) as running:
        for request in (GET, SOCKET):
            got = await exchange(running.port, request + b"\r\n")
            assert (status(got), problem(got)) == (502, "provider-failed")
            assert b"over plain http" in got
        got = await exchange(running.port, GET.replace(b"/api", b"/minted") + b"\r\n")
        assert (status(got), problem(got)) == (503, "no-token")
    assert [one for one in names.dialled if one == address] == []


async def test_t54_localhost_that_is_this_machine(
    secrets: None, names: Names, inside: RawProvider
) -> None:
    """Of several addresses those of this machine are dialled, and no others."""
    names.addresses = ["192.0.2.1", "127.0.0.1"]
    route = routes(f"http://localhost:{inside.port}", inside.url)["api"]
    async with keyrelay({"api": route}) as running:
        assert status(await exchange(running.port, GET + b"\r\n")) == 200
    assert "192.0.2.1" not in names.dialled


async def test_t30_a_name_whose_answer_changes(
    secrets: None, names: Names, inside: RawProvider
) -> None:
    """Checked at each dial and not once: a name that moves inside later is not followed."""
    names.addresses = ["127.0.0.1"]
    both = {
        name: {
            "upstream": f"http://up.test:{inside.port}",
            "allow_plaintext": True,
            "allow_private": allowed,
            "secrets": {"key": "env:DUMMY_KEY"},
            "auth": [{"header": "X-Api-Key", "value": "{key}"}],
            "idle_seconds": 0,
        }
        for name, allowed in (("api", True), ("strict", False))
    }
    async with keyrelay(both) as running:
        assert status(await exchange(running.port, GET + b"\r\n")) == 200
        strict = GET.replace(b"/api", b"/strict") + b"\r\n"
        assert status(await exchange(running.port, strict)) == 502
        names.addresses = ["169.254.169.254"]
        assert status(await exchange(running.port, GET + b"\r\n")) == 502
    assert inside.connections == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@both_loops
async def test_t31_a_route_that_leads_back(secrets: None) -> None:
    """508 at the first request, instead of one that goes round until something gives way."""
    port = free_port()
    both = routes(f"http://127.0.0.1:{port}", "http://127.0.0.1:9")
    del both["minted"]
    async with keyrelay(both, listen=[f"127.0.0.1:{port}"]) as running:
        got = await exchange(running.port, GET + b"\r\n")
        assert (status(got), problem(got)) == (508, "provider-failed")
        assert running.app.exchange_log.total == 1


@pytest.mark.parametrize(
    "upstream", ["http://127.0.0.1:8080", "http://localhost:8080/api", "http://[::1]:8081"]
)
def test_t31_the_file_that_says_so(upstream: str) -> None:
    """A routes file whose upstream is where it listens is refused, with the place."""
    document = (
        "listen: ['127.0.0.1:8080', '[::1]:8081']\n"
        "routes:\n"
        "  api:\n"
        f"    upstream: {upstream}\n"
        "    secrets: {key: env:DUMMY_KEY}\n"
        "    auth: [{header: X-Api-Key, value: '{key}'}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        loader.load_text(document, "routes.yaml")
    assert [finding.line for finding in caught.value.findings] == [4]


# -- TLS ---------------------------------------------------------------------------------------


def https(port: int, host: str = "localhost") -> dict[str, Any]:
    """A route to a TLS server of this machine."""
    return {
        "upstream": f"https://{host}:{port}",
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [{"header": "X-Api-Key", "value": "{key}"}],
    }


@both_loops
@pytest.mark.parametrize("fault", ["authority", "name", "expired"])
async def test_t32_a_certificate_that_is_not_valid(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Unknown authority, another's name, or too old: 502, and not a byte of the request."""
    authority = Authority(tmp_path)
    if fault != "authority":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    tls = authority.server(
        "other.test" if fault == "name" else "localhost", expired=fault == "expired"
    )
    provider = Provider()
    async with (
        raw_provider(provider.serve, tls) as place,
        keyrelay({"api": https(place.port)}) as running,
    ):
        for request in (GET, SOCKET):
            got = await exchange(running.port, request + b"\r\n")
            assert (status(got), problem(got)) == (502, "provider-failed")
            assert b"tls_certificate_error" in got
        assert provider.heads == []


@pytest.mark.parametrize("key", ["verify_tls", "insecure", "verify_ssl", "ssl"])
def test_t32_verification_cannot_be_switched_off(key: str) -> None:
    """No setting of that kind exists; the words that other tools use are errors."""
    document = f"routes: {{demo: {{provider: demo, {key}: false}}}}\n"
    with pytest.raises(ConfigError):
        loader.load_text(document, "routes.yaml")


@both_loops
async def test_t32_no_key_log(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SSLKEYLOGFILE`` does not disclose what goes to the provider."""
    authority, log = Authority(tmp_path), tmp_path / "keys"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    provider = Provider()
    async with (
        raw_provider(provider.serve, authority.server("localhost")) as place,
        keyrelay({"api": https(place.port)}) as running,
    ):
        assert status(await exchange(running.port, GET + b"\r\n")) == 200
    assert not log.exists() or log.stat().st_size == 0


# -- the environment ---------------------------------------------------------------------------


@both_loops
async def test_t33_proxies_and_netrc_of_the_environment(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the request nor the token call goes anywhere else, nor takes a credential along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login dummy-user password dummy-netrc-password\n")
    netrc.chmod(0o600)
    async with raw_provider(answering(GATEWAY)) as elsewhere:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)
            monkeypatch.setenv(name.lower(), elsewhere.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NETRC", str(netrc))
        async with stage() as one:
            assert values(await one.reaches(GET), "Authorization") == [f"Bearer {KEY}"]
            await one.reaches(GET.replace(b"/api", b"/minted"))
            await one.dials()
        assert elsewhere.connections == 0
