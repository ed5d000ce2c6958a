"""The app as the admin listener asks for it: the one process that there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from proxy.admin.server import Operating
from proxy.app.reload import Reloader
from proxy.config.settings import Settings
from proxy.errors import ConfigError, Finding
from tests.support.keyrelay import exchange, keyrelay, static_route


async def test_it_tells_of_the_app_that_runs(dummy_key: bytes) -> None:
    """One snapshot, the app's own journal and watchers, and what a reload came to."""
    async with keyrelay({"api": static_route("https://api.example.com")}) as running:
        app = running.app
        current = app.settings
        answers: Iterator[Settings | ConfigError] = iter(
            [
                current,
                current.model_copy(update={"keepalive_seconds": 7}),
                ConfigError([Finding("routes.yaml", 1, 2, "no")]),
            ]
        )

        def load() -> Settings:
            answer = next(answers)
            if isinstance(answer, ConfigError):
                raise answer
            return answer

        def files(_settings: Settings) -> list[Path]:
            return []

        said: list[str] = []
        operating = Operating(app, Reloader(app, load, files, said.append))
        assert operating.exchange_log is app.exchange_log
        assert operating.inspector_hub is app.inspector_hub
        await exchange(running.port, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        [snapshot] = await operating.snapshots()
        assert snapshot["pids"] == [os.getpid()]
        assert snapshot["tally"]["-"]["requests"] == {"GET": {"404": 1}}
        assert (await operating.reload()).changed == ()
        assert (await operating.reload()).changed == ("general settings are different",)
        assert (await operating.reload()).findings == ("routes.yaml:1:2: no",)
        [snapshot] = await operating.snapshots()
        assert (snapshot["reloads"]["count"], snapshot["reloads"]["failed"]) == (2, 1)
        assert snapshot["reloads"]["last"]["findings"] == ("routes.yaml:1:2: no",)
