"""Rows T1 to T12 and T34 to T36: admitted requests, and that no others cause as much as a dial."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proxy.config import loader
from proxy.errors import ConfigError
from tests.security.scene import (
    GET,
    HANDSHAKE,
    HOST,
    INBOUND,
    KEY,
    PAGE,
    SOCKET,
    Stage,
    problem,
    raw_client,
    stage,
    status,
    values,
)
from tests.support import command as commands
from tests.support.keyrelay import (
    Running,
    both_loops,
    exchange,
    keyrelay,
    static_route,
    without_request_id,
)

AGENT = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537\r\n"
)
EVIL = b"Origin: https://evil.test\r\n"
NOBODY = 65534


def to_host(*hosts: str) -> bytes:
    """A request with these values of Host."""
    return b"GET /api/x HTTP/1.1\r\n" + b"".join(b"Host: %b\r\n" % one.encode() for one in hosts)


# -- the name that was asked for ---------------------------------------------------------------


@both_loops
@pytest.mark.parametrize(
    "host", ["evil.test:8080", "evil.test", "localhost.evil.test", "api.localhost.evil.test"]
)
@pytest.mark.parametrize("fields", [b"", HANDSHAKE, f"Origin: {PAGE}\r\n".encode()])
async def test_t01_dns_rebinding(open_stage: Stage, host: str, fields: bytes) -> None:
    """A name that was bound to 127.0.0.1 afterwards is no name of ours, whatever else is right."""
    got = await open_stage.refused(to_host(host) + fields, 421)
    assert problem(got) == "host-not-allowed"
    assert b"evil" not in got
    await open_stage.dials()


@both_loops
@pytest.mark.parametrize(
    "host", ["0.0.0.0:8080", "0.0.0.0", "[::]:8080", "[::ffff:0.0.0.0]", "0", "0x0", "0.0.0.0."]
)
async def test_t02_the_unspecified_address_is_no_name_of_ours(open_stage: Stage, host: str) -> None:
    """Pages that get through to 0.0.0.0 find nothing there."""
    await open_stage.refused(to_host(host), 421)


@both_loops
@pytest.mark.parametrize(
    "hosts",
    [
        ("localhost/?",),
        ("localhost@evil.test",),
        ("evil.test@localhost",),
        ("localhost.",),
        ("a b",),
        ("",),
        (),
        ("localhost", "localhost"),
        ("localhost", "evil.test"),
        ("localhost, evil.test",),
        ("localhost:80:80",),
        ("localhost:port",),
        ("localhost#",),
        ("localhost\\",),
        ("[::1",),
        ("[::1%25lo]",),
        ("127.1",),
        ("2130706433",),
        ("0x7f000001",),
        ("127.0.0.1.evil.test",),
        ("locälhost",),
    ],
)
async def test_t03_tricks_with_host(open_stage: Stage, hosts: tuple[str, ...]) -> None:
    """Exactly one value, in the plain grammar, and one of the listed names."""
    await open_stage.refused(to_host(*hosts), 400, 421)


@both_loops
@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://localhost/api/x", "evil.test", 421),
        ("http://evil.test/api/x", "localhost", 421),
        ("http://evil.test/api/x", "evil.test", 421),
        ("http://localhost:1/api/x", "localhost:2", 421),
        ("http://127.0.0.1/api/x", "localhost", 421),
        ("http://localhost@evil.test/api/x", "localhost", 421),
        ("ftp://localhost/api/x", "localhost", 400),
        ("localhost/api/x", "localhost", 400),
    ],
)
async def test_t04_absolute_form_and_host_disagree(
    open_stage: Stage, target: str, host: str, expected: int
) -> None:
    """The target's authority and Host have to be the same allowed name."""
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n".encode()
    await open_stage.refused(request, expected)


@both_loops
async def test_t04_absolute_form_that_agrees(open_stage: Stage) -> None:
    """Then it is served, and the provider sees neither our name nor the absolute form."""
    request = b"GET http://localhost:8080/api/x HTTP/1.1\r\nHost: localhost:8080\r\n"
    head = await open_stage.reaches(request)
    assert head.startswith(b"GET /v1/x HTTP/1.1\r\n")
    assert values(head, "Host") == [f"127.0.0.1:{open_stage.place.port}"]


# -- pages -------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_t05_a_foreign_page(open_stage: Stage, method: str) -> None:
    """No method is harmless: GETs spend money too."""
    request = f"{method} /api/x HTTP/1.1\r\n".encode() + HOST + EVIL
    if method == "HEAD":
        got = await open_stage.everything(request + b"Connection: close\r\n")
        assert status(got) == 403
        open_stage.no_dial()
    else:
        got = await open_stage.refused(request, 403)
        assert problem(got) == "browser-not-allowed"
        assert b"evil" not in got
    assert values(got, "Access-Control-Allow-Origin") == []
    await open_stage.dials()


