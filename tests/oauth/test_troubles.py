"""What goes wrong at authorization servers, each in its own way, and what comes of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .authorization_servers import (
    KINDS,
    ORIGIN,
    PATIENCE,
    SCOPE,
    Keyrelay,
    Kind,
    Server,
    credentials,
    doctor,
    keyrelay,
    refresh,
    route,
    running,
    variable,
    write_routes,
)

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(600)]

Servers = dict[tuple[str, int], Server]
SECRET = "dummy-secret"
ODD = "Zm9v+YmFy/Yg== %"


def named(case: str, kind: Kind) -> str:
    return f"{case}-{kind}"


@pytest.fixture(scope="module")
def relay(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyrelay]:
    """One keyrelay with a route for each case and server that needs no start of its own."""
    routes: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for kind in KINDS:
        long = servers[kind.name, 3600]

        def client(case: str, secret: str = SECRET, kind: Kind = kind, long: Server = long) -> str:
            name = named(case, kind)
            long.control("client", id=name, secret=secret)
            variables[variable(name).upper()] = secret
            return name

        revoked = client("revoked")
        routes[revoked] = route(long, credentials(long, revoked), vend=True)
        wrong = client("wrong")
        variables[variable(wrong).upper()] = "dummy-wrong"
        routes[wrong] = route(long, credentials(long, wrong))
        scope = client("scope")
        routes[scope] = route(long, {**credentials(long, scope), "scope": "api:admin"})
        odd = client("odd", ODD)
        plain = "basic" if kind.decodes else "basic_plain"
        routes[odd] = route(long, {**credentials(long, odd), "client_auth": plain})
        if not kind.decodes:
            encoded = f"encoded-{kind}"
            token = {**credentials(long, odd, count=encoded), "client_auth": "basic"}
            routes[encoded] = route(long, token)
        first = client("first")
        routes[first] = route(long, credentials(long, first))
    folder = tmp_path_factory.mktemp("troubles")
    with keyrelay(folder, routes, variables, browsers={"origins": [ORIGIN]}) as one:
        yield one


async def ask(relay: Keyrelay, name: str) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession() as session:
        return await relay.get(name, session)


async def until_status(relay: Keyrelay, names: Iterable[str], status: int) -> None:
    """Send requests through each of the routes until it has responded with that status once.

    On a busy machine a token of 4 s can end on the way of a request, and of its repetition.
    """
    waiting = set(names)
    async with asyncio.timeout(PATIENCE):
        while waiting:
            for name in sorted(waiting):
                if (await ask(relay, name))[0] == status:
                    waiting.discard(name)
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_fifty_first_requests_share_one_call(
    relay: Keyrelay, servers: Servers, kind: Kind
) -> None:
    """All are answered 200, from one token."""
    name = named("first", kind)
    async with aiohttp.ClientSession() as session:
        got = await asyncio.gather(*(relay.get(name, session) for _ in range(50)))
    assert {status for status, _, _ in got} == {200}
    assert servers[kind.name, 3600].calls(name) == 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_revoked_token_is_replaced(relay: Keyrelay, servers: Servers, kind: Kind) -> None:
    """RFC 7009, twice within seconds: no request is refused, one call for each revocation."""
    name, server = named("revoked", kind), servers[kind.name, 3600]
    assert (await ask(relay, name))[0] == 200
    for number in (2, 3):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{relay.url}/-/token/{name}", headers={"Origin": ORIGIN}) as response,
        ):
            assert response.status == 200
            token = (await response.json())["token"]
        server.revoke(name, SECRET, token)
        assert (await ask(relay, name))[0] == 200
        assert server.calls(name) == number


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_wrong_secret_is_named(relay: Keyrelay, kind: Kind) -> None:
    """The client gets the code and the variable, and no time to come back; so does the log."""
    name = named("wrong", kind)
    status, headers, text = await ask(relay, name)
    assert status == 503
    assert "Retry-After" not in headers
    assert kind.refusal in text
    assert f"env:{variable(name).upper()}" in text
    assert "dummy-wrong" not in text + relay.log
    assert f"{name}: no token: the token endpoint answered" in relay.log


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_wrong_scope(relay: Keyrelay, servers: Servers, kind: Kind, tmp_path: Path) -> None:
    """It is refused by the server's own name for it, or, where it is dropped, doctor warns."""
    name = named("scope", kind)
    status, _, _ = await ask(relay, name)
    if kind.scope:
        assert status == 503
        code = kind.scope.partition(", ")[2]
        assert f"{name}: no token: the token endpoint answered 400, {code}" in relay.log
        return
    assert status == 200
    server = servers[kind.name, 3600]
    token = {**credentials(server, name), "scope": "api:admin"}
    file = write_routes(tmp_path, {name: route(server, token)})
    output = await asyncio.to_thread(doctor, file, {variable(name).upper(): SECRET})
    assert "asked for the scope api:admin" in output


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_odd_secrets(relay: Keyrelay, kind: Kind) -> None:
    """A secret with a blank, ``+``, ``/``, ``=`` and ``%``; a failure names what to try."""
    assert (await ask(relay, named("odd", kind)))[0] == 200
    if not kind.decodes:
        status, _, text = await ask(relay, f"encoded-{kind}")
        assert status == 503
        assert "try client_auth: basic_plain" in text


