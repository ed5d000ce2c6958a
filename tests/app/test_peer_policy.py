"""The check of connecting users in force; whom it refuses: tests.server.test_peer_credentials."""

from __future__ import annotations

from proxy.app.peer_policy import PeerPolicy
from proxy.config.settings import Settings
from proxy.server.peer_credentials import Peers, lookup_supported


def settings(peer_uid: str) -> Settings:
    return Settings.model_validate({"routes": {"demo": {"provider": "demo"}}, "peer_uid": peer_uid})


def test_the_setting_decides_which_check_there_is() -> None:
    """Warnings need somebody to read them and a system that knows users; without, none."""
    policy = PeerPolicy((), warn=lambda _line: None)
    assert policy.prepare(settings("off")) is None
    assert isinstance(policy.prepare(settings("enforce")), Peers)
    assert isinstance(policy.prepare(settings("warn")), Peers) is lookup_supported()
    assert PeerPolicy((), warn=None).prepare(settings("warn")) is None


def test_a_check_stays_while_its_setting_does() -> None:
    """A reload without a change keeps it, with what it knows of users it has warned of."""
    policy = PeerPolicy((), warn=lambda _line: None)
    enforced = policy.prepare(settings("enforce"))
    policy.put_in_force(settings("enforce"), enforced)
    assert policy.prepare(settings("enforce")) is enforced
    policy.put_in_force(settings("off"), policy.prepare(settings("off")))
    assert policy.prepare(settings("off")) is None
