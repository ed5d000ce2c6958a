"""Files that other users could read or change: which are refused, and what each sentence says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config.loader import load
from proxy.config.scaffold import shipped_routes
from proxy.config.secret import SecretSettings
from proxy.errors import ConfigError, SecretUnavailable
from proxy.secrets.file_permissions import secret_exposed, writable_by_others
from proxy.secrets.resolver import resolve
from tests.support.command import keyrelay

ROUTES = "routes: {demo: {provider: demo}}\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """Files get the modes that a test says."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"dummy-key")
    path.chmod(0o600)
    return path


def finding(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (one,) = caught.value.findings
    assert one.file == str(path)
    return str(one)


def remedy(path: Path) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        resolve("key", SecretSettings(references=(f"file:{path}",)))
    return caught.value.remedy


# -- routes files ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400, 0o755])
def test_routes_that_only_their_owner_changes_are_read(routes: Path, mode: int) -> None:
    """Any user may read them: there are no secrets in them."""
    routes.chmod(mode)
    assert set(load(routes).routes) == {"demo"}


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o602])
def test_routes_that_anybody_changes_are_refused(routes: Path, mode: int) -> None:
    """Write access decides where the keys go. The finding has the command."""
    routes.chmod(mode)
    assert f"run: chmod go-w {routes}" in finding(routes)


@as_root
@pytest.mark.parametrize(("user", "group"), [(0, 0), (0, 65534), (65534, 0)])
def test_routes_that_a_group_changes_are_refused(routes: Path, user: int, group: int) -> None:
    """A group of several, and root's."""
    os.chown(routes, user, group)
    routes.chmod(0o664)
    assert f"run: chmod go-w {routes}" in finding(routes)


@as_root
def test_a_group_of_its_owner_alone_is_its_owner() -> None:
    """Where every user has a group of the same name, files are group-writable from the start."""
    status = os.stat_result(_status(0o664, 54321, 54321))
    os.seteuid(54321)
    try:
        assert writable_by_others("/", status) is None
    finally:
        os.seteuid(0)


def test_a_directory_that_is_open_to_all_is_refused(tmp_path: Path) -> None:
    """The file in it could be replaced, at any depth; with the sticky bit it could not."""
    above = tmp_path / "above"
    (above / "below").mkdir(parents=True)
    path = above / "below" / "routes.yaml"
    path.write_text(ROUTES)
    above.chmod(0o777)
    assert f"run: chmod o-w {above}" in finding(path)
    above.chmod(0o1777)
    load(path)


def test_where_a_link_points_counts_too(tmp_path: Path, routes: Path) -> None:
    """The directory of the link, and that of the file it leads to."""
    linked = tmp_path / "open"
    linked.mkdir()
    (linked / "link.yaml").symlink_to(routes)
    load(linked / "link.yaml")
    linked.chmod(0o777)
    assert "chmod o-w" in finding(linked / "link.yaml")
    target = linked / "target.yaml"
    target.write_text(ROUTES)
    (tmp_path / "link.yaml").symlink_to(target)
    assert "chmod o-w" in finding(tmp_path / "link.yaml")


def test_one_s_own_presets_are_looked_at_as_well(tmp_path: Path) -> None:
    """They say where keys go as the routes do."""
    folder = tmp_path / "presets"
    folder.mkdir()
    preset = folder / "acme.yaml"
    preset.write_text(
        "upstream: https://api.acme.example\nsecrets: {key: env:ACME_KEY}\n"
        "auth: [{header: X-Key, value: '{key}'}]\n"
    )
    path = tmp_path / "routes.yaml"
    path.write_text("providers: [presets]\nroutes: {acme: {provider: acme}}\n")
    load(path)
    preset.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod go-w") as caught:
        load(path)
    assert {one.file for one in caught.value.findings} >= {str(preset)}


