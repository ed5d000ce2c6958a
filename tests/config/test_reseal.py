from __future__ import annotations

import datetime
import re
import stat
from pathlib import Path

import pytest

from proxy.config.loader import load
from proxy.config.reseal import Resealed, reseal
from proxy.errors import ConfigError, KeyrelayError
from proxy.secrets.envelope import seal_binding
from proxy.secrets.resolver import resolve
from proxy.secrets.sealing import Keys, SealingKey, parse_keys

DAY = datetime.date(2026, 11, 21)
OLD, NEW, STRANGER = (SealingKey.generate(DAY) for _ in range(3))
KEYS = parse_keys(OLD.line() + NEW.line(), "keys")


def sealed(route: str, slot: str, key: SealingKey = OLD) -> str:
    """A value for a route of ``ROUTES``, to which its place is known."""
    upstreams = {"hume": "https://api.hume.ai", "acme": "https://api.acme.dev/v2"}
    value = f"dummy-{route}-{slot}".encode()
    return str(key.public.seal(value, seal_binding(route, upstreams[route]), slot))


HUME, SECRET, ACME, ROTATED, PLAIN, ANCHORED = (
    sealed("hume", "api_key"),
    sealed("hume", "secret_key"),
    sealed("acme", "key"),
    sealed("acme", "key"),
    sealed("acme", "folded"),
    sealed("acme", "anchored"),
)
# As odd as YAML allows: every way to write a text, a comment that looks like a value, line ends.
ROUTES = f"""# The keys of the team:  sealed:v1:in-a-comment
routes:
  "hume" :   {{provider: hume, secrets: {{api_key:   '{HUME}'  , "secret_key": {{sealed:
     "{SECRET.removeprefix("sealed:")}", optional: true}} }}}}   # behind\t
  acme:
      upstream: https://api.acme.dev/v2
      # {HUME}
      secrets:
        key: [{ACME}, env:ACME_KEY,
              "{ROTATED}"]
        folded: >-
          {PLAIN}
        anchored: &here {{references: [ &there {ANCHORED} ]}}
        plain: env:ACME_PLAIN
      auth: [{{header: X-Api-Key, value: "{{key}}{{folded}}{{anchored}}{{plain}}"}}]
# The end, without a line end"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A routes file of this user's."""
    path = tmp_path / "routes.yaml"
    path.write_bytes(ROUTES.encode())
    path.chmod(0o600)
    return path


def without_values(text: str) -> str:
    """What of a routes file is not sealed text."""
    return re.sub(r"v1:[0-9a-f]{8}:[\w-]{16}:[\w-]+", "v1:…", text)