@both_loops
@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none", "anything"])
async def test_t05_a_page_without_origin(open_stage: Stage, site: str) -> None:
    """An image or a form's GET bears Sec-Fetch-Site alone, and no value of it is good."""
    await open_stage.refused(GET + f"Sec-Fetch-Site: {site}\r\n".encode(), 403)


@both_loops
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (AGENT, 403),
        (b"Referer: https://evil.test/page\r\n", 403),
        (b"User-Agent: curl/8.5.0\r\n", 200),
        (b"User-Agent: node\r\nSec-Fetch-Mode: cors\r\n", 200),
        (b"User-Agent: Mozilla/5.0 (Windows NT; en-US) PowerShell/7.4\r\n", 200),
        (b"", 200),
    ],
)
async def test_t06_an_old_browser(open_stage: Stage, fields: bytes, expected: int) -> None:
    """One that sends no marks is told by its name; programs need no setting."""
    if expected == 403:
        await open_stage.refused(GET + fields, 403)
    else:
        await open_stage.reaches(GET + fields)


@both_loops
@pytest.mark.parametrize("fields", [b"", HANDSHAKE, b"Sec-Fetch-Site: same-origin\r\n"])
async def test_t07_origin_null(open_stage: Stage, fields: bytes) -> None:
    """Sandboxed frames and files of any author say null; it opens nothing."""
    await open_stage.refused(GET + b"Origin: null\r\n" + fields, 403)


@pytest.mark.parametrize("origin", ["null", "*", "http://localhost:5173/", "https://*.test"])
def test_t07_origins_that_nobody_may_list(origin: str) -> None:
    """The routes file takes exact origins only, and says what to write."""
    document = f'browsers: {{origins: ["{origin}"]}}\nroutes: {{demo: {{provider: demo}}}}\n'
    with pytest.raises(ConfigError) as caught:
        loader.load_text(document, "routes.yaml")
    (finding,) = caught.value.findings
    assert (finding.line, finding.column) == (1, 22)
    assert finding.advice


@both_loops
@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:5173.evil.test",
        "http://localhost:51730",
        "http://localhost:517",
        "http://localhost",
        "https://localhost:5173",
        "HTTP://LOCALHOST:5173",
        "http://localhost:5173/",
        "http://localhost:05173",
        "http://evil.test#http://localhost:5173",
        "http://a.localhost:5173",
        "http://127.0.0.1:5173",
        "http://localhost:5173 http://evil.test",
        "http://evil.test, http://localhost:5173",
        "",
    ],
)
async def test_t08_an_origin_that_looks_like_a_listed_one(open_stage: Stage, origin: str) -> None:
    """Nothing but the very text that a browser sends for the listed origin is that origin."""
    await open_stage.refused(GET + f"Origin: {origin}\r\n".encode(), 403)


@both_loops
async def test_t08_two_origins(open_stage: Stage) -> None:
    """A listed one does not bring another along."""
    await open_stage.refused(GET + f"Origin: {PAGE}\r\n".encode() + EVIL, 403)


@both_loops
@pytest.mark.parametrize("fields", [EVIL, b"Origin: null\r\n", b"Sec-Fetch-Site: none\r\n", AGENT])
async def test_t09_a_foreign_page_opens_a_websocket(open_stage: Stage, fields: bytes) -> None:
    """The handshake passes the same gate: a plain 403, before the provider hears of it."""
    got = await open_stage.refused(SOCKET + fields, 403)
    assert problem(got) == "browser-not-allowed"
    assert values(got, "Upgrade") == values(got, "Sec-WebSocket-Accept") == []
    await open_stage.dials()


PREFLIGHT = (
    b"OPTIONS /api/x HTTP/1.1\r\n" + HOST + b"Access-Control-Request-Method: DELETE\r\n"
    b"Access-Control-Request-Headers: authorization, x-api-key\r\n"
)


@both_loops
async def test_t10_a_preflight_is_answered_here(open_stage: Stage) -> None:
    """To a listed page: its exact origin, Vary, no credentials; the provider hears nothing."""
    got = await open_stage.refused(PREFLIGHT + f"Origin: {PAGE}\r\n".encode(), 204)
    assert values(got, "Access-Control-Allow-Origin") == [PAGE]
    assert "Origin" in values(got, "Vary")
    assert values(got, "Access-Control-Allow-Credentials") == []


@both_loops
@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://localhost:51730"])
async def test_t10_a_preflight_of_a_foreign_page(open_stage: Stage, origin: str) -> None:
    """It is told nothing that would let it go on."""
    got = await open_stage.refused(PREFLIGHT + f"Origin: {origin}\r\n".encode(), 403)
    assert not [name for name in (b"access-control", b"evil") if name in got.lower()]


