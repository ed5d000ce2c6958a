"""AIGNE Hub: a bearer key, 400 for duplicates, and refusals that may come as HTTP 200.

https://www.aigne.io/docs (authentication) and the public sources of the hub, read 2026-11-21.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Iterator

from aiohttp import web

from tests.emulators import carriers
from tests.emulators.answers import Answer, Denial, Recorded, json_answer, text_answer
from tests.emulators.base import Emulator
from tests.emulators.carriers import Carrier

AIGNE_KEY = "blocklet-dummy-aigne-key"
COMPONENT_ID = "z8ia3xzq2tMq8CRHfaXj1BTYJyYnEcHbqP8cJ"  # the hub's own, public in its package

_WORDS = ("Hello", ", ", "this ", "is ", "a ", "dummy", ".")


class AigneEmulator(Emulator):
    """One hub. ``mount_point`` is where its API is: ``/app`` as hosted, ``/`` on an own domain.

    Without the mount point the same API answers too, as on a hub mounted at the root.
    """

    def __init__(
        self,
        *,
        key: str = AIGNE_KEY,
        mount_point: str = "/app",
        ssl_context: ssl.SSLContext | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        super().__init__(ssl_context=ssl_context, hosts=hosts)
        self._key = key
        self._mount_point = mount_point

    def refusal(self, recorded: Recorded) -> Answer:
        """401 in JSON; for a client that prefers an event stream, an event in a 200."""
        content = {"error": "User not authenticated"}
        if recorded.value("Accept").strip().lower().startswith("text/event-stream"):
            body = f"data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
            return Answer(200, body, (("Content-Type", "text/event-stream"),))
        return json_answer(401, content)

    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """One bearer. More than one place is the 400 that the hub's own middleware gives."""
        if len(found) > 1:
            return _duplicates(found)
        if self._is_public(recorded) and not found:
            return None
        if not found:
            return self.denied(recorded, "no credential")
        token = carriers.bearer(found[0])
        if token is None:
            return self.denied(recorded, f"no place for a credential here: {found[0]}")
        if token != self._key:
            return self.denied(recorded, "the key is wrong")
        return None

    def judge_body(self, recorded: Recorded) -> Denial | None:
        """The hub looks for an access_token in bodies too; beside the header it is a duplicate."""
        content = recorded.json()
        if isinstance(content, dict) and "access_token" in content:
            return _duplicates([Carrier("header", "authorization", ""), "body access_token"])
        return None

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """Chat in both forms, models, the blocklet's description."""
        path = self._api_path(recorded.path)
        match recorded.method, path:
            case "GET", "/__blocklet__.js":
                mounts = [{"did": COMPONENT_ID, "mountPoint": self._mount_point}]
                content: object = {"componentMountPoints": mounts}
                return await self.send(request, recorded, json_answer(200, content))
            case "GET", "/api/ai/models" | "/api/ai-providers/models":
                return await self.send(request, recorded, json_answer(200, []))
            case "POST", "/api/v2/chat":
                events = _events({"delta": {"text": {"text": word}}} for word in _WORDS)
                return await self.stream(request, recorded, "text/event-stream", events)
            case (
                "POST",
                "/api/chat/completions" | "/api/v1/chat/completions" | "/api/v2/chat/completions",
            ):
                return await self._complete(request, recorded)
        if path.startswith("/api/"):
            return await self.report(request, recorded)
        return await self.nowhere(request, recorded)

    async def _complete(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """Deltas of the hub's own form, not OpenAI's choices."""
        content = recorded.json()
        if not isinstance(content, dict) or not content.get("messages"):
            answer = json_answer(400, {"error": '"messages" is required'})
            return await self.refuse(request, recorded, Denial("no messages", answer))
        if not content.get("stream"):
            whole = {"role": "assistant", "content": "".join(_WORDS)}
            return await self.send(request, recorded, json_answer(200, whole))
        if "text/event-stream" not in recorded.value("Accept"):
            words = (word.encode() for word in _WORDS)
            return await self.stream(request, recorded, "text/plain; charset=utf-8", words)
        deltas = [{"delta": {"role": "assistant", "content": word}} for word in _WORDS]
        usage = {"usage": {"promptTokens": 1, "completionTokens": len(_WORDS)}}
        events = [*_events([*deltas, usage]), b"data: [DONE]\n\n"]
        return await self.stream(request, recorded, "text/event-stream", events)

    def _api_path(self, path: str) -> str:
        mount = self._mount_point.rstrip("/")
        return path.removeprefix(mount) if path.startswith(f"{mount}/") else path

    def _is_public(self, recorded: Recorded) -> bool:
        return self._api_path(recorded.path) in (
            "/__blocklet__.js",
            "/api/ai/models",
            "/api/ai-providers/models",
        )


def _duplicates(found: Iterable[object]) -> Denial:
    answer = text_answer(400, "Access token found in multiple locations")
    return Denial(f"several credentials: {', '.join(map(str, found))}", answer)


def _events(contents: Iterable[object]) -> Iterator[bytes]:
    for content in contents:
        yield f"data: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
