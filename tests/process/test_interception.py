"""What ``exec --intercept`` refuses; with real commands: tests.process.test_intercept."""

from __future__ import annotations

import pytest

from proxy.errors import KeyrelayError
from proxy.process.interception import intercepting
from tests.support.keyrelay import answering, keyrelay, raw_provider, static_route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "behind HTTPS_PROXY"),
        ({"https_proxy": "http://127.0.0.1:9"}, "behind HTTPS_PROXY"),
        ({}, "https upstream"),
    ],
)
async def test_what_cannot_be_intercepted(
    dummy_key: bytes, environment: dict[str, str], reason: str
) -> None:
    """A proxy in between would be lost, and a plain provider needs no interception."""
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay({"x": static_route(provider.url)}) as running,
    ):
        with pytest.raises(KeyrelayError, match=reason):
            async with intercepting(running.app, environment):
                raise AssertionError("nothing may be intercepted")
