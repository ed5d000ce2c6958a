"""What doctor finds, with real providers: each of them has one thing wrong with it, or nothing."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from proxy.config.loader import load_text
from proxy.diagnostics.diagnosis import Mark
from proxy.diagnostics.doctor import run_checks
from proxy.diagnostics.route_check import Result
from tests.support.certificates import Authority
from tests.support.connect_proxy import REFUSED, connect_proxy
from tests.support.keyrelay import (
    SECRET,
    RawProvider,
    Serve,
    heads,
    raw_provider,
    read_head,
    static_route,
)

CANARY = SECRET.decode()
VERIFY = "GET /v1/me"


def provider(*, status: int = 200, ahead: float | None = 0.0, token: bytes = b"") -> Serve:
    """Answers HEAD with its time, a token call with ``token``, and any other with ``status``.

    ahead  how much its clock is fast (seconds); None: it says no time
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            date = b""
            if ahead is not None:
                date = f"Date: {formatdate(time.time() + ahead, usegmt=True)}\r\n".encode()
            if head.startswith(b"HEAD "):
                assert SECRET not in head
                writer.write(b"HTTP/1.1 404 Not Found\r\n%bContent-Length: 9\r\n\r\n" % date)
            elif head.startswith(b"POST /token "):
                writer.write(token)
            else:
                kept.append(head)
                writer.write(b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, date))
            await writer.drain()

    kept: list[bytes] = []
    serve.heads = kept  # type: ignore[attr-defined]
    return serve


def calls(running: RawProvider) -> list[bytes]:
    """The heads of the calls that were neither for the time nor for a token."""
    found: list[bytes] = running.serve.heads  # type: ignore[attr-defined]
    return found


async def examined(
    routes: dict[str, Any], *, missing: Mark = "fail", **settings: Any
) -> list[Result]:
    """What is found in these routes, as they would stand in YAML. No value is ever in it."""
    results: list[Result] = []
    loaded = load_text(json.dumps({"routes": routes, **settings}), "routes.yaml")
    await run_checks(loaded, results.append, missing=missing)
    assert CANARY not in repr(results)
    return results


def marks(results: list[Result]) -> list[tuple[str, str]]:
    return [(one.what, one.mark) for one in results]


def the(results: list[Result], what: str) -> Result:
    (found,) = [one for one in results if one.what == what]
    return found


@pytest.mark.usefixtures("dummy_key")
async def test_a_route_that_works(trusted: Authority) -> None:
    """Every step is fine, and the one call that bears the credential bears it in its place."""
    tls = trusted.server("127.0.0.1", days=60)
    async with raw_provider(provider(), tls) as acme:
        results = await examined({"acme": static_route(acme.url, verify=f"{VERIFY}?x=1")})
        assert marks(results) == [
            ("secret key", "ok"),
            ("dns", "ok"),
            ("connection", "ok"),
            ("tls", "ok"),
            ("clock", "ok"),
            ("verify", "ok"),
        ]
        assert the(results, "secret key").finding.startswith("env:DUMMY_KEY, fingerprint ")
        assert the(results, "tls").finding.startswith("TLSv1.3, certificate of 127.0.0.1, valid ")
        (head,) = calls(acme)
        assert head.startswith(b"GET /v1/me?x=1 HTTP/1.1\r\n")
        assert head.count(SECRET) == 1
        assert b"\r\nX-Api-Key: %b\r\n" % SECRET in head


async def test_the_built_in_provider() -> None:
    """It needs neither a name nor a certificate."""
    assert marks(await examined({"demo": {"provider": "demo"}})) == [
        ("secret key", "ok"),
        ("connection", "ok"),
        ("verify", "ok"),
    ]


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize(
    ("status", "mark"),
    [
        (200, "ok"),
        (204, "ok"),
        (302, "warn"),
        (401, "fail"),
        (403, "fail"),
        (404, "warn"),
        (429, "warn"),
        (500, "warn"),
    ],
)
async def test_the_status_tells_of_the_credential(status: int, mark: str) -> None:
    """Only a refusal of the credential is a failure; what says nothing about it is a warning."""
    async with raw_provider(provider(status=status)) as acme:
        results = await examined(
            {"acme": static_route(acme.url, verify=VERIFY, docs="https://docs.acme.example")}
        )
        found = the(results, "verify")
        assert (found.mark, f" {status}" in found.finding) == (mark, True)
        assert ("https://docs.acme.example" in found.advice) == (mark == "fail")