async def test_a_restart_with_an_empty_store(tmp_path: Path) -> None:
    """Every server loses its tokens twice within seconds; no request is refused."""
    wanted = [(kind, 3600) for kind in KINDS]
    variables = {variable(f"restart-{kind}").upper(): SECRET for kind in KINDS}
    with ExitStack() as stack:
        servers = stack.enter_context(running(wanted))
        routes = {}
        for server in servers.values():
            name = f"restart-{server.kind}"
            server.control("client", id=name, secret=SECRET)
            routes[name] = route(server, credentials(server, name))
        relay = stack.enter_context(keyrelay(tmp_path, routes, variables))
        for _ in range(2):
            for name in routes:
                assert (await ask(relay, name))[0] == 200, name
            for server in servers.values():
                server.control("forget")
        for name in routes:
            assert (await ask(relay, name))[0] == 200, name


async def test_a_rotated_secret(servers: Servers, tmp_path: Path) -> None:
    """Served until the token ends; then refused with a reason; served again after a reload."""
    routes: dict[str, Any] = {}
    for kind in KINDS:
        name, server = f"rotated-{kind}", servers[kind.name, 4]
        server.control("client", id=name, secret=SECRET)
        secret = tmp_path / name
        secret.write_text(SECRET)
        secret.chmod(0o600)
        routes[name] = route(server, credentials(server, name))
        routes[name]["secrets"] = {variable(name): f"file:{secret}"}
    with keyrelay(tmp_path, routes, {}) as relay:
        await until_status(relay, routes, 200)
        for kind in KINDS:
            servers[kind.name, 4].control("secret", id=f"rotated-{kind}", secret="dummy-newer")
        await until_status(relay, routes, 503)
        for name in routes:
            (tmp_path / name).write_text("dummy-newer")
        relay.process.send_signal(signal.SIGHUP)
        await until_status(relay, routes, 200)


async def test_doctor_beside_run_costs_no_grant(servers: Servers, tmp_path: Path) -> None:
    """Twice, with a store and without: the route goes on serving, and so does the next start."""
    routes: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for kind in KINDS:
        server = servers[kind.name, 3600]
        for case in ("kept", "lost"):
            name = f"{case}-{kind}"
            server.control("client", id=name, secret=SECRET)
            grant = server.control("grant", id=name)["refresh_token"]
            variables |= {
                variable(name).upper(): SECRET,
                f"{variable(name)}_grant".upper(): grant,
            }
            store = {"store": str(tmp_path / f"{name}.json")} if case == "kept" else {}
            routes[name] = route(server, refresh(server, name, **store))
    file = write_routes(tmp_path, routes)
    first = await asyncio.to_thread(doctor, file, variables)
    for kind in KINDS:
        assert servers[kind.name, 3600].calls(f"kept-{kind}") == 1
        assert servers[kind.name, 3600].calls(f"lost-{kind}") == 0
    assert first.count("not tried") == len(KINDS)
    for _ in range(2):
        with keyrelay(tmp_path, {n: r for n, r in routes.items() if "kept" in n}, variables) as one:
            for name in routes:
                if "kept" in name:
                    assert (await ask(one, name))[0] == 200, name
    with keyrelay(tmp_path, routes, variables) as one:
        for name in routes:
            assert (await ask(one, name))[0] == 200, name
        output = await asyncio.to_thread(doctor, file, variables)
        assert "fail  token" not in output
        for name in routes:
            assert (await ask(one, name))[0] == 200, name
        rotating = [kind for kind in KINDS if kind.spent]
        for kind in rotating:
            assert f"lost-{kind}: the server replaced the refresh token" in one.log
    for kind in KINDS:
        assert servers[kind.name, 3600].calls(f"kept-{kind}") == 1


