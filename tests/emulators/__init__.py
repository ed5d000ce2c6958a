"""Strict emulators of the four shipped providers, for tests through the proxy.

    async with HumeEmulator() as hume:
        ...                                   # send a request through a route to hume.origin
        assert hume.requests[0].value("X-Hume-Api-Key") == HUME_KEY
        assert hume.faults == []

Real servers on loopback. They record every request byte for byte (``requests``), refuse whatever
is not authenticated as the provider documents and say why (``faults``), count connections
(``connections``, ``open``), and send streams piece by piece as the test lets them (``pieces``):

    hume.pieces.hold()
    answer = await client.post("/v0/tts/stream/file", ...)   # the head is there, no piece was sent
    hume.pieces.release()
    assert await answer.content.readexactly(4096) == hume.chunks[0]

Clients in tests use dummies with ``client-dummy`` in them: seeing one at a provider is a fault.
On a WebSocket the message ``{"emulator": "close", "code": 4321, "reason": "…"}`` makes the far
side close; see ``sockets`` for the other orders. ``answer_next`` scripts refusals, redirects and
compressed answers.
"""

from tests.emulators.aigne import AIGNE_KEY, AigneEmulator
from tests.emulators.answers import (
    Answer,
    Denial,
    Outcome,
    Recorded,
    json_answer,
    redirect,
    text_answer,
)
from tests.emulators.base import Emulator
from tests.emulators.camb import CAMB_KEY, CambEmulator, CambRealtimeEmulator
from tests.emulators.gate import Gate
from tests.emulators.hume import HUME_KEY, HUME_SECRET, HumeEmulator
from tests.emulators.inworld import INWORLD_KEY, INWORLD_PORTAL, INWORLD_SECRET, InworldEmulator

__all__ = [
    "AIGNE_KEY",
    "CAMB_KEY",
    "HUME_KEY",
    "HUME_SECRET",
    "INWORLD_KEY",
    "INWORLD_PORTAL",
    "INWORLD_SECRET",
    "AigneEmulator",
    "Answer",
    "CambEmulator",
    "CambRealtimeEmulator",
    "Denial",
    "Emulator",
    "Gate",
    "HumeEmulator",
    "InworldEmulator",
    "Outcome",
    "Recorded",
    "json_answer",
    "redirect",
    "text_answer",
]
