"""What a worker is handed is what the supervisor has."""

from __future__ import annotations

import json

import pytest

from proxy.config import loader, scaffold
from proxy.config.presets import presets
from proxy.config.settings import Settings
from proxy.http.address import ListenAddress
from proxy.process.worker_config import WorkerConfig, share_of
from proxy.process.worker_listeners import ListenerOffer
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.secret import Secret


def there_and_back(worker_config: WorkerConfig) -> WorkerConfig:
    return WorkerConfig.from_json(json.loads(json.dumps(worker_config.as_json())))


def test_every_setting_arrives() -> None:
    """All presets, the shipped routes and a file with much in it are the same at the other end."""
    full = """
        listen: [127.0.0.1:0, "[::1]:0"]
        inbound_token: {exec: print-token, ttl_seconds: 60}
        peer_uid: enforce
        browsers: {origins: ["http://localhost:5173"]}
        routes:
          acme:
            upstream: https://api.acme.test/v2
            secrets: {key: [env:NEW, env:OLD], id: {file: /run/id, optional: true}}
            concurrency: 3
            rate: 60/minute
            allow: [GET /a/**]
            auth:
              - token: {type: request, url: /t, json: {a: ["{key}", {b: 1}]}, token: a.b}
                paths: [/x/**]
                http: {header: X-Key, value: "{token}"}
              - {header: X-Key, value: "{key}"}
    """
    named = [name for name, preset in presets().items() if preset.upstream]
    for settings in (
        loader.load_text(full, "routes.yaml"),
        loader.load(scaffold.shipped_routes(), ours=True),
        loader.from_providers(named).model_copy(update={"listen": ("127.0.0.1:1",)}),
    ):
        got = there_and_back(WorkerConfig(settings, {}, None, ())).settings
        assert got == settings
        assert [one.model_dump_json() for one in got.routes.values()] == [
            one.model_dump_json() for one in settings.routes.values()
        ]


def test_secrets_and_sockets_arrive() -> None:
    """Every value of every secret, what is lacking, and where sockets are."""
    found = ResolvedSecrets(
        {"key": (Secret("key", b"\xff1", "env:A"), Secret("key", b"2"))}, {"id": "set ID"}
    )
    sockets = (
        ListenerOffer("127.0.0.1:0", None, ListenAddress("127.0.0.1", 4711, None)),
        ListenerOffer("unix:/run/x", "acme", ListenAddress(None, 0, "/run/x")),
    )
    own = (ListenAddress("127.0.0.1", 8081, None),)
    given = WorkerConfig(Settings(), {"acme": found}, Secret("t", b"dummy-inbound"), sockets, own)
    got = there_and_back(given)
    assert got.found["acme"].same(found)
    assert got.inbound is not None
    assert got.inbound.reveal() == b"dummy-inbound"
    assert (got.offers, got.own) == (sockets, own)
    assert "dummy-inbound" not in repr(given)


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_shares_add_up(workers: int) -> None:
    """What is bounded for the host is bounded in all, unless that would leave a worker nothing."""
    settings = Settings.model_validate(
        {
            "max_connections": 100,
            "routes": {
                "a": {"concurrency": 10, "rate": "60/minute"},
                "b": {"concurrency": 1},
                "c": {},
            },
        }
    )
    shares = [share_of(settings, index, workers) for index in range(workers)]
    assert sum(one.max_connections for one in shares) == 100
    assert sum(one.routes["a"].concurrency or 0 for one in shares) == 10
    rates = [one.routes["a"].rate or "" for one in shares]
    assert sum(int(rate.removesuffix("/minute")) for rate in rates) == 60
    assert [one.routes["b"].concurrency for one in shares] == [1] * workers
    assert {(one.routes["c"].concurrency, one.routes["c"].rate) for one in shares} == {(None, None)}
