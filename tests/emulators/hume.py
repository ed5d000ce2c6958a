"""Hume: a key in a header (sockets: in the query), or a token fetched with key and secret.

https://dev.hume.ai/docs/introduction/api-key, read 2026-11-21.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from tests.emulators import carriers
from tests.emulators.answers import Answer, Denial, Recorded, json_answer
from tests.emulators.base import Emulator
from tests.emulators.carriers import Carrier
from tests.emulators.gate import Gate

HUME_KEY = "dummy-hume-key"
HUME_SECRET = "dummy-hume-secret"

TOKEN_PATH = "/oauth2-cc/token"
_TOKEN_PATHS = ("/v0/evi/", "/v0/tts/")  # other products take the key only
_CLOUD_PATHS = ("/v1/expression/", "/v0/decisions/")  # the newer host's: header only, everywhere
_SOCKETS = ("/v0/tts/stream/input", "/v0/stream/models", "/v1/expression/run", "/v0/decisions/run")


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token that the emulator gave out. ``expires_at``: seconds on the emulator's clock."""

    value: str
    expires_at: float


class HumeEmulator(Emulator):
    """api.hume.ai, and the paths of api.cloud.hume.ai beside it.

    strategy   which credential EVI and TTS take: "key", "token", or "either". Everything else
               takes the key whatever this says, as at Hume.
    lifetime_seconds, clock, expires_in_text
               for tokens; the text is what some OAuth servers send instead of a number
    minting    the gate at which token requests stand, to see how many come at once
    minted     the tokens given out, in order
    """

    def __init__(
        self,
        *,
        key: str = HUME_KEY,
        secret: str = HUME_SECRET,
        strategy: Literal["key", "token", "either"] = "either",
        lifetime_seconds: float = 1800,
        expires_in_text: bool = False,
        clock: Callable[[], float] = time.time,
        ssl_context: ssl.SSLContext | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        super().__init__(ssl_context=ssl_context, hosts=hosts)
        self._key = key
        self._secret = secret
        self._strategy = strategy
        self._lifetime_seconds = lifetime_seconds
        self._expires_in_text = expires_in_text
        self._clock = clock
        self._valid: dict[str, MintedToken] = {}
        self.minting = Gate("minting", self.changes)
        self.fetched: list[MintedToken] = []

    @property
    def asked(self) -> list[Recorded]:
        """Requests of clients, without those for tokens."""
        return [one for one in self.requests if one.path != TOKEN_PATH]

    @property
    def calls(self) -> int:
        """How many tokens were requested."""
        return len(self.requests) - len(self.asked)

    def revoke(self) -> None:
        """Refuse every token given out so far."""
        self._valid.clear()

    def refusal(self, recorded: Recorded) -> Answer:
        """The gateway's fault, or what the newer host says."""
        if recorded.path.startswith(_CLOUD_PATHS):
            return json_answer(401, {"message": "Unauthorized", "request_id": "req_dummy"})
        return json_answer(401, {"fault": {"faultstring": "Invalid ApiKey"}})

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """Exactly one credential, in the place that the path and the kind of request have."""
        if len(found) != 1:
            return self.denied(recorded, f"{len(found)} credentials: {', '.join(map(str, found))}")
        carrier = found[0]
        if recorded.path == TOKEN_PATH:
            return self._judge_token_request(recorded, carrier)
        in_query = recorded.websocket and not recorded.path.startswith(_CLOUD_PATHS)
        takes_token = recorded.path.startswith(_TOKEN_PATHS)
        if carrier[:2] == (("query", "api_key") if in_query else ("header", "x-hume-api-key")):
            if takes_token and self._strategy == "token":
                return self.denied(recorded, "the key, where a token was expected")
            if carrier.value != self._key:
                return self.denied(recorded, "the key is wrong")
            return None
        if in_query:
            token = carrier.value if carrier[:2] == ("query", "access_token") else None
        else:
            token = carriers.bearer(carrier)
        if token is None:
            return self.denied(recorded, f"no place for a credential here: {carrier}")
        if not takes_token:
            return self.denied(recorded, "a token, where Hume takes the key only")
        if self._strategy == "key":
            return self.denied(recorded, "a token, where the key was expected")
        fetched = self._valid.get(token)
        if fetched is None:
            return self.denied(recorded, "the token is unknown or revoked")
        if self._clock() >= fetched.expires_at:
            return self.denied(recorded, "the token has expired")
        return None

    def _judge_token_request(self, recorded: Recorded, carrier: Carrier) -> Denial | None:
        answer = json_answer(401, {"ErrorCode": "invalid_client", "Error": "ClientId is Invalid"})
        expected = base64.b64encode(f"{self._key}:{self._secret}".encode()).decode()
        if carriers.basic(carrier) != expected:
            return Denial("the token request needs Basic with key and secret", answer)
        return None

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """EVI, TTS, batch jobs, sockets, and the token endpoint."""
        path = recorded.path
        if recorded.websocket:
            return await self._serve_socket(request, recorded)
        match recorded.method, path:
            case _, "/oauth2-cc/token":
                return await self._mint(request, recorded)
            case "POST", "/v0/tts/stream/file":
                return await self.stream(request, recorded, "audio/mpeg", self.chunks)
            case "POST", "/v0/tts/stream/json":
                return await self.stream(request, recorded, "application/json", self._snippets())
            case "POST", "/v0/tts":
                content = {"request_id": "dummy", "generations": [next(iter(self._generations()))]}
                return await self.send(request, recorded, json_answer(200, content))
            case "POST", "/v0/tts/file":
                audio = Answer(200, b"".join(self.chunks), (("Content-Type", "audio/mpeg"),))
                return await self.send(request, recorded, audio)
            case "GET", "/v0/evi/configs" | "/v0/evi/chats" | "/v0/evi/prompts" | "/v0/evi/tools":
                page: dict[str, object] = {"page_number": 0, "page_size": 1, "total_pages": 0}
                page |= {"pagination_direction": "ASC", f"{path.rpartition('/')[2]}_page": []}
                return await self.send(request, recorded, json_answer(200, page))
        if path.startswith(("/v0/", "/v1/")):
            return await self.report(request, recorded)
        return await self.nowhere(request, recorded)

    async def _serve_socket(
        self, request: web.BaseRequest, recorded: Recorded
    ) -> web.StreamResponse:
        path = recorded.path
        is_connect = path.startswith("/v0/evi/chat/") and path.endswith("/connect")
        if path == "/v0/evi/chat" or is_connect:
            metadata = {
                "type": "chat_metadata",
                "chat_id": "00000000-0000-4000-8000-000000000001",
                "chat_group_id": "00000000-0000-4000-8000-000000000002",
                "request_id": "dummy",
            }
            return await self.echo(request, recorded, greeting=metadata)
        if path in _SOCKETS:
            return await self.echo(request, recorded)
        return await self.nowhere(request, recorded)

    async def _mint(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        media_type = recorded.value("Content-Type").partition(";")[0].strip().lower()
        right = (
            recorded.method == "POST"
            and recorded.query == ""
            and media_type == "application/x-www-form-urlencoded"
            and recorded.form() == {"grant_type": "client_credentials"}
        )
        if not right:
            answer = json_answer(400, {"ErrorCode": "invalid_request", "Error": "Bad request"})
            return await self.refuse(
                request, recorded, Denial("not a client_credentials request", answer)
            )
        await self.minting.stand()
        now = self._clock()
        token = MintedToken(f"dummy-token-{len(self.fetched) + 1}", now + self._lifetime_seconds)
        self.fetched.append(token)
        self._valid[token.value] = token
        lifetime = int(self._lifetime_seconds)
        content = {
            "token_type": "Bearer",
            "access_token": token.value,
            "grant_type": "client_credentials",
            "issued_at": int(now * 1000),
            "expires_in": str(lifetime) if self._expires_in_text else lifetime,
        }
        self.minting.count()
        return await self.send(request, recorded, json_answer(200, content))

    def _generations(self) -> list[dict[str, object]]:
        return [
            {
                "generation_id": f"dummy-{number}",
                "audio": base64.b64encode(chunk).decode(),
                "duration": 0.1,
                "encoding": {"format": "mp3", "sample_rate": 48000},
                "file_size": len(chunk),
                "snippets": [],
            }
            for number, chunk in enumerate(self.chunks)
        ]

    def _snippets(self) -> list[bytes]:
        """One JSON document per line; Hume's stream is no SSE whatever its name says."""
        lines = [
            {
                "type": "audio",
                "audio": base64.b64encode(chunk).decode(),
                "audio_format": "mp3",
                "chunk_index": number,
                "generation_id": "dummy",
                "is_last_chunk": number == len(self.chunks) - 1,
                "request_id": "dummy",
                "snippet_id": f"dummy-{number}",
                "text": "dummy",
                "transcribed_text": None,
                "utterance_index": 0,
            }
            for number, chunk in enumerate(self.chunks)
        ]
        return [json.dumps(line).encode() + b"\n" for line in lines]