@pytest.mark.usefixtures("dummy_key")
async def test_a_provider_that_is_down() -> None:
    """No listener: reported at the connection, and nothing after it is tried."""
    async with raw_provider(provider()) as acme:
        url = acme.url
    results = await examined({"acme": static_route(url, verify=VERIFY)})
    assert marks(results) == [("secret key", "ok"), ("dns", "ok"), ("connection", "fail")]
    assert "nothing listens there" in results[-1].advice


@pytest.mark.usefixtures("dummy_key")
async def test_a_provider_that_hangs_up() -> None:
    """Connections stand but nothing is answered: the clock is unknown, the call has failed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with raw_provider(serve) as acme:
        results = await examined({"acme": static_route(acme.url, verify=VERIFY)})
    assert marks(results)[-2:] == [("clock", "skip"), ("verify", "fail")]
    assert "closed the connection without a response" in the(results, "verify").finding


@pytest.mark.usefixtures("dummy_key")
async def test_a_name_that_leads_nowhere() -> None:
    """A name that cannot exist (RFC 6761 section 6.4) ends it at the look-up."""
    results = await examined({"acme": static_route("https://acme.invalid", verify=VERIFY)})
    assert marks(results) == [("secret key", "ok"), ("dns", "fail")]
    assert results[-1].finding == "acme.invalid cannot be resolved."


@pytest.mark.usefixtures("dummy_key")
async def test_an_address_that_routes_must_not_reach() -> None:
    """The policy of the server's own dialer applies, and what would allow it is named."""
    results = await examined({"acme": static_route("https://169.254.169.254", verify=VERIFY)})
    assert marks(results)[-1] == ("connection", "fail")
    assert "allow_private" in results[-1].advice


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize(
    ("name", "expired", "words"),
    [
        ("127.0.0.1", True, "certificate has expired"),
        ("other.example", False, "IP address mismatch"),
    ],
)
async def test_a_certificate_that_is_not_valid(
    trusted: Authority, name: str, expired: bool, words: str
) -> None:
    """An old one, and that of another host: the reason is said, and no request leaves."""
    tls = trusted.server(name, expired=expired)
    async with raw_provider(provider(), tls) as acme:
        results = await examined({"acme": static_route(acme.url, verify=VERIFY)})
        assert marks(results)[-1] == ("tls", "fail")
        assert words in results[-1].finding
        assert calls(acme) == []


@pytest.mark.usefixtures("dummy_key")
async def test_a_certificate_that_ends_soon(trusted: Authority) -> None:
    """Valid, but for less than two weeks: a warning with the days that are left."""
    async with raw_provider(provider(), trusted.server("127.0.0.1", days=10)) as acme:
        found = the(await examined({"acme": static_route(acme.url)}), "tls")
    assert (found.mark, found.finding.endswith(": 9 days are left")) == ("warn", True)


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize(
    ("ahead", "mark", "words"),
    [
        (20.0, "ok", "within 60 s"),
        (3600.0, "warn", " s behind the provider's"),
        (-3600.0, "warn", " s ahead of the provider's"),
        (None, "skip", "does not say what time it is"),
    ],
)
async def test_the_clock(ahead: float | None, mark: str, words: str) -> None:
    """A clock that is an hour off is a warning with the direction; signed calls would fail."""
    async with raw_provider(provider(ahead=ahead)) as acme:
        found = the(await examined({"acme": static_route(acme.url)}), "clock")
    assert found.mark == mark
    assert words in found.finding


@pytest.mark.usefixtures("dummy_key")
async def test_without_a_call_to_verify_with() -> None:
    """No request with the credential is made up: the step is left out, and says how to add one."""
    async with raw_provider(provider()) as acme:
        found = the(await examined({"acme": static_route(acme.url)}), "verify")
        assert (found.mark, calls(acme)) == ("skip", [])
    assert "Add verify:" in found.advice


@pytest.mark.usefixtures("dummy_key")
async def test_a_call_that_the_route_itself_refuses() -> None:
    """The route's own rules hold for doctor too."""
    async with raw_provider(provider()) as acme:
        route = static_route(acme.url, verify=VERIFY, allow=["POST /v1/speech"])
        found = the(await examined({"acme": route}), "verify")
        assert (found.mark, calls(acme)) == ("warn", [])
    assert "matches nothing of allow" in found.finding


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["fail", "skip"])
async def test_a_missing_secret(missing: Mark) -> None:
    """The source names the remedy, and nothing is dialled."""
    async with raw_provider(provider()) as acme:
        results = await examined({"acme": static_route(acme.url)}, missing=missing)
        assert results == [Result("acme", "secret key", missing, "set DUMMY_KEY")]
        assert acme.connections == 0


