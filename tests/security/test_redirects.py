"""Rows T27 and T52: where URLs in a provider's response lead a client that follows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from tests.security.scene import (
    GET,
    SOCKET,
    Provider,
    Stage,
    answer,
    line,
    problem,
    routes,
    stage,
    status,
    values,
)
from tests.support.certificates import Authority
from tests.support.keyrelay import both_loops, exchange, keyrelay, raw_provider

pytestmark = both_loops

# Written by a provider that wants the client to send its request to the route ``minted``.
ELSEWHERE = [
    "../../minted/x",
    "../../../minted/x",
    "%2e%2e/.%2E/minted/x",
    "..\\..\\minted\\x",
    "/v1/../../minted/x",
    "/../minted/x",
    "{provider}/v1/../../minted/x",
    "../../-/token/minted",
    "./../../x/../minted/x",
]
# The same by another origin of this process.
OWN = [
    "//127.0.0.1:{port}/minted/x",
    "http://localhost:{port}/minted/x",
    "http://LOCALHOST.:{port}/minted/x",
    "http://minted.localhost:{port}/x",
    "http://minted.localhost/x",
    "http://127.1:{port}/minted/x",
    "http://0x7f000001:{port}/minted/x",
    "http://0.0.0.0:{port}/minted/x",
    "http://[::1]:{port}/minted/x",
    "http://[::ffff:127.0.0.1]:{port}/minted/x",
    "http://user@127.0.0.1:{port}/minted/x",
    "http://%6cocalhost:{port}/minted/x",
    "ws://127.0.0.1:{port}/minted/x",
    "\\\\127.0.0.1:{port}\\minted",
    "http:\\\\127.0.0.1:{port}\\minted",
    "http:minted/x",
    "http:/minted/x",
    "///127.0.0.1:{port}/minted/x",
]
FIELDS = {
    "Location": "{}",
    "Content-Location": "{}",
    "Link": '</v1/first>; rel="first", <{}>; rel="next"',
    "Refresh": "0; url={}",
    "Operation-Location": "{}",
    "Azure-AsyncOperation": "{}",
    "X-Goog-Upload-URL": "{}",
}


def followed(one: Stage, reference: str) -> URL:
    """Where a client goes that requested GET and resolves the reference."""
    return URL(f"http://127.0.0.1:{one.port}/api/x").join(URL(reference))


@pytest.mark.parametrize("code", [302, 307])
@pytest.mark.parametrize("reference", ELSEWHERE)
async def test_t52_into_another_route(open_stage: Stage, reference: str, code: int) -> None:
    """What climbs out of the route is mounted inside it, as the provider's own path."""
    text = reference.format(provider=open_stage.place.url)
    open_stage.provider.answer = answer("", f"Location: {text}", status=f"{code} Elsewhere")
    got = await open_stage.ask(GET)
    assert status(got) == code
    (location,) = values(got, "Location")
    assert "\\" not in location
    assert followed(open_stage, location).path.startswith("/api/")


@pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
@pytest.mark.parametrize("reference", OWN)
async def test_t52_to_this_process_by_another_way(
    open_stage: Stage, reference: str, websocket: bool
) -> None:
    """Refused, with the reason; the provider's response does not reach the client."""
    text = reference.format(port=open_stage.port)
    open_stage.provider.answer = answer("", f"Location: {text}", status="307 Elsewhere")
    got = await open_stage.ask(SOCKET if websocket else GET)
    assert (status(got), problem(got)) == (502, "provider-failed")
    assert b"leads to keyrelay itself" in got


@pytest.mark.parametrize("field", FIELDS)
async def test_t52_in_every_field_with_urls(open_stage: Stage, field: str) -> None:
    """The fields that clients follow are treated alike, also those of success."""
    own = FIELDS[field].format(f"http://127.0.0.1:{open_stage.port}/minted/x")
    open_stage.provider.answer = answer("{}", f"{field}: {own}")
    assert status(await open_stage.ask(GET)) == 502
    climbing = FIELDS[field].format("../../minted/x")
    open_stage.provider.answer = answer("{}", f"{field}: {climbing}")
    got = await open_stage.ask(GET)
    assert "/api/minted/x" in values(got, field)[0]
    foreign = FIELDS[field].format("https://other.test/x?a=1")
    open_stage.provider.answer = answer("{}", f"{field}: {foreign}")
    assert "https://other.test/x?a=1" in values(await open_stage.ask(GET), field)[0]


@pytest.mark.parametrize("field", [*FIELDS, "X-Next-Page-Url"])
async def test_t52_the_provider_s_own_urls_lead_to_the_route(secrets: None, field: str) -> None:
    """Absolute, because SDKs use them without resolving them; a route can name further fields."""
    async with stage(api={"url_fields": ["x-next-page-url"]}) as one:
        given = FIELDS.get(field, "{}").format(f"{one.place.url}/v1/next?page=2")
        one.provider.answer = answer("{}", f"{field}: {given}", "X-Other-Url: /v1/next")
        got = await one.ask(GET)
    (value,) = values(got, field)
    assert "http://localhost/api/next?page=2" in value
    assert one.place.url not in value
    assert values(got, "X-Other-Url") == ["/v1/next"]


async def test_t27_http_for_the_provider_s_https_host(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL counts as the route's: the next request goes over https again, never in clear."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    provider = Provider()
    async with raw_provider(provider.serve, authority.server("localhost")) as place:
        route = routes(f"https://localhost:{place.port}", "http://127.0.0.1:9")["api"]
        async with keyrelay({"api": route}) as running:
            provider.answer = answer(
                "", f"Location: http://localhost:{place.port}/v1/next?a=1", status="302 Found"
            )
            got = await exchange(running.port, GET + b"\r\n")
            assert values(got, "Location") == ["/api/next?a=1"]
            provider.answer = answer()
            again = GET.replace(b"/api/x", b"/api/next?a=1") + b"\r\n"
            assert status(await exchange(running.port, again)) == 200
    assert [line(head) for head in provider.heads] == [
        "GET /v1/x HTTP/1.1",
        "GET /v1/next?a=1 HTTP/1.1",
    ]