@both_loops
@pytest.mark.parametrize(
    "mark",
    [
        "Sec-Fetch-Mode: navigate",
        *(
            f"Sec-Fetch-Dest: {dest}"
            for dest in (
                *("document", "iframe", "frame", "embed", "object", "script"),
                *("worker", "sharedworker", "serviceworker"),
            )
        ),
        "Service-Worker: script",
    ],
)
async def test_t12_navigations_frames_and_workers(open_stage: Stage, mark: str) -> None:
    """Not even for a listed page: a provider's page or worker would live at our localhost."""
    listed = f"Origin: {PAGE}\r\n{mark}\r\n".encode()
    await open_stage.refused(GET + listed, 403)
    await open_stage.refused(GET + f"{mark}\r\n".encode(), 403)


# -- other users and machines ------------------------------------------------------------------


@contextmanager
def another_user() -> Iterator[None]:
    """Sockets that are made in the block belong to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def no_umask() -> Iterator[None]:
    """Files get all the permissions that are asked for."""
    old = os.umask(0)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def open_directory() -> Iterator[Path]:
    """One that every user may enter, so that the socket has to keep others out by itself."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@both_loops
async def test_t34_a_unix_socket_is_its_owner_s(secrets: None) -> None:
    """Its mode is 0600 whatever the umask, and another user cannot connect."""
    route = static_route("http://127.0.0.1:9")
    with no_umask(), open_directory() as directory:
        path = directory / "keyrelay.sock"
        async with keyrelay({"api": route}, listen=[f"unix:{path}"]):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with (
                another_user(),
                socket.socket(socket.AF_UNIX) as stranger,
                pytest.raises(PermissionError),
            ):
                stranger.connect(str(path))


async def asked_by_stranger(running: Running) -> bytes:
    """All that another user of this machine gets for a request over TCP."""
    with another_user():
        sock = socket.create_connection(("127.0.0.1", running.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(GET + b"Connection: close\r\n\r\n")
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@both_loops
async def test_t34_another_user_over_tcp(secrets: None) -> None:
    """With ``peer_uid: enforce`` it is refused and nothing is dialled; the owner is served."""
    async with stage(peer_uid="enforce") as one:
        got = await asked_by_stranger(one.running)
        assert (status(got), problem(got)) == (403, "peer-not-allowed")
        one.no_dial()
        await one.dials()


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:0", "[::]:0", ":0", "0:0", "0x0:0", "[::ffff:0.0.0.0]:0", "*:0", "192.0.2.1:0"],
)
def test_t35_no_wildcard_without_a_token(listen: str) -> None:
    """Any spelling of every network, any address beyond loopback: exit 2 and the remedy."""
    done = commands.keyrelay("run", "demo", "--listen", listen)
    assert done.code == 2
    assert "inbound_token" in done.err


def test_t35_nor_from_a_file(tmp_path: Path) -> None:
    """The same of the routes file, for the main listener and for a route's own."""
    file = tmp_path / "routes.yaml"
    file.write_text(
        "listen: 0.0.0.0:8080\nroutes:\n  demo: {provider: demo, listen: '[::]:8081'}\n"
    )
    done = commands.keyrelay("run", "-c", str(file))
    assert done.code == 2
    assert "routes.yaml:1:9: " in done.err
    assert "routes.yaml:3:" in done.err
    assert "inbound_token" in done.err


async def test_t35_with_a_token_it_may(tmp_path: Path) -> None:
    """The token makes it safe enough to listen there, and is then required of every client."""
    file = tmp_path / "routes.yaml"
    file.write_text(
        "listen: 0.0.0.0:0\ninbound_token: env:DUMMY_INBOUND\nroutes:\n  demo: {provider: demo}\n"
    )
    variables = {"DUMMY_INBOUND": INBOUND}
    async with commands.running("run", "-c", str(file), variables=variables) as process:
        request = b"GET /demo/echo/x HTTP/1.1\r\n" + HOST
        token = f"X-Keyrelay-Token: {INBOUND}\r\n".encode()
        assert status(await exchange(process.port, request + b"\r\n")) == 401
        assert status(await exchange(process.port, request + token + b"\r\n")) == 200
        assert INBOUND not in process.err
    assert INBOUND not in process.out


def guarded() -> AbstractAsyncContextManager[Stage]:
    """The stage behind an inbound token."""
    return stage(inbound_token="env:DUMMY_INBOUND", origins=(PAGE,))


BEARER = f"Authorization: Bearer {INBOUND}\r\n".encode()
OWN = f"X-Keyrelay-Token: {INBOUND}\r\n".encode()
OFFER = f"Sec-WebSocket-Protocol: chat, keyrelay.token.{INBOUND}\r\n".encode()


@both_loops
@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Authorization: Bearer \r\n",
        b"Authorization: Bearer dummy\r\n",
        f"Authorization: Bearer {INBOUND[:-1]}\r\n".encode(),
        f"Authorization: Bearer {INBOUND}0\r\n".encode(),
        f"Authorization: Bearer {INBOUND.upper()}\r\n".encode(),
        f"Authorization: Basic {INBOUND}\r\n".encode(),
        f"Authorization: {INBOUND}\r\n".encode(),
        "Authorization: Bearer é\r\n".encode(),
        b"Authorization: Bearer \xe9\r\n",
        "X-Keyrelay-Token: é\r\n".encode(),
        b"X-Keyrelay-Token: " + b"x" * 4000 + b"\r\n",
        OFFER,
        f"Cookie: token={INBOUND}\r\n".encode(),
    ],
)
async def test_t36_a_wrong_inbound_token(secrets: None, fields: bytes) -> None:
    """Missing, wrong, short or no text at all: the same 401, and never a 500."""
    async with guarded() as one:
        got = await one.refused(GET + fields, 401)
        assert problem(got) == "token-needed"
        assert without_request_id(got) == without_request_id(await one.ask(GET))
        assert INBOUND.encode() not in got


