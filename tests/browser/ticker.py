"""A provider whose events a page hears with EventSource, which can only GET."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from tests.emulators import Answer, Denial, Emulator, Recorded, json_answer
from tests.emulators.carriers import Carrier
from tests.support.keyrelay import SECRET

TICKS: Final = 4


class Ticker(Emulator):
    """Takes ``X-Api-Key``; GET /events ticks from behind ``Last-Event-ID`` to ``TICKS``."""

    def refusal(self, recorded: Recorded) -> Answer:
        """Without a right key."""
        return json_answer(401, {"error": "wrong key"})

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """Exactly one credential, and the right one."""
        if found == [Carrier("header", "x-api-key", SECRET.decode())]:
            return None
        return self.denied(recorded, f"not the one key: {', '.join(map(str, found))}")

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """The events. A browser whose connection broke asks for the rest after 1 ms."""
        first = int(recorded.value("Last-Event-ID") or 0) + 1
        events = [
            f"retry: 1\nid: {number}\ndata: tick {number}\n\n".encode()
            for number in range(first, TICKS + 1)
        ]
        return await self.stream(request, recorded, "text/event-stream", events)
