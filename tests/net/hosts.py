"""Hosts on one machine: network namespaces, linked by pairs of virtual interfaces.

A socket belongs to the namespace in which it was made. So one process can be keyrelay, its client
and its provider on three hosts: it enters a host to open a socket there.

Addresses are of the blocks for documentation (RFC 5737); nothing leads out of the namespaces.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000
_PATIENCE = 30

_libc = ctypes.CDLL(None, use_errno=True)


def isolate() -> None:
    """Get the privilege to make namespaces. Raises OSError where the machine allows none."""
    if os.geteuid() != 0:
        raise PermissionError("network namespaces need root, or unshare --user --map-root-user")
    try:
        subprocess.run(["ip", "-V"], check=True, capture_output=True, timeout=_PATIENCE)
    except FileNotFoundError:
        raise OSError("the command ip (Debian's package iproute2) is missing") from None
    Host("probe").close()


class Host:
    """A network namespace with loopback up."""

    def __init__(self, name: str) -> None:
        """Raises OSError if the machine allows no namespaces."""
        self.name = name
        made: list[int | OSError] = []

        def make() -> None:
            # In a thread of its own, so that no other changes its namespace.
            try:
                _check(_libc.unshare(_CLONE_NEWNET))
                task = Path("/proc/self/task") / str(threading.get_native_id())
                made.append(os.open(task / "ns/net", os.O_RDONLY))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join(_PATIENCE)
        if isinstance(made[0], OSError):
            raise made[0]
        self._namespace = made[0]
        self.ip("link", "set", "lo", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is on the host until the block ends."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _check(_libc.setns(self._namespace, _CLONE_NEWNET))
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
            os.close(before)

    def ip(self, *arguments: str) -> str:
        """Run ``ip`` on the host; what it prints."""
        with self.entered():
            return subprocess.run(
                ["ip", *arguments], check=True, capture_output=True, text=True, timeout=_PATIENCE
            ).stdout

    def link(self, other: Host, own_address: str, address: str) -> None:
        """A cable between two hosts, with these addresses of one network of 256."""
        here, there = f"{self.name}-{other.name}", f"{other.name}-{self.name}"
        self.ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", other._path())
        for host, name, one in ((self, here, own_address), (other, there, address)):
            host.ip("address", "add", f"{one}/24", "dev", name)
            host.ip("link", "set", name, "up")

    def unplug(self, other: Host) -> None:
        """Take the link down at the other end: what is sent gets lost, without an error."""
        other.ip("link", "set", f"{other.name}-{self.name}", "down")

    def _path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    def close(self) -> None:
        """Drop the namespace; it ends with its last socket."""
        os.close(self._namespace)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"network namespace: {os.strerror(code)}")