def values(path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[bytes]:
    """What all sealed secrets of a file open to, with these keys alone."""
    held = folder / "keys"
    held.unlink(missing_ok=True)
    held.write_text("".join(key.line() for key in keys.keys))
    held.chmod(0o600)
    monkeypatch.setenv("KEYRELAY_KEYS", str(held))
    found = []
    for name, route in load(path).routes.items():
        assert route.upstream is not None
        for slot, secret in route.secrets.items():
            if any(one.startswith("sealed:") for one in secret.references):
                found.append(resolve(slot, secret, seal_binding(name, route.upstream)).reveal())
    return found


def test_all_values_get_the_new_key_and_nothing_else_changes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a value is written, its text is replaced and every other byte stays."""
    assert reseal(file, KEYS, NEW.public) == Resealed(changed=6, kept=0)
    text = file.read_bytes().decode()
    assert without_values(text) == without_values(ROUTES)
    assert text.count(f"v1:{NEW.key_id}:") == 6
    assert f"      # {HUME}\n" in text
    assert text.count(OLD.key_id) == 1
    assert values(file, Keys((NEW,), "keys"), monkeypatch, file.parent) == [
        b"dummy-hume-api_key",
        b"dummy-hume-secret_key",
        b"dummy-acme-key",
        b"dummy-acme-folded",
        b"dummy-acme-anchored",
    ]
    assert {one.name for one in file.parent.iterdir()} == {"keys", "routes.yaml"}


def test_a_second_time_there_is_nothing_to_do(file: Path) -> None:
    """What has the key already stays, byte for byte."""
    reseal(file, KEYS, NEW.public)
    before = file.read_bytes(), file.stat().st_ino
    assert reseal(file, KEYS, NEW.public) == Resealed(changed=0, kept=6)
    assert (file.read_bytes(), file.stat().st_ino) == before


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_line_ends_and_byte_order_marks_stay(tmp_path: Path, mark: str, end: str) -> None:
    """Files of other systems stay such; letters of other languages are no obstacle."""
    lines = ["# Schlüssel 鍵 🔑", "routes:", "  hume:", "    provider: hume", "    secrets:"]
    before = end.join([*lines, f"      api_key: {HUME}  # 鍵", ""])
    path = tmp_path / "routes.yaml"
    path.write_bytes((mark + before).encode())
    assert reseal(path, KEYS, NEW.public).changed == 1
    after = path.read_bytes().decode()
    assert without_values(after) == without_values(mark + before)
    assert HUME not in after


def test_mode_and_links_stay(file: Path, tmp_path: Path) -> None:
    """A link stays a link; the file it leads to keeps its mode."""
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    file.chmod(0o640)
    reseal(link, KEYS, NEW.public)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert NEW.key_id in file.read_text()


def test_all_or_nothing(file: Path) -> None:
    """Each value that does not open is listed with its place, and nothing is written."""
    text = ROUTES.replace(ACME, sealed("acme", "key", STRANGER)).replace(
        SECRET.removeprefix("sealed:"), HUME.removeprefix("sealed:")
    )
    file.write_text(text)
    before = file.stat()
    with pytest.raises(ConfigError) as caught:
        reseal(file, KEYS, NEW.public)
    first, second = caught.value.findings
    assert (first.line, second.line) == (4, 9)
    assert first.message == 'the secret "secret_key" of "hume" cannot be resealed'
    assert "for another secret of the route" in first.advice
    assert f"add the key {STRANGER.key_id}" in second.advice
    assert "dummy" not in str(caught.value)
    assert file.read_text() == text
    assert file.stat().st_ino == before.st_ino


def test_a_value_that_yaml_puts_together(tmp_path: Path) -> None:
    """A text that does not stand there in one piece is not guessed at."""
    path = tmp_path / "routes.yaml"
    escaped = HUME.replace("sealed:v1", "sealed\\x3av1")
    path.write_text(f'routes: {{hume: {{provider: hume, secrets: {{api_key: "{escaped}"}}}}}}')
    with pytest.raises(ConfigError, match="write the sealed value in one line"):
        reseal(path, KEYS, NEW.public)


def test_a_value_used_in_two_places(tmp_path: Path) -> None:
    """An alias into another route does not open there, so the file is left alone."""
    path = tmp_path / "routes.yaml"
    path.write_text(
        f"routes:\n  hume: {{provider: hume, secrets: {{api_key: &key {HUME}}}}}\n"
        "  other: {provider: hume, secrets: {api_key: *key}}\n"
    )
    with pytest.raises(ConfigError, match="for another route"):
        reseal(path, KEYS, NEW.public)


def test_what_belongs_to_no_route(tmp_path: Path) -> None:
    """The inbound token has no origin to be sealed for."""
    path = tmp_path / "routes.yaml"
    path.write_text(f"inbound_token: {HUME}\nroutes: {{hume: {{provider: hume}}}}\n")
    with pytest.raises(ConfigError, match="only secrets of routes can be sealed"):
        reseal(path, KEYS, NEW.public)


def test_a_file_with_findings_or_without_values(tmp_path: Path) -> None:
    """What is wrong is told as ``check`` does; where nothing is sealed nothing is done."""
    path = tmp_path / "routes.yaml"
    path.write_text(f"routes: {{hume: {{provider: hume, secrets: {{api_key: {HUME[:-3]}}}}}}}")
    with pytest.raises(ConfigError, match="truncated"):
        reseal(path, KEYS, NEW.public)
    path.write_text("routes: {hume: {provider: hume}}")
    assert reseal(path, KEYS, NEW.public) == Resealed(0, 0)
    with pytest.raises(ConfigError):
        reseal(tmp_path / "none", KEYS, NEW.public)


def test_a_file_that_cannot_be_replaced(file: Path) -> None:
    """What could not be written leaves nothing behind."""
    link = file.parent / "below" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to(file)
    name = "x" * 250 + ".yaml"  # its temporary neighbour's name is too long
    long = file.rename(file.with_name(name))
    link.unlink()
    link.symlink_to(long)
    with pytest.raises(KeyrelayError, match=r"cannot write .*: File name too long"):
        reseal(link, KEYS, NEW.public)
    assert long.read_text() == ROUTES
    assert {one.name for one in file.parent.iterdir()} == {name, "below"}
