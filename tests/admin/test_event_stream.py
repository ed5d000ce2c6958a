"""The event stream of the admin listener: byte counts of exchanges that are open."""

from __future__ import annotations

import pytest

from tests.support.inspection import hearing, inspected
from tests.support.keyrelay import static_route


class Session:
    """A WebSocket session that has moved some bytes."""

    moved = (0, 0)


async def test_progress(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, dummy_key: bytes
) -> None:
    """Bytes of open exchanges are sent when they have changed; an
    ended exchange has them in its end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with (
        inspected({"api": static_route("https://api.example.com")}) as running,
        hearing(running) as heard,
    ):
        watched = running.watched
        socket, upload, idle = (
            watched.begin(one, websocket=one == "/chat") for one in ("/chat", "/up", "/idle")
        )
        session = socket.session = Session()
        session.moved, upload.sent = (3, 70_000), 12
        _, told = await heard.next("progress")
        assert sorted(told["moved"]) == [[socket.number, 3, 70_000], [upload.number, 12, 0]]
        session.moved = (4, 80_000)
        _, told = await heard.next("progress")
        assert told["moved"] == [[socket.number, 4, 80_000]]
        socket.session, socket.sent = None, 5
        for one in (socket, upload, idle):
            watched.end(one)
        _, told = await heard.next("ended")
        assert (told["number"], told["sent"]) == (socket.number, 5)
