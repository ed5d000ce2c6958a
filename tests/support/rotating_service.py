"""A provider with its token endpoint: revokes tokens at will, and a whole grant if a refresh token
comes a second time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

FIRST_REFRESH_TOKEN = "dummy-refresh-token-0"
VARIABLES = {
    "DUMMY_ID": "dummy-client",
    "DUMMY_SECRET": "dummy-client-secret",
    "DUMMY_REFRESH": FIRST_REFRESH_TOKEN,
}
"""The environment variables that ``routes`` takes secrets from."""


def routes(origin: str) -> dict[str, Any]:
    """Routes to the service: ``plain`` by client credentials, ``rotating`` by a refresh token."""
    client = {"client_id": "{id}", "client_secret": "{secret}"}
    tokens = {
        "plain": {"type": "oauth2_client_credentials", **client},
        "rotating": {
            "type": "oauth2_refresh_token",
            "refresh_token": "{refresh}",
            **client,
        },
    }
    secrets = {"id": "env:DUMMY_ID", "secret": "env:DUMMY_SECRET", "refresh": "env:DUMMY_REFRESH"}
    return {
        name: {
            "upstream": origin,
            "spares": 0,
            "secrets": secrets,
            "auth": [
                {
                    "token": {**token, "url": f"{origin}/token"},
                    "header": "Authorization",
                    "value": "Bearer {token}",
                }
            ],
        }
        for name, token in tokens.items()
    }


class RotatingService:
    """An API that takes the tokens of its endpoint.

    calls      token requests so far, by the route of ``routes``
    redeemed   refresh tokens in the order in which they came
    reused     how many of them had come before
    gate       token requests are answered while it is set
    """

    def __init__(self) -> None:
        self.origin = ""
        self.lifetime = 3600.0
        self.calls: Counter[str] = Counter()
        self.redeemed: list[str] = []
        self.reused = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._valid: dict[str, float] = {}
        self._refresh_token = FIRST_REFRESH_TOKEN

    def revoke(self) -> None:
        """Take none of the tokens any more that were issued so far."""
        self._valid.clear()

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        route = "rotating" if form["grant_type"] == "refresh_token" else "plain"
        self.calls[route] += 1
        number = self.calls.total()
        await self.gate.wait()
        token = f"dummy-access-token-{number}"
        answer = {"access_token": token, "expires_in": self.lifetime}
        if route == "rotating":
            spent = str(form["refresh_token"])
            self.reused += spent in self.redeemed
            self.redeemed.append(spent)
            if self.reused or spent != self._refresh_token:
                return web.json_response({"error": "invalid_grant"}, status=400)
            self._refresh_token = f"dummy-refresh-token-{number}"
            answer["refresh_token"] = self._refresh_token
        now = asyncio.get_running_loop().time()
        self._valid[token] = now + self.lifetime
        return web.json_response(answer)

    async def api(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        now = asyncio.get_running_loop().time()
        return web.Response(status=200 if self._valid.get(token, 0.0) > now else 401)


@asynccontextmanager
async def rotating_service() -> AsyncIterator[RotatingService]:
    service = RotatingService()
    app = web.Application()
    app.router.add_post("/token", service.token)
    app.router.add_get("/api", service.api)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        service.gate.set()
        await runner.cleanup()