async def test_signed_assertions_resources_and_proofs(servers: Servers, tmp_path: Path) -> None:
    """RFC 7523, RFC 8707 and RFC 9449 at oidc-provider, with the nonce that it asks for."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from jwt.algorithms import ECAlgorithm

    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    jwk = {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "use": "sig", "alg": "ES256"}
    (oidc,) = (kind for kind in KINDS if kind.name == "oidc-provider")
    with running([(oidc, 3600)], nonce=True) as started:
        (server,) = started.values()
        jwks = {"keys": [jwk]}
        server.control("client", id="signed", method="private_key_jwt", jwks=jwks)
        server.control("client", id="shared", secret="s" * 40, method="client_secret_jwt")
        server.control("client", id="proven", secret=SECRET, dpop=True)
        signed = {
            "type": "oauth2_client_credentials",
            "url": "/token",
            "client_id": "signed",
            "client_auth": "private_key_jwt",
            "client_assertion": {
                "algorithm": "ES256",
                "key": "{pem}",
                "audience": "http://127.0.0.1",
            },
        }
        shared = {
            **credentials(server, "shared"),
            "url": "/token",
            "client_auth": "client_secret_jwt",
            "client_assertion": {"audience": "http://127.0.0.1"},
        }
        grant = server.control("grant", id="signed")["refresh_token"]
        renewed = {
            **signed,
            "type": "oauth2_refresh_token",
            "refresh_token": "{grant}",
            "store": str(tmp_path / "grant.json"),
        }
        resource = {**signed, "resource": "urn:keyrelay:test-api", "scope": SCOPE}
        proven = {
            **credentials(server, "proven"),
            "url": "/token",
            "dpop": {"key": "{pem}"},
        }
        routes = {
            "signed": route(server, signed),
            "shared": route(server, shared),
            "renewed": route(server, renewed),
            "resource": route(server, resource, vend=True),
            "proven": route(server, proven),
        }
        routes["proven"]["auth"][0]["value"] = "DPoP {token}"
        for one in routes.values():
            if "pem" in one["secrets"]:
                key = tmp_path / "key.pem"
                key.write_text(pem)
                key.chmod(0o600)
                one["secrets"]["pem"] = {"file": str(key), "multiline": True}
        variables = {"SHARED": "s" * 40, "PROVEN": SECRET, "GRANT": grant}
        browsers = {"origins": [ORIGIN]}
        with keyrelay(tmp_path, routes, variables, browsers=browsers) as relay:
            for name in routes:
                assert (await ask(relay, name))[0] == 200, (name, relay.log)
            assert (await ask(relay, "proven"))[0] == 200
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{relay.url}/-/token/resource", headers={"Origin": ORIGIN}) as vended,
            ):
                assert (await vended.json())["token"].count(".") == 2


@pytest.mark.parametrize("skew", ["+60", "-60"])
async def test_a_clock_that_is_a_minute_off(servers: Servers, tmp_path: Path, skew: str) -> None:
    """Tokens of both grants are obtained and renewed, whatever the wall clock says."""
    from .authorization_servers import faketime

    routes: dict[str, Any] = {}
    variables: dict[str, str] = faketime(skew)
    for kind in KINDS:
        server = servers[kind.name, 4]
        ahead = "ahead" if skew[0] == "+" else "behind"
        # Each grant has a client of its own: some servers allow a client one grant.
        for grant, make in (("cc", credentials), ("rt", refresh)):
            name = f"{ahead}-{grant}-{kind}"
            server.control("client", id=name, secret=SECRET)
            variables[variable(name).upper()] = SECRET
            more = {}
            if grant == "rt":
                kept = server.control("grant", id=name)["refresh_token"]
                variables[f"{variable(name)}_grant".upper()] = kept
                more = {"store": str(tmp_path / f"{name}.json")}
            routes[name] = route(server, make(server, name, **more))
    with keyrelay(tmp_path, routes, variables) as relay:
        for _ in range(5):
            await until_status(relay, routes, 200)
            await asyncio.sleep(1)
    for name in routes:
        called = name.partition("-")[2].partition("-")[2]
        assert servers[called, 4].calls(name) >= 2, name
