"""A network of the tests' own: loopback alone, on which the providers' real names lead here.

So a client that goes past keyrelay is seen instead of reaching a provider, and nothing that a test
starts can reach anything else.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def enter(folder: Path, names: Iterable[str]) -> None:
    """Move this thread, and what it starts from now on, into a network of its own.

    names  resolve to 127.0.0.1; no other name but localhost resolves. They are written to files
           in ``folder``, which are mounted over /etc/hosts and /etc/resolv.conf.

    Raises PermissionError without the privilege; `unshare --user --map-root-user` gives it.
    """
    _check(_libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS), "unshare")
    _mount(b"none", b"/", _MS_REC | _MS_PRIVATE)
    hosts = folder / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n::1 localhost\n"
        + "".join(f"127.0.0.1 {name}\n" for name in sorted(names))
    )
    _mount(bytes(hosts), b"/etc/hosts", _MS_BIND)
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    _mount(bytes(resolver), os.fsencode(Path("/etc/resolv.conf").resolve()), _MS_BIND)
    _raise_loopback()


def _mount(source: bytes, target: bytes, flags: int) -> None:
    _check(_libc.mount(source, target, None, flags, None), f"mount on {target.decode()}")


def _check(result: int, action: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{action}: {os.strerror(code)}")


def _raise_loopback() -> None:
    """What `ip link set lo up` does; not every machine has `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