@both_loops
async def test_t36_not_in_a_url(secrets: None) -> None:
    """A token in a query is none: URLs end up in histories and logs."""
    async with guarded() as one:
        for name in ("token", "access_token", "inbound_token", "X-Keyrelay-Token"):
            request = f"GET /api/x?{name}={INBOUND} HTTP/1.1\r\n".encode() + HOST
            await one.refused(request, 401)


@both_loops
@pytest.mark.parametrize("fields", [BEARER, OWN, OWN + b"Authorization: Bearer dummy\r\n"])
async def test_t36_the_inbound_token_opens_and_stays_here(secrets: None, fields: bytes) -> None:
    """Either carrier lets in; the provider sees its own credential and nothing of the token."""
    async with guarded() as one:
        head = await one.reaches(GET + fields)
        assert values(head, "Authorization") == [f"Bearer {KEY}"]
        assert INBOUND.encode() not in head
        assert b"keyrelay" not in head.lower()
        assert INBOUND not in "".join(one.running.lines)


@both_loops
async def test_t36_the_inbound_token_of_a_websocket(secrets: None) -> None:
    """As a subprotocol, where a page can set nothing else; the provider hears of the others."""
    async with guarded() as one:
        await one.refused(SOCKET + b"Sec-WebSocket-Protocol: keyrelay.token.dummy\r\n", 401)
        page = f"Origin: {PAGE}\r\n".encode()
        await one.ask(SOCKET + OFFER + page)
        (head,) = one.provider.heads
        assert values(head, "Sec-WebSocket-Protocol") == ["chat"]
        assert INBOUND.encode() not in head


@both_loops
async def test_t36_what_comes_before_the_token(secrets: None) -> None:
    """Host and browser are judged first; a preflight brings no token and needs none."""
    async with guarded() as one:
        await one.refused(to_host("evil.test"), 421)
        await one.refused(GET + EVIL + OWN, 403)
        await one.refused(PREFLIGHT + f"Origin: {PAGE}\r\n".encode(), 204)
        await one.refused(PREFLIGHT + EVIL, 403)


@both_loops
async def test_t36_a_page_can_read_that_a_token_is_needed(secrets: None) -> None:
    """Its fetch gets the 401 and not an error without a reason."""
    async with guarded() as one:
        got = await one.refused(GET + f"Origin: {PAGE}\r\n".encode(), 401)
        assert values(got, "Access-Control-Allow-Origin") == [PAGE]


@both_loops
async def test_t36_another_token_holds_on_connections_that_are_open(
    secrets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reload the old one opens nothing any more, even on connections that used it."""
    monkeypatch.setenv("DUMMY_NEXT", "dummy-next-inbound-token")
    old, new = OWN, b"X-Keyrelay-Token: dummy-next-inbound-token\r\n"
    async with guarded() as one, raw_client(one.port) as client:
        client.send(GET + old + b"\r\n")
        assert (await client.answer())[0] == 200
        app = one.running.app
        other = app.settings.inbound_token
        assert other is not None
        other = other.model_copy(update={"references": ("env:DUMMY_NEXT",)})
        await app.adopt(app.settings.model_copy(update={"inbound_token": other}))
        for fields, wanted in ((old, 401), (new, 200), (old, 401)):
            client.send(GET + fields + b"\r\n")
            assert (await client.answer())[0] == wanted