async def test_secrets_that_are_all_optional() -> None:
    """None is there, so no strategy is: that is as bad as a missing one."""
    route = static_route("http://127.0.0.1:1")
    route["secrets"] = {"key": {"env": "DUMMY_KEY", "optional": True}}
    results = await examined({"acme": route})
    assert marks(results) == [("secret key", "skip"), ("secrets", "fail")]
    assert results[0].finding == "optional: set DUMMY_KEY"
    assert marks(await examined({"acme": route}, missing="skip"))[1] == ("secrets", "skip")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"", 0o600, "the file is empty"),
        (b"dummy\nreal", 0o600, "remove line breaks"),
        (SECRET, 0o644, "chmod"),
    ],
)
async def test_what_is_wrong_with_a_file(
    tmp_path: Path, content: bytes, mode: int, words: str
) -> None:
    """In words, never with the value."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    route = static_route("http://127.0.0.1:1")
    route["secrets"] = {"key": f"file:{path}"}
    found = (await examined({"acme": route}))[0]
    assert (found.mark, words in found.finding) == ("fail", True)


async def test_the_inbound_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to no route, and without it nothing starts."""
    demo = {"demo": {"provider": "demo"}}
    results = await examined(demo, inbound_token="env:DUMMY_TOKEN")
    assert results[0] == Result("", "secret inbound_token", "fail", "set DUMMY_TOKEN")
    monkeypatch.setenv("DUMMY_TOKEN", f"{CANARY}-{'x' * 40}")
    results = await examined(demo, inbound_token="env:DUMMY_TOKEN")
    assert (results[0].route, results[0].mark) == ("", "ok")


# --- tokens -----------------------------------------------------------------------------------


def token_route(upstream: str) -> dict[str, Any]:
    return {
        "upstream": upstream,
        "verify": VERIFY,
        "secrets": {"id": "env:DUMMY_ID", "key": "env:DUMMY_KEY"},
        "auth": [
            {
                "name": "token",
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": "/token",
                    "client_id": "{id}",
                    "client_secret": "{key}",
                    "lifetime_seconds": 1800,
                },
                "http": {"header": "Authorization", "value": "Bearer {token}"},
            }
        ],
    }


