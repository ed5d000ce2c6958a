"""Inworld: Basic, session tokens by signed mint, one-time tokens; REST, sockets, WebRTC.

https://docs.inworld.ai (portal/api-key-auth, session-tokens, ephemeral-tokens, realtime/connect)
and the public sample application for the signature, read 2026-11-21. The refusals are as a third
party saw them on 2026-09-16.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from aiohttp import web

from tests.emulators import carriers
from tests.emulators.answers import Answer, Denial, Recorded, json_answer, text_answer
from tests.emulators.base import Emulator
from tests.emulators.carriers import Carrier
from tests.emulators.gate import Gate
from tests.emulators.signature import DOCUMENTED_MINT, SAMPLE_MINT, SIGNED, SignatureCheck
from tests.emulators.sockets import Socket

INWORLD_KEY = "dummy-inworld-key"
INWORLD_SECRET = "dummy-inworld-secret"
INWORLD_PORTAL = base64.b64encode(f"{INWORLD_KEY}:{INWORLD_SECRET}".encode()).decode()

ONE_TIME_MINT = "/auth/v1/tokens"
REALTIME = "/api/v1/realtime/session"

_LENIENT_SOCKETS: Final = (  # these say 101 first and refuse inside
    "/tts/v1/voice:streamBidirectional",
    "/stt/v1/transcribe:streamBidirectional",
)
_WEBRTC: Final = ("/v1/realtime/calls", "/v1/realtime/ice-servers")
_ROUTER: Final = "/v1/chat/completions"
_ONE_TIME_SECONDS: Final = 900
_ONE_TIME_MOST_SECONDS: Final = 3600

Accepted = Literal["basic", "session", "one-time"]


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token that the emulator gave out. ``expires_at``: seconds on the emulator's clock."""

    value: str
    kind: Literal["session", "one-time"]
    expires_at: float


