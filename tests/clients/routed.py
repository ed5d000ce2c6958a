"""Keyrelay with one shipped preset in front of an emulated provider, for an SDK to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.emulators import Emulator, Recorded, carriers
from tests.emulators.carriers import LEFTOVER, Carrier
from tests.support.keyrelay import Running, preset_keyrelay

DUMMY = f"{LEFTOVER}-key"
"""The only key that an SDK is given here; the emulators refuse whatever still holds it."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A route, its provider, and the credential that the provider has to get.

    ``websocket`` is that of a handshake. The real key is in a file: the SDKs look into the
    environment, where there must be nothing for them.
    """

    running: Running
    provider: Emulator
    http: Carrier
    websocket: Carrier

    @property
    def url(self) -> str:
        """The base URL for an SDK that keeps a path."""
        return f"{self.running.url}/{self.running.app.routes[0].name}"

    @property
    def own_url(self) -> str:
        """The base URL for an SDK that keeps only scheme, host and port."""
        return self.running.app.listeners[1].url

    def arrived(self, *targets: str) -> list[Recorded]:
        """What reached the provider: exactly ``targets``, as method and raw target.

        Each with the one right credential and no other, and nothing that the provider refused.
        """
        requests = self.provider.requests
        assert self.provider.faults == []
        assert [f"{one.method} {one.target}" for one in requests] == [
            target.replace("{credential}", self.websocket.value) for target in targets
        ]
        for one in requests:
            found = carriers.find(one.target, one.headers, self.provider.harmless_query)
            assert found == [self.websocket if one.websocket else self.http]
            assert carriers.leftovers(one.target, one.headers) == []
        return requests


@asynccontextmanager
async def routed(
    preset: str,
    provider: Emulator,
    folder: Path,
    *,
    http: Carrier,
    websocket: Carrier | None = None,
    key: str = "",
    route: Mapping[str, Any] | None = None,
) -> AsyncIterator[Routed]:
    """Run the provider, and keyrelay with one route to it, on ``preset`` unless ``route`` is given.

    key  as it is written in the secret's file; the value of the credential if not given
    """
    file = folder / "key"
    file.write_text(key or http.value)
    file.chmod(0o600)
    said: dict[str, Any] = {"provider": preset} if route is None else dict(route)
    said |= {
        "secrets": {"api_key": f"file:{file}"},
        "listen": "127.0.0.1:0",
    }
    async with provider:
        said["upstream"] = provider.origin
        async with preset_keyrelay({preset: said}) as running:
            yield Routed(running, provider, http, websocket or http)
