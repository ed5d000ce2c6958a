"""CAMB.AI: one header on two hosts; the realtime socket also takes the key in its first message.

https://docs.camb.ai (authentication, websockets, realtime events), read 2026-11-21.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tests.emulators.answers import Answer, Denial, Recorded, json_answer
from tests.emulators.base import Emulator
from tests.emulators.carriers import Carrier
from tests.emulators.sockets import Socket

CAMB_KEY = "dummy-camb-key"

_REALTIME = "/v1/realtime"
_LIVE_TTS = "/apis/live-tts/ws"
_FIRST_MESSAGE_SECONDS = 10.0


class _Camb(Emulator):
    """What both hosts have in common: the header x-api-key."""

    def __init__(
        self,
        *,
        key: str = CAMB_KEY,
        ssl_context: ssl.SSLContext | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        super().__init__(ssl_context=ssl_context, hosts=hosts)
        self._key = key

    def refusal(self, recorded: Recorded) -> Answer:
        """The documented 401."""
        return json_answer(401, {"error": "Invalid API key", "status": 401})

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """One x-api-key; ``?api_key=`` is documented for the live-tts socket alone."""
        if not found and recorded.websocket and recorded.path == _REALTIME:
            return None  # it may come in the first message
        if len(found) != 1:
            return self.denied(recorded, f"{len(found)} credentials: {', '.join(map(str, found))}")
        carrier = found[0]
        in_query = carrier[:2] == ("query", "api_key") and recorded.path == _LIVE_TTS
        in_query = in_query and recorded.websocket
        if not in_query and carrier[:2] != ("header", "x-api-key"):
            return self.denied(recorded, f"no place for a credential here: {carrier}")
        if carrier.value != self._key:
            return self.denied(recorded, "the key is wrong")
        return None


class CambEmulator(_Camb):
    """client.camb.ai: REST under /apis, speech in chunks, two sockets."""

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """REST, streamed speech, live-tts and transcription sockets."""
        path = recorded.path
        if recorded.websocket:
            if path == _LIVE_TTS:
                return await self._live_tts(request, recorded)
            if path == "/apis/transcription/listen":
                return await self.echo(request, recorded)
            return await self.nowhere(request, recorded)
        match recorded.method, path:
            case "POST", "/apis/tts-stream":
                return await self._speak(request, recorded)
            case "GET", "/apis/list-voices":
                voice = {"id": 147320, "voice_name": "dummy", "gender": 0, "age": 30}
                return await self.send(request, recorded, json_answer(200, [voice]))
            case "GET", "/apis/source-languages" | "/apis/target-languages":
                language = {"id": 1, "language": "dummy", "short_name": "en-us"}
                return await self.send(request, recorded, json_answer(200, [language]))
        if path.startswith("/apis/"):
            return await self.report(request, recorded)
        return await self.nowhere(request, recorded)

    async def _speak(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        content = recorded.json()
        if not isinstance(content, dict) or "text" not in content:
            problem = {"loc": ["body", "text"], "msg": "Field required", "type": "missing"}
            answer = json_answer(422, {"detail": [problem]})
            return await self.refuse(request, recorded, Denial("no text", answer))
        return await self.stream(request, recorded, "audio/wav", self.chunks)

    async def _live_tts(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """The first frame must be a JSON object; otherwise the socket is closed with 4400."""
        socket = Socket(recorded, self.changes)
        response = await socket.accept(request)
        first = await socket.receive()
        if first is None:
            return response
        if _json_object(first) is None:
            self.faults.append(f"{recorded.path}: the first frame is no JSON object")
            await socket.close(4400, "bad first frame")
            return response
        return await self.echo(request, recorded, socket=socket, greeting={"type": "ready"})


class CambRealtimeEmulator(_Camb):
    """realtime.camb.ai: conversation and transcription sockets."""

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """Two sockets and nothing else."""
        if recorded.websocket and recorded.path == _REALTIME:
            return await self._realtime(request, recorded)
        if recorded.websocket and recorded.path == "/streaming-transcription/listen":
            return await self.echo(request, recorded, greeting={"type": "Ready"})
        return await self.nowhere(request, recorded)

    async def _realtime(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """The first message is session.update. A key in it counts only if no header came."""
        socket = Socket(recorded, self.changes)
        response = await socket.accept(request)
        async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
            first = await socket.receive()
        if first is None:
            return response
        update = _json_object(first) or {}
        reason = self._complaint(recorded, update)
        if reason is not None:
            self.faults.append(f"{recorded.path}: {reason}")
            await socket.say({"type": "error", "error": {"message": "Invalid API key"}})
            await socket.close(1008, "unauthorized")
            return response
        session = {**update.get("session", {}), "id": "dummy"}
        created = {"type": "session.created", "session": session}
        return await self.echo(request, recorded, socket=socket, greeting=created)

    def _complaint(self, recorded: Recorded, update: dict[str, Any]) -> str | None:
        if update.get("type") != "session.update":
            return "the first message is no session.update"
        in_band = update.get("auth", {}).get("api_key")
        if not recorded.values("x-api-key") and in_band != self._key:
            return "no key in header or first message"
        return None


def _json_object(message: str | bytes) -> dict[str, Any] | None:
    if isinstance(message, bytes):
        return None
    try:
        content = json.loads(message)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
