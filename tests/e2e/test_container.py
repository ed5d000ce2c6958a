"""Keyrelay as in a container: a user without a home, mounted files, an address of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Done, Process, environment, inspect, keyrelay, running
from tests.support.reloading import put

ADMIN = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
IMAGE_USER = "65532"
AS_IMAGE_USER = (
    "setpriv",
    f"--reuid={IMAGE_USER}",
    f"--regid={IMAGE_USER}",
    "--clear-groups",
    "env",
    "--unset=HOME",
)
# Mounts the first argument over the second, in a namespace of its own, and runs the rest there.
MOUNT = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
GONE = "this file is gone from its directory"


def run_within(within: Sequence[str], *arguments: str, variables: Mapping[str, str]) -> Done:
    """A command that ends by itself, in the surroundings of another."""
    done = subprocess.run(
        [*within, *COMMAND, *arguments],
        env=environment(**variables),
        cwd="/",
        capture_output=True,
        timeout=30,
        check=False,
    )
    result = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    inspect(result.out, result.err)
    return result


@pytest.fixture
def own_mounts() -> tuple[str, ...]:
    """A command prefix for a mount namespace, of a user namespace where only root could mount."""
    own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    prefix = ("unshare", *own, "--mount", "--propagation", "private", "sh", "-c", MOUNT, "mount")
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    probe = subprocess.run(
        [*prefix, "/", "/mnt", "true"], capture_output=True, timeout=30, check=False
    )
    if probe.returncode:
        pytest.skip("this system lets the user make no mounts")
    return prefix


async def test_a_file_that_is_mounted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_mounts: tuple[str, ...]
) -> None:
    """A mount of the single routes file shows the old one after the file was replaced in its
    folder. The log and ``reload`` warn, instead of reporting only that nothing is different.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file, mounted = tmp_path / "routes.yaml", tmp_path / "mounted.yaml"
    for one in (file, mounted):
        put(one, "routes: {demo: {provider: demo}}")
    within = (*own_mounts, str(file), str(mounted))
    async with running(
        "run", "-c", str(mounted), *ADMIN, until="inspector", within=within
    ) as process:
        await process.said("\n", after="inspector")
        assert keyrelay("reload") == Done(0, "nothing is different\n", "")
        put(file, "routes: {other: {provider: demo}}")
        await process.said(f"{mounted}: {GONE}")
        done = keyrelay("reload")
        assert (done.code, done.out) == (0, "nothing is different\n")
        assert done.err.startswith(f"keyrelay: {mounted}: {GONE}")
        assert "mount the directory" in done.err
        assert GONE in keyrelay("reload", "--json").out


async def test_a_folder_that_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_mounts: tuple[str, ...]
) -> None:
    """Through a mount of the folder the replaced file is seen and taken, without a warning."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    put(source / "routes.yaml", "routes: {demo: {provider: demo}}")
    within = (*own_mounts, str(source), str(target))
    file = str(target / "routes.yaml")
    async with running("run", "-c", file, *ADMIN, until="inspector", within=within) as one:
        put(source / "routes.yaml", "routes: {other: {provider: demo}}")
        await one.said("Reloaded: ")
        assert GONE not in one.err


@pytest.fixture
def image_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory of the image's user, which can run this interpreter and has no home."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to become the image's user")
    # This user may not write where the tests' coverage is collected.
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    if run_within(AS_IMAGE_USER, "--version", variables={}).code:
        pytest.skip("the image's user may not read this checkout or its interpreter")
    # Not below tmp_path, which only root can enter.
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, int(IMAGE_USER), int(IMAGE_USER))
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


async def test_the_image_s_user_finds_the_process(image_user: Path) -> None:
    """``health``, ``status`` and ``reload`` need no home and no address: the process is found by
    its runtime file.
    """
    async with running("run", "demo", *ADMIN, until="inspector", within=AS_IMAGE_USER) as process:
        await process.said("\n", after="inspector")
        assert "XDG_RUNTIME_DIR" not in process.err
        for command in ("health", "status", "reload"):
            done = run_within(AS_IMAGE_USER, command, variables={})
            assert (done.code, done.err) == (0, ""), command


async def serves(process: Process) -> None:
    """Its health check passes, without an address."""
    assert process.urls
    assert keyrelay("health") == Done(0, "ok\n", "")


async def test_health_asks_the_address_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the command line or the file, also of a reload and of several processes; and the
    record is gone with the process.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = tmp_path / "routes.yaml"

    def listen(name: str) -> None:
        put(file, f"listen: unix:{tmp_path / name}\nroutes: {{demo: {{provider: demo}}}}")

    listen("first.sock")
    async with running("run", "demo", "--listen", "127.0.0.1:0") as process:
        await serves(process)
        async with running("run", "-c", str(file)) as other:
            assert keyrelay("health") == Done(0, "ok\n", "")
            listen("second.sock")
            await other.said("Reloaded: ")
            assert keyrelay("health") == Done(0, "ok\n", "")
            recorded = [one.read_text() for one in (tmp_path / "keyrelay").iterdir()]
            assert any("second.sock" in one for one in recorded)
            assert not any("first.sock" in one for one in recorded)
            other.signal(15)
            assert await other.ended() == 0
        await serves(process)
        process.signal(15)
        assert await process.ended() == 0
    assert list((tmp_path / "keyrelay").iterdir()) == []


async def test_health_asks_a_wildcard_address_by_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``listen: 0.0.0.0:…``, as where containers share no network, is asked at 127.0.0.1."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = tmp_path / "routes.yaml"
    put(
        file,
        "listen: 0.0.0.0:0\ninbound_token: env:CLIENT_TOKEN\nroutes: {demo: {provider: demo}}",
    )
    token = {"CLIENT_TOKEN": "dummy-inbound-token-of-a-test"}
    async with running("run", "-c", str(file), variables=token) as process:
        await serves(process)


async def test_an_address_that_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyrelay serves all the same, after a line about it."""
    put(tmp_path / "file", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    async with running("run", "demo", "--listen", "127.0.0.1:0") as process:
        assert "health will not find this process" in process.err
        assert keyrelay("health", process.urls[0]) == Done(0, "ok\n", "")