def json_answer(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


@pytest.mark.usefixtures("dummy_key")
async def test_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obtained as the server does; its lifetime is shown, and it serves the verifying call."""
    monkeypatch.setenv("DUMMY_ID", "dummy-id")
    answer = json_answer(200, {"access_token": "dummy-token", "expires_in": 600})
    async with raw_provider(provider(token=answer)) as acme:
        results = await examined({"acme": token_route(acme.url)})
        assert marks(results)[-2:] == [("token", "ok"), ("verify", "ok")]
        # Its last moments are not used.
        assert the(results, "token").finding == "token: obtained, good for 590 s"
        assert b"\r\nAuthorization: Bearer dummy-token\r\n" in calls(acme)[0]
    assert "dummy-token" not in repr(results)


@pytest.mark.usefixtures("dummy_key")
async def test_a_token_endpoint_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is said in our words, and no call is made without a token."""
    monkeypatch.setenv("DUMMY_ID", "dummy-id")
    refusal = {"error": "invalid_client", "error_description": f"unknown: {CANARY}"}
    async with raw_provider(provider(token=json_answer(401, refusal))) as acme:
        results = await examined({"acme": token_route(acme.url)})
        assert marks(results)[-1] == ("token", "fail")
        assert "answered 401, invalid_client" in results[-1].finding
        assert calls(acme) == []


def refresh_route(upstream: str, **token: Any) -> dict[str, Any]:
    """The same with a refresh token, which comes from DUMMY_ID."""
    route = token_route(upstream)
    route["auth"][0]["token"] |= {
        "type": "oauth2_refresh_token",
        "client_id": "dummy",
        "refresh_token": "{id}",
        **token,
    }
    return route


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize(
    ("credential", "mark", "words"),
    [
        (None, "skip", "not tried"),
        ({}, "skip", "not tried"),
        ({"age_seconds": 5}, "ok", "keyrelay runs with one"),
        ({"last_failure": "invalid_grant"}, "skip", "has none: invalid_grant"),
    ],
)
async def test_a_refresh_token_without_a_store(
    monkeypatch: pytest.MonkeyPatch,
    credential: dict[str, Any] | None,
    mark: str,
    words: str,
) -> None:
    """Not exchanged, since the successor would be lost: the running keyrelay's state is shown."""
    monkeypatch.setenv("DUMMY_ID", "dummy-refresh")
    answer = json_answer(200, {"access_token": "dummy-token", "expires_in": 600})
    strategies = [{"name": "token", "credential": credential}]
    running = {} if credential is None else {"acme": {"name": "acme", "strategies": strategies}}
    async with raw_provider(provider(token=answer)) as acme:
        loaded = load_text(json.dumps({"routes": {"acme": refresh_route(acme.url)}}), "routes.yaml")
        results: list[Result] = []
        await run_checks(loaded, results.append, running=lambda: running)
        assert (calls(acme), b"/token" in bytes(acme.received)) == ([], False)
        # The date and no more.
        assert acme.connections == 1
    found = the(results, "token")
    assert (found.mark, words in found.finding) == (mark, True)
    assert ("store:" in found.advice) is (mark == "skip")
    assert not [one for one in results if one.what == "verify"]


@pytest.mark.usefixtures("dummy_key")
async def test_a_refresh_token_with_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exchanged, since the successor is kept; a second run uses the access token of the first."""
    monkeypatch.setenv("DUMMY_ID", "dummy-refresh")
    document = {"access_token": "dummy-token", "expires_in": 600, "refresh_token": "dummy-next"}
    store = tmp_path / "store.json"
    async with raw_provider(provider(token=json_answer(200, document))) as acme:
        routes = {"acme": refresh_route(acme.url, store=str(store))}
        assert the(await examined(routes), "token").mark == "ok"
        assert "dummy-next" in store.read_text()
        acme.serve = provider(token=json_answer(400, {"error": "invalid_grant"}))
        results = await examined(routes)
    assert (the(results, "token").mark, the(results, "verify").mark) == ("ok", "ok")


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize(("granted", "warned"), [("read write", False), ("read", True)])
async def test_scopes_that_were_not_granted(
    monkeypatch: pytest.MonkeyPatch, granted: str, warned: bool
) -> None:
    """A token with fewer scopes than requested is obtained, with a warning that names the scope."""
    monkeypatch.setenv("DUMMY_ID", "dummy-id")
    document = {"access_token": "dummy-token", "expires_in": 600, "scope": granted}
    async with raw_provider(provider(token=json_answer(200, document))) as acme:
        route = token_route(acme.url)
        route["auth"][0]["token"]["scope"] = "read write"
        results = await examined({"acme": route})
    warnings = [one.finding for one in results if (one.what, one.mark) == ("token", "warn")]
    assert [("write" in one) for one in warnings] == [True] * warned
    assert ("token", "ok") in marks(results)


@pytest.mark.usefixtures("dummy_key")
async def test_the_advice_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's words, redacted, and the advice for its error code."""
    monkeypatch.setenv("DUMMY_ID", "dummy-id")
    refusal = {"error": "invalid_scope", "error_description": f"no such scope, {CANARY}"}
    async with raw_provider(provider(token=json_answer(400, refusal))) as acme:
        found = the(await examined({"acme": token_route(acme.url)}), "token")
    assert (found.mark, "no such scope" in found.finding) == ("fail", True)
    assert found.advice.startswith("Check scope: of the token.")


# --- several routes ---------------------------------------------------------------------------


@pytest.mark.usefixtures("dummy_key")
async def test_routes_are_examined_side_by_side_and_told_in_order() -> None:
    """The first waits for the second's provider to be asked; still it is told first."""
    asked = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked.wait()
        await provider()(reader, writer)

    async def tells(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await provider()(reader, writer)

    async with raw_provider(waits) as first, raw_provider(tells) as second:
        results = await examined(
            {
                "b": static_route(first.url, verify=VERIFY),
                "a": static_route(second.url, verify=VERIFY),
            }
        )
    assert [one.route for one in results] == ["b"] * 6 + ["a"] * 6
    assert {one.mark for one in results} == {"ok", "skip"}


@pytest.mark.usefixtures("dummy_key")
async def test_each_result_is_told_when_it_is_known() -> None:
    """While the provider is still silent, what was found before is on the screen."""
    told: list[Result] = []
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        assert [one.what for one in told] == ["secret key", "dns", "connection", "tls"]
        silent.set()
        await provider()(reader, writer)

    async with raw_provider(serve) as acme:
        document = {"routes": {"acme": static_route(acme.url)}}
        task = asyncio.get_running_loop().create_task(
            run_checks(load_text(json.dumps(document), "routes.yaml"), told.append)
        )
        async with asyncio.timeout(10):
            await silent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.usefixtures("dummy_key")
async def test_the_way_through_a_proxy(trusted: Authority) -> None:
    """Through an egress proxy the name is the proxy's to resolve; the rest is checked as ever."""
    tls = trusted.server("api.example", days=60)
    async with (
        raw_provider(provider(), tls) as acme,
        connect_proxy({"api.example": acme.port}) as proxy,
    ):
        route = static_route("https://api.example", verify=VERIFY)
        results = await examined({"acme": route}, egress_proxy=proxy.url)
    assert marks(results) == [
        ("secret key", "ok"),
        ("dns", "skip"),
        ("connection", "ok"),
        ("tls", "ok"),
        ("clock", "ok"),
        ("verify", "ok"),
    ]
    assert f"through the egress proxy {proxy.url}" in the(results, "connection").finding


@pytest.mark.usefixtures("dummy_key")
async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal of the proxy is named, with what to do, and no unused proxy beside it."""
    async with connect_proxy({}, response=REFUSED % 407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        results = await examined(
            {"acme": static_route("https://api.example")}, egress_proxy="env:HTTPS_PROXY"
        )
    assert marks(results)[-1] == ("connection", "fail")
    assert "wants a user name and password (407)" in the(results, "connection").finding
    assert "username: and password:" in the(results, "connection").advice


@pytest.mark.usefixtures("dummy_key")
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("upstream", ["https://api.invalid", "https://192.0.2.1"])
async def test_a_proxy_of_the_environment_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, name: str, upstream: str
) -> None:
    """Where a name does not resolve or nothing connects, an unused proxy is pointed out."""
    monkeypatch.setenv(name, f"http://dummy:{CANARY}@proxy.example:3128")
    route = static_route(upstream, connect_timeout_seconds=0.2)
    found = the(await examined({"acme": route}), "egress_proxy")
    assert (found.mark, found.finding) == ("warn", f"{name} is set and not used")
    assert f"egress_proxy: env:{name}" in found.advice


@pytest.mark.usefixtures("dummy_key")
async def test_a_proxy_that_is_not_set() -> None:
    """A reference to nothing is a failure of the way, not of the key."""
    route = static_route("https://api.example")
    results = await examined({"acme": route}, egress_proxy="env:DUMMY_PROXY")
    assert marks(results) == [("secret key", "ok"), ("egress_proxy", "fail")]
    assert the(results, "egress_proxy").finding == "set DUMMY_PROXY (for egress_proxy)"


async def test_of_values_in_rotation_the_order_and_the_one_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By fingerprint, never by value; the running keyrelay's word, where there is one."""
    monkeypatch.setenv("DUMMY_NEW", f"{CANARY}-new")
    monkeypatch.setenv("DUMMY_OLD", f"{CANARY}-old")
    secrets = {"key": ["env:DUMMY_NEW", "env:DUMMY_OLD"]}
    document = {"routes": {"it": {"provider": "demo", "secrets": secrets}}}
    loaded = load_text(json.dumps(document), "routes.yaml")
    old = {"name": "key", "reference": "env:DUMMY_OLD", "fingerprint": "99999999"}
    new = {"name": "key", "reference": "env:DUMMY_NEW", "fingerprint": "11111111"}
    running = {"it": {"secrets": [{**new, "current": False}, {**old, "current": True}]}}
    for state, more in (
        ({}, []),
        (
            running,
            ["the running keyrelay uses env:DUMMY_OLD, fingerprint 99999999"],
        ),
    ):
        results: list[Result] = []
        await run_checks(loaded, results.append, running=lambda state=state: state)  # type: ignore[misc]
        assert CANARY not in repr(results)
        found = [one.finding for one in results if one.what == "secret key"]
        assert found[0].startswith("1 of 2: env:DUMMY_NEW, fingerprint ")
        assert found[1].startswith("2 of 2: env:DUMMY_OLD, fingerprint ")
        assert found[2:] == more