class InworldEmulator(Emulator):
    """api.inworld.ai.

    accepts    the kinds of credential that are taken; a test of tokens leaves "basic" out
    lifetime_seconds, clock
               for session tokens; the clock also judges the DateTime of signatures
    minting    the gate at which session token requests stand
    minted     the tokens given out, in order
    """

    harmless_query = frozenset({"key"})  # realtime's session id, no credential

    def __init__(
        self,
        *,
        key: str = INWORLD_KEY,
        secret: str = INWORLD_SECRET,
        accepts: Iterable[Accepted] = ("basic", "session", "one-time"),
        lifetime_seconds: float = 4 * 3600,
        clock: Callable[[], float] = time.time,
        ssl_context: ssl.SSLContext | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        super().__init__(ssl_context=ssl_context, hosts=hosts)
        self._key = key
        self._portal = base64.b64encode(f"{key}:{secret}".encode()).decode()
        self._accepts = frozenset(accepts)
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock
        self._valid: dict[str, MintedToken] = {}
        self._signatures = SignatureCheck(key, secret)
        self.minting = Gate("minting", self.changes)
        self.fetched: list[MintedToken] = []

    def revoke(self) -> None:
        """Refuse every token given out so far."""
        self._valid.clear()

    # --- refusals ----------------------------------------------------------------------------

    def refusal(self, recorded: Recorded) -> Answer:
        """No credential, or one in a place that Inworld does not know."""
        return self._error(recorded, 401, _status("SESSION_TOKEN_INVALID"))

    def _unknown_key(self, recorded: Recorded, value: str) -> Answer:
        """Inworld shows the first letters of what it was given."""
        message = f'API key does not exist or was deleted: "{value[:4]}***"'
        return self._error(recorded, 403, {"code": 7, "message": message, "details": []})

    def _error(self, recorded: Recorded, status: int, error: dict[str, object]) -> Answer:
        if recorded.path == _ROUTER:
            return text_answer(401, "Unauthorized")
        content = {"error": error} if recorded.path.endswith(":stream") else error
        answer = json_answer(status, content)
        if status == 401:
            return answer.with_headers(("WWW-Authenticate", "authentication is required"))
        return answer

    # --- judgement ---------------------------------------------------------------------------

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """One credential in Authorization, or a browser's bearer_ subprotocol on a socket."""
        if len(found) != 1:
            reason = f"{len(found)} credentials: {', '.join(map(str, found))}"
            denial: Denial | None = self.denied(recorded, reason)
        elif recorded.path in SIGNED:
            denial = self._judge_signature(recorded, found[0])
        else:
            denial = self._judge_credential(recorded, found[0])
        return denial

    def _judge_credential(self, recorded: Recorded, carrier: Carrier) -> Denial | None:
        basic, token = carriers.basic(carrier), carriers.bearer(carrier)
        if carrier.place == "subprotocol" and carrier.value.startswith("bearer_"):
            token = carrier.value.removeprefix("bearer_")
        if basic is None and token is None:
            return self.denied(recorded, f"no place for a credential here: {carrier}")
        if basic is None and recorded.path in _WEBRTC and token == self._portal:
            basic, token = token, None  # the WebRTC page writes the key behind Bearer as well
        if basic is not None:
            if basic != self._portal:
                return Denial("the key is unknown", self._unknown_key(recorded, basic))
            if "basic" not in self._accepts and recorded.path != ONE_TIME_MINT:
                return self.denied(recorded, "the key, where a token was expected")
            return None
        return self._judge_token(recorded, token or "")

    def _judge_token(self, recorded: Recorded, token: str) -> Denial | None:
        fetched = self._valid.get(token)
        if fetched is None:
            return Denial("the token is unknown", self._unknown_key(recorded, token))
        if fetched.kind == "one-time":
            del self._valid[token]  # used up even if the request fails
        if recorded.path == ONE_TIME_MINT:
            return self.denied(recorded, "one-time tokens are minted with the key only")
        if fetched.kind not in self._accepts:
            return self.denied(recorded, f"a {fetched.kind} token is not expected here")
        if fetched.kind == "one-time" and recorded.path == REALTIME:
            return self.denied(recorded, "realtime takes no one-time tokens")
        if self._clock() >= fetched.expires_at:
            expired = self._error(recorded, 401, _status("SESSION_TOKEN_EXPIRED"))
            return Denial("the token has expired", expired)
        return None

    def _judge_signature(self, recorded: Recorded, carrier: Carrier) -> Denial | None:
        header = carrier.value if carrier.name == "authorization" else ""
        complaint = self._signatures.complaint(recorded.path, header, self._clock())
        if complaint is None:
            return None
        content = {"code": 7, "message": "invalid authorization signature", "details": []}
        return Denial(complaint, json_answer(403, content))

    async def refuse(
        self, request: web.BaseRequest, recorded: Recorded, denial: Denial
    ) -> web.StreamResponse:
        """Speech sockets say 101 first: then an error frame, or silence if the key is unknown."""
        lenient = recorded.websocket and recorded.path in _LENIENT_SOCKETS
        if not lenient or denial.answer.status not in (401, 403):
            return await super().refuse(request, recorded, denial)
        self.faults.append(f"{recorded.method} {recorded.path}: {denial.reason}")
        socket = Socket(recorded, self.changes)
        response = await socket.accept(request)
        if denial.answer.status == 401:
            await socket.say({"error": json.loads(denial.answer.body)})
        while await socket.receive() is not None:
            pass  # silence until the client closes
        return response

    # --- endpoints ---------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """Speech, models, realtime in both forms, and the mints."""
        path = recorded.path
        if recorded.websocket:
            return await self._serve_socket(request, recorded)
        match recorded.method, path:
            case "POST", "/auth/v1/tokens/token:generate" | "/v1/sessionTokens/token:generate":
                return await self._mint_session(request, recorded)
            case "POST", "/auth/v1/tokens":
                return await self._mint_one_time(request, recorded)
            case "POST", "/tts/v1/voice":
                audio = base64.b64encode(b"".join(self.chunks)).decode()
                return await self.send(request, recorded, json_answer(200, {"audioContent": audio}))
            case "POST", "/tts/v1/voice:stream":
                return await self.stream(request, recorded, "application/json", self._lines())
            case "GET", "/voices/v1/voices":
                return await self.send(request, recorded, json_answer(200, {"voices": []}))
            case "GET", "/v1/models":
                models = {"object": "list", "data": []}
                return await self.send(request, recorded, json_answer(200, models))
            case "POST", "/v1/chat/completions":
                return await self._complete(request, recorded)
            case "GET", "/v1/realtime/ice-servers":
                return await self.send(request, recorded, json_answer(200, _ice_servers()))
            case "POST", "/v1/realtime/calls":
                return await self._call(request, recorded)
        if path.startswith(("/tts/v1/", "/stt/v1/", "/voices/v1/", "/v1/", "/llm/v1/")):
            return await self.report(request, recorded)
        return await self.nowhere(request, recorded)

    async def _serve_socket(
        self, request: web.BaseRequest, recorded: Recorded
    ) -> web.StreamResponse:
        if recorded.path in _LENIENT_SOCKETS:
            return await self.echo(request, recorded)
        if recorded.path != REALTIME:
            return await self.nowhere(request, recorded)
        query = dict(carriers.query_pairs(recorded.target))
        if not query.get("key") or query.get("protocol") != "realtime":
            content = {"code": 3, "message": "key and protocol are required", "details": []}
            denial = Denial("realtime needs key= and protocol=realtime", json_answer(400, content))
            return await self.refuse(request, recorded, denial)
        created = {"type": "session.created", "session": {"id": query["key"]}}
        return await self.echo(request, recorded, greeting=created)

    async def _complete(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """OpenAI's format."""
        content = recorded.json()
        words = ("Hello", ", this ", "is a ", "dummy.")
        head = {"id": "dummy", "created": 1, "model": "dummy"}
        if not (isinstance(content, dict) and content.get("stream")):
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**head, "object": "chat.completion", "choices": [choice]}
            return await self.send(request, recorded, json_answer(200, whole))

        def events() -> Iterator[bytes]:
            for word in words:
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
                yield f"data: {json.dumps(chunk)}\n\n".encode()
            yield b"data: [DONE]\n\n"

        return await self.stream(request, recorded, "text/event-stream", events())

    async def _call(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """WebRTC: an offer as SDP text or within JSON; the answer in the same form."""
        media_type = recorded.value("Content-Type").partition(";")[0].strip().lower()
        content = recorded.json() if media_type == "application/json" else None
        if media_type == "application/sdp" and recorded.body.startswith(b"v=0\r\n"):
            sdp = _sdp_answer(recorded.body)
            answer = Answer(200, sdp.encode(), (("Content-Type", "application/sdp"),))
        elif isinstance(content, dict) and str(content.get("sdp")).startswith("v=0\r\n"):
            sdp = _sdp_answer(str(content["sdp"]).encode())
            answer = json_answer(200, {"id": "dummy-call", "sdp": sdp, **_ice_servers()})
        else:
            problem = {"code": 3, "message": "no SDP offer", "details": []}
            denial = Denial("no SDP offer", json_answer(400, problem))
            return await self.refuse(request, recorded, denial)
        return await self.send(request, recorded, answer)

    async def _mint_session(
        self, request: web.BaseRequest, recorded: Recorded
    ) -> web.StreamResponse:
        content = recorded.json()
        member = "key" if recorded.path == SAMPLE_MINT else "api_key"
        if not isinstance(content, dict) or content.get(member) != self._key:
            problem = {"code": 3, "message": "invalid request", "details": []}
            denial = Denial(f"the mint's body needs {member}", json_answer(400, problem))
            return await self.refuse(request, recorded, denial)
        await self.minting.stand()
        token = self._give("session", self._lifetime_seconds)
        answer: dict[str, object] = {
            "token": token.value,
            "type": "Bearer",
            "expirationTime": _rfc3339(token.expires_at),
            "sessionId": f"dummy-session-{len(self.fetched)}",
        }
        if recorded.path == DOCUMENTED_MINT:
            del answer["type"]
        self.minting.count()
        return await self.send(request, recorded, json_answer(200, answer))

    async def _mint_one_time(
        self, request: web.BaseRequest, recorded: Recorded
    ) -> web.StreamResponse:
        content = recorded.json()
        ttl = content.get("ttl", f"{_ONE_TIME_SECONDS}s") if isinstance(content, dict) else ""
        match = re.fullmatch(r"([0-9]{1,5})s", str(ttl))
        single_use = isinstance(content, dict) and content.get("single_use") is True
        if match is None or not single_use or not 0 < int(match[1]) <= _ONE_TIME_MOST_SECONDS:
            problem = {"code": 3, "message": "invalid request", "details": []}
            denial = Denial("not a request for a one-time token", json_answer(400, problem))
            return await self.refuse(request, recorded, denial)
        token = self._give("one-time", int(match[1]))
        answer = {
            "name": f"tokens/dummy-{len(self.fetched)}",
            "accessToken": token.value,
            "expireTime": _rfc3339(token.expires_at),
            "singleUse": True,
            "createTime": _rfc3339(self._clock()),
        }
        return await self.send(request, recorded, json_answer(200, answer))

    def _give(self, kind: Literal["session", "one-time"], lifetime_seconds: float) -> MintedToken:
        value = f"dummy-{kind}-token-{len(self.fetched) + 1}"
        token = MintedToken(value, kind, self._clock() + lifetime_seconds)
        self.fetched.append(token)
        self._valid[value] = token
        return token

    def _lines(self) -> Iterator[bytes]:
        """Newline-delimited JSON without an end mark."""
        for chunk in self.chunks:
            audio = base64.b64encode(chunk).decode()
            yield json.dumps({"result": {"audioContent": audio}}).encode() + b"\n"


def _status(error_type: str) -> dict[str, object]:
    detail = {
        "@type": "type.googleapis.com/ai.inworld.common.InworldStatus",
        "errorType": error_type,
        "reconnectType": "NO_RETRY",
        "reconnectTime": None,
        "maxRetries": 0,
    }
    return {"code": 16, "message": "authentication is required", "details": [detail]}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ice_servers() -> dict[str, object]:
    return {"ice_servers": [{"urls": ["stun:stun.invalid:3478"]}]}


def _sdp_answer(offer: bytes) -> str:
    """An answer that is different for every offer, so that a test sees that its own came back."""
    session = int.from_bytes(hashlib.sha256(offer).digest()[:6], "big")
    lines = ("v=0", f"o=- {session} 1 IN IP4 127.0.0.1", "s=-", "t=0 0")
    return "".join(f"{line}\r\n" for line in lines)
