"""An OpenAI-style realtime socket: `Authorization: Bearer` at `/v1/realtime`, and nothing else."""

from __future__ import annotations

from aiohttp import web

from tests.emulators import Answer, Denial, Emulator, Recorded, carriers, json_answer
from tests.emulators.carriers import Carrier

REALTIME_KEY = "dummy-realtime-key"


class RealtimeEmulator(Emulator):
    """Greets with ``session.created`` and echoes events."""

    def refusal(self, recorded: Recorded) -> Answer:
        """OpenAI's form of an error."""
        error = {"message": "Incorrect API key provided", "code": "invalid_api_key"}
        return json_answer(401, {"error": error})

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """One bearer and no other credential."""
        if len(found) == 1 and carriers.bearer(found[0]) == REALTIME_KEY:
            return None
        return self.denied(recorded, f"not one bearer: {', '.join(map(str, found))}")

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """The one socket."""
        if recorded.websocket and recorded.path == "/v1/realtime":
            created = {"type": "session.created", "event_id": "dummy", "session": {}}
            return await self.echo(request, recorded, greeting=created)
        return await self.nowhere(request, recorded)