def test_the_command_ends_with_2_and_the_chmod_line(routes: Path) -> None:
    """As every finding; a blank in the path does not make another command of it."""
    path = routes.with_name("my routes.yaml")
    path.write_text(ROUTES)
    path.chmod(0o666)
    for command in ("check", "run"):
        done = keyrelay(command, "-c", str(path))
        assert done.code == 2
        assert f"run: chmod go-w '{path}'" in done.err


def test_what_ships_is_as_safe_as_the_code() -> None:
    """A checkout with any umask runs: users that can change its routes can change its code."""
    assert load(shipped_routes(), ours=True).routes


# -- secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_secret_of_one_s_own_is_read(key: Path, mode: int) -> None:
    """Only this user may read it, and change it."""
    key.chmod(mode)
    assert resolve("key", SecretSettings(references=(f"file:{key}",))).name == "key"


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o604, "others may read it"),
        (0o644, "others may read it"),
        (0o602, "others may write to it"),
        (0o666, "others may write to it"),
    ],
)
def test_a_secret_that_others_have_is_refused(key: Path, mode: int, why: str) -> None:
    """With the command that ends it; never with the value."""
    key.chmod(mode)
    assert remedy(key) == f"run chmod 600 {key}: {why}"


@as_root
@pytest.mark.parametrize("mode", [0o640, 0o620])
def test_a_secret_that_root_s_group_has_is_refused(key: Path, mode: int) -> None:
    """Groups have members."""
    key.chmod(mode)
    assert f"chmod 600 {key}" in remedy(key)


@as_root
def test_a_secret_of_another_user_is_refused(key: Path) -> None:
    """That user could put another credential into it."""
    os.chown(key, 65534, 65534)
    assert remedy(key) == f"run chown 0 {key}: it belongs to another user"


@as_root
def test_a_service_may_read_by_its_group() -> None:
    """root:service 0640 is how a service gets a secret that it cannot change."""
    os.seteuid(65534)
    try:
        found = [
            secret_exposed("/", os.stat_result(_status(mode, 0, 65534)))
            for mode in (0o640, 0o660, 0o644)
        ]
    finally:
        os.seteuid(0)
    assert [fault and fault[0] for fault in found] == [
        None,
        "others may write to it",
        "others may read it",
    ]


def _status(mode: int, user: int, group: int) -> tuple[int, ...]:
    return (stat.S_IFREG | mode, 1, 1, 1, user, group, 1, 0, 0, 0)


def test_a_secret_s_directory_counts(tmp_path: Path) -> None:
    """In one that is open to all, another file could be put in its place."""
    folder = tmp_path / "open"
    folder.mkdir()
    path = folder / "key"
    path.write_bytes(b"dummy-key")
    path.chmod(0o600)
    folder.chmod(0o777)
    assert f"run chmod o-w {folder}" in remedy(path)


def test_a_link_is_no_secret(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lead to any file; engines that mount secrets by way of links are an exception."""
    link = tmp_path / "link"
    link.symlink_to(key)
    assert "is a symbolic link" in remedy(link)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve("key", SecretSettings(references=(f"file:{link}",))).name == "key"


def test_what_engines_mount_has_their_modes(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their own directory every mode is taken as it is."""
    key.chmod(0o666)
    status = key.stat()
    assert secret_exposed(str(key), status) is not None
    for path in ("/run/secrets/key", "/var/run/secrets/a/key"):
        assert secret_exposed(path, status) is None
        assert writable_by_others(path, status) is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
    assert secret_exposed(str(key), status) is None


def test_what_is_mounted_read_only_has_its_engine_s_modes() -> None:
    """No user can change it here, and no chmod either."""
    status = os.stat_result(_status(0o777, 54321, 54321))
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    fixed = [
        place
        for _, place, _, options, *_ in (line.split() for line in mounts)
        if "ro" in options.split(",") and Path(place).is_dir()
    ]
    if not fixed:
        pytest.skip("nothing is mounted read-only on this machine")
    assert secret_exposed(f"{fixed[0]}/", status) is None
