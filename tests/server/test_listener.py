"""Sockets on which requests come in."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from proxy.errors import KeyrelayError
from proxy.server.listener import listen


async def test_port_zero_takes_a_free_port_and_reports_it() -> None:
    """The address of a listener is the one that clients can use."""
    listener = await listen("127.0.0.1:0", asyncio.Protocol, "hume")
    try:
        assert listener.address.port > 0
        assert listener.url == f"http://127.0.0.1:{listener.address.port}"
        assert listener.route == "hume"
        _, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
        writer.close()
    finally:
        listener.close()


async def test_a_port_in_use_is_reported() -> None:
    """The error names the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KeyrelayError, match=rf"127.0.0.1:{port} is in use"):
            await listen(f"127.0.0.1:{port}", asyncio.Protocol, None)


async def test_a_unix_socket_is_its_owner_s_and_goes_with_the_listener(tmp_path: Path) -> None:
    """Mode 0600 from the first moment; nothing is left behind."""
    path = tmp_path / "keyrelay.sock"
    listener = await listen(f"unix:{path}", asyncio.Protocol, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listener.url == f"unix:{path}"
    listener.close()
    assert not path.exists()


async def test_a_socket_file_in_use_is_left_alone(tmp_path: Path) -> None:
    """Another keyrelay's socket is not taken from it; one without a listener is replaced."""
    path = tmp_path / "keyrelay.sock"
    first = await listen(f"unix:{path}", asyncio.Protocol, None)
    with pytest.raises(KeyrelayError, match="in use"):
        await listen(f"unix:{path}", asyncio.Protocol, None)
    first.close()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    second = await listen(f"unix:{path}", asyncio.Protocol, None)
    second.close()


async def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    """The reason is the system's, in one line."""
    with pytest.raises(KeyrelayError, match="No such file or directory"):
        await listen(f"unix:{tmp_path}/missing/keyrelay.sock", asyncio.Protocol, None)
