"""Hume as an emulator that answers what is said, for the examples, which show a conversation."""

from __future__ import annotations

import base64
import io
import json
import wave

from aiohttp import web

from tests.emulators import HumeEmulator, Recorded
from tests.emulators.sockets import Socket

GREETING = "Hello from the emulator."


def silence(seconds: float = 0.05) -> bytes:
    """A WAV file of one channel at 48 kHz, as EVI sends them."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(48_000)
        writer.writeframes(bytes(2 * round(48_000 * seconds)))
    return file.getvalue()


class ConversingHume(HumeEmulator):
    """Its EVI takes ``user_input``, and answers with the messages that EVI documents for that.

    https://dev.hume.ai/reference/speech-to-speech-evi/chat, read 2026-11-21.
    """

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        if not (recorded.websocket and recorded.path == "/v0/evi/chat"):
            return await super().serve(request, recorded)
        socket = Socket(recorded, self.changes)
        response = await socket.accept(request)
        await socket.say({"type": "chat_metadata", "chat_id": "dummy", "request_id": "dummy"})
        while isinstance(text := await socket.receive(), str):
            said = json.loads(text)
            assert said["type"] == "user_input"
            if said["text"] == "fail":
                await socket.say({"type": "error", "code": "E0", "message": "dummy failure"})
                continue
            audio = base64.b64encode(silence()).decode()
            for message in (
                {"type": "user_message", "message": {"role": "user", "content": said["text"]}},
                {
                    "type": "assistant_message",
                    "message": {"role": "assistant", "content": GREETING},
                },
                {"type": "audio_output", "id": "dummy", "data": audio},
                {"type": "assistant_end"},
            ):
                await socket.say(message)
        return response
