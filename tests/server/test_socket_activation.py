"""Sockets that a service manager opens and passes on, as processes get them: from descriptor 3."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.http.address import ListenAddress, parse_listen
from proxy.server.socket_activation import check_all_served, passed_descriptors, passed_socket
from tests.support.command import COMMAND, ROOT, environment, running
from tests.support.keyrelay import exchange, read_head

# Opens what its first argument says, as a service manager does, and becomes the command behind it;
# PLACE in that command is where the first socket is.
MANAGER = """
import os, socket, sys
passed = []
for text in sys.argv[1].split():
    kind, _, place = text.partition("=")
    if kind == "unix":
        one = socket.socket(socket.AF_UNIX)
        one.bind(place)
        os.chmod(place, 0o600)
    elif kind == "open":
        one = socket.socket(socket.AF_UNIX)
        one.bind(place)
        os.chmod(place, 0o666)
    elif kind == "datagram":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind == "abstract":
        one = socket.socket(socket.AF_UNIX)
        one.bind("")
    elif kind == "every":
        one = socket.socket(socket.AF_INET6)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place))
        one.bind(("::", 0))
    else:
        one = socket.socket()
        one.bind(("127.0.0.1", 0))
    if kind not in ("datagram", "silent"):
        one.listen()
    passed.append(one)
where = passed[0].getsockname()
where = where if isinstance(where, (str, bytes)) else "127.0.0.1:%d" % where[1]
copies = [os.dup(one.fileno()) for one in passed]
safe = [os.dup2(one, 60 + at) for at, one in enumerate(copies)]
for at, one in enumerate(safe):
    os.dup2(one, 3 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES="front")
command = [one.replace("PLACE", where) if "PLACE" in one else one for one in sys.argv[2:]]
os.execvp(command[0], command)
"""
ASK = """
from proxy.server.socket_activation import check_all_served, passed_descriptors, passed_socket
from proxy.errors import KeyrelayError
try:
    found = passed_descriptors()
    assert found is passed_descriptors()
    for address, descriptor in found.items():
        import os
        assert not os.get_inheritable(descriptor)
        for _ in range(2):
            with passed_socket(address) as one:
                assert one.fileno() != descriptor
        print(descriptor, address)
    check_all_served(found)
    check_all_served([])
except KeyrelayError as error:
    print("refused:", error)
"""
GET = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")


def manager(sockets: str) -> tuple[str, ...]:
    return (sys.executable, "-c", MANAGER, sockets)


def passed(sockets: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that was passed these sockets."""
    return subprocess.run(
        [*manager(sockets), sys.executable, "-c", program],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def asked(sockets: str) -> str:
    """What the module says in a process that was passed these."""
    done = passed(sockets, ASK)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_without_a_manager_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor if the variables are another process's, which left them to this one."""
    address = parse_listen("127.0.0.1:8080")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    passed_descriptors.cache_clear()
    assert passed_descriptors() == {}
    assert passed_socket(address) is None
    check_all_served([])


@linux
def test_each_is_found_by_its_address(tmp_path: Path) -> None:
    """In their order, from 3; every caller gets a descriptor of its own, children get none."""
    lines = asked(f"tcp unix={tmp_path}/sock every=1").splitlines()
    assert re.fullmatch(r"3 127\.0\.0\.1:\d+", lines[0])
    assert lines[1] == f"4 unix:{tmp_path}/sock"
    assert re.fullmatch(r"5 \[::\]:\d+", lines[2])
    assert lines[3].startswith("refused: a socket was passed at 127.0.0.1:")
    assert f"unix:{tmp_path}/sock" in lines[3]
    assert "ListenStream=" in lines[3]


@linux
@pytest.mark.parametrize(
    ("sockets", "words"),
    [
        ("silent", "the passed socket front accepts no connections"),
        ("datagram", "ListenStream="),
        ("abstract", "has no path"),
        ("every=0", "BindIPv6Only=ipv6-only"),
        ("open={tmp}/sock", "SocketMode=0660"),
        ("tcp datagram", "the passed socket 4 accepts no connections"),
    ],
)
def test_what_cannot_be_served_is_refused(sockets: str, words: str, tmp_path: Path) -> None:
    """One line says which it is, by its name or number, and what to write in the unit."""
    said = asked(sockets.replace("{tmp}", str(tmp_path)))
    assert said.startswith("refused: ")
    assert words in said


@linux
def test_a_descriptor_that_is_not_there_is_refused() -> None:
    """As when a script in between closed it."""
    closing = f"import os, sys; os.close(3); exec({ASK!r})"
    done = passed("tcp", closing)
    assert done.stdout == "refused: the passed socket front: Bad file descriptor\n"


@linux
async def test_keyrelay_serves_the_socket_that_it_was_passed() -> None:
    """The address is taken already, by the very socket: without it this would be no start."""
    async with running("run", "demo", "--listen", "PLACE", within=manager("tcp")) as process:
        assert (await exchange(process.port, GET)).startswith(b"HTTP/1.1 200 ")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


@linux
async def test_a_passed_path_stays_when_keyrelay_ends(tmp_path: Path) -> None:
    """The socket's file belongs to the manager, which listens on after this process."""
    path = tmp_path / "sock"
    async with running(
        "run", "demo", "--listen", f"unix:{path}", within=manager(f"unix={path}")
    ) as process:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(GET)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert path.is_socket()


def test_an_address_that_is_not_bound_by_anybody_is_opened_as_ever() -> None:
    """A place without a passed socket is none of this module's business."""
    assert passed_socket(ListenAddress("127.0.0.1", 0, None)) is None


@linux
def test_a_socket_that_nothing_serves_is_no_start() -> None:
    """Exit 1 and one line: a client that connects there would wait for ever."""
    done = subprocess.run(
        [*manager("tcp"), *COMMAND, "run", "demo", "--listen", "127.0.0.1:0"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("keyrelay: a socket was passed at 127.0.0.1:")


@linux
async def test_a_reload_cannot_leave_a_passed_socket_alone(tmp_path: Path) -> None:
    """A configuration that serves it no more is refused; one that does again is taken."""
    sock, path = tmp_path / "sock", tmp_path / "routes.yaml"
    text = "listen: [127.0.0.1:0, 'unix:{}']\nroutes: {{demo: {{provider: demo}}}}\n"
    path.write_text(text.format(sock))
    async with running("run", "-c", str(path), within=manager(f"unix={sock}")) as process:
        path.write_text(text.format(f"{sock}-other"))
        process.signal(signal.SIGHUP)
        await process.said("the old one goes on serving")
        assert f"a socket was passed at unix:{sock}" in process.err
        _, writer = await asyncio.open_unix_connection(str(sock))
        writer.close()
