"""What the providers respond, as far as the clients need it to be content."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from tests.clients.credentials import HUME_TOKEN, INWORLD_TOKEN, SPOTIFY_TOKEN

HELLO: Final = "Hello, this is a dummy."


@dataclass(frozen=True, slots=True)
class Body:
    """A complete response."""

    content: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A response in pieces."""

    pieces: tuple[bytes, ...]
    content_type: str = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Session:
    """A WebSocket.

    greeting  sent at once
    replies   sent once, after the first message that contains ``trigger``; ``{request}`` in them is
              that message's X-RequestId
    closes    whether the provider closes then
    """

    greeting: tuple[str | bytes, ...] = ()
    replies: tuple[str | bytes, ...] = ()
    closes: bool = False
    trigger: str = ""


Response = Body | Stream | Session


def _json(content: object, status: int = 200, **headers: str) -> Body:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Body(json.dumps(content).encode(), status=status, headers=fields)


def _events(*contents: object, done: bool = True) -> Stream:
    pieces = [f"data: {json.dumps(content)}\n\n".encode() for content in contents]
    return Stream((*pieces, b"data: [DONE]\n\n") if done else tuple(pieces))


def _named(*contents: dict[str, Any]) -> Stream:
    return Stream(
        tuple(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in contents)
    )


def _session(*greeting: object, replies: tuple[object, ...] = (), closes: bool = False) -> Session:
    return Session(_texts(greeting), _texts(replies), closes)


def _texts(messages: tuple[object, ...]) -> tuple[str | bytes, ...]:
    return tuple(one if isinstance(one, (str, bytes)) else json.dumps(one) for one in messages)


def _wav() -> bytes:
    """A tenth of a second of silence, for clients that decode it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(48000)
        sound.writeframes(bytes(9600))
    return file.getvalue()


AUDIO: Final = Stream(tuple(bytes([number]) * 2048 for number in range(4)), "audio/mpeg")
PCM: Final = bytes(3200)

_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_COMPLETION = {"id": "dummy", "created": 1, "model": "dummy", "system_fingerprint": "dummy"}
CHAT: Final = _json(
    {
        **_COMPLETION,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": HELLO},
            }
        ],
        "usage": _USAGE,
    }
)
CHAT_STREAM: Final = _events(
    *(
        {
            **_COMPLETION,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
        }
        for word in ("Hello", ", this is a dummy.")
    ),
    {
        **_COMPLETION,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": _USAGE,
    },
)
MODELS: Final = _json(
    {"object": "list", "data": [{"id": "dummy", "object": "model", "created": 1, "owned_by": "x"}]}
)
_OUTPUT = {
    "type": "message",
    "id": "dummy",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": HELLO, "annotations": []}],
}
RESPONSE: Final = _json(
    {
        "id": "dummy",
        "object": "response",
        "created_at": 1,
        "model": "dummy",
        "status": "completed",
        "output": [_OUTPUT],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 1,
            "output_tokens": 1,
            "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
)
REALTIME: Final = _session(
    {"type": "session.created", "event_id": "dummy", "session": {"type": "realtime"}},
    replies=({"type": "session.updated", "event_id": "dummy", "session": {"type": "realtime"}},),
)
MESSAGE: Final[dict[str, Any]] = {
    "id": "dummy",
    "type": "message",
    "role": "assistant",
    "model": "dummy",
    "content": [{"type": "text", "text": HELLO}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
MESSAGE_STREAM: Final = _named(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": HELLO},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 1},
    },
    {"type": "message_stop"},
)
_GENERATED: dict[str, Any] = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": HELLO}]},
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    "modelVersion": "dummy",
}
_AIGNE_COMPONENT = "z8ia3xzq2tMq8CRHfaXj1BTYJyYnEcHbqP8cJ"  # the hub, among a site's components

RESPONSES: Final[Mapping[str, Response]] = {
    # Hume
    "POST api.hume.ai/oauth2-cc/token": _json(
        {"access_token": HUME_TOKEN, "expires_in": 1800, "token_type": "Bearer"}
    ),
    "GET api.hume.ai/v0/evi/configs": _json(
        {"page_number": 0, "page_size": 10, "total_pages": 1, "configs_page": []}
    ),
    "GET api.hume.ai/v0/tts/voices": _json(
        {"page_number": 0, "page_size": 10, "total_pages": 1, "voices_page": []}
    ),
    "POST api.hume.ai/v0/tts/file": AUDIO,
    "POST api.hume.ai/v0/tts/stream/file": AUDIO,
    "POST api.hume.ai/v0/tts/stream/json": Stream(
        (json.dumps({"type": "audio", "audio": base64.b64encode(_wav()).decode()}).encode(),),
        "application/json",
    ),
    "WS api.hume.ai/v0/evi/chat": _session(
        {
            "type": "chat_metadata",
            "chat_id": "470a49f6-1dec-4afe-8b61-035d3b2d63b0",
            "chat_group_id": "9fc18597-3567-42d5-94d6-935bde84bf2f",
        },
    ),
    # AIGNE
    "GET hub.aigne.io/__blocklet__.js": _json(
        {"componentMountPoints": [{"did": _AIGNE_COMPONENT, "mountPoint": "/"}]}
    ),
    "POST hub.aigne.io/api/v2/chat": _json({"text": HELLO}),
    # CAMB.AI
    "GET client.camb.ai/apis/list-voices": _json([{"id": 147320, "voice_name": "Dummy"}]),
    "POST client.camb.ai/apis/tts-stream": AUDIO,
    "POST client.camb.ai/apis/create-custom-voice": _json({"voice_id": 5}),
    "WS realtime.camb.ai/v1/realtime": _session(
        replies=(
            {
                "type": "session.created",
                "session": {
                    "id": "dummy",
                    "mode": "fast",
                    "source_language": "en-US",
                    "target_language": "de-DE",
                },
            },
        )
    ),
    # Inworld
    "POST api.inworld.ai/auth/v1/tokens/token:generate": _json(
        {
            "token": INWORLD_TOKEN,
            "type": "Bearer",
            "expirationTime": "2100-01-01T00:00:00Z",
            "sessionId": "dummy",
        }
    ),
    "GET api.inworld.ai/voices/v1/voices": _json({"voices": []}),
    "POST api.inworld.ai/tts/v1/voice": _json({"audioContent": "AAAA"}),
    "POST api.inworld.ai/tts/v1/voice:stream": Stream(
        (json.dumps({"result": {"audioContent": base64.b64encode(_wav()).decode()}}).encode(),),
        "application/json",
    ),
    "POST api.inworld.ai/v1/chat/completions": CHAT,
    "WS api.inworld.ai/api/v1/realtime/session": REALTIME,
    # OpenAI and those that are like it
    "GET api.openai.com/v1/models": MODELS,
    "POST api.openai.com/v1/chat/completions?stream": CHAT_STREAM,
    "POST api.openai.com/v1/chat/completions": CHAT,
    "POST api.openai.com/v1/responses": RESPONSE,
    "POST api.openai.com/v1/audio/speech": AUDIO,
    "POST api.openai.com/v1/files": _json(
        {
            "id": "file-dummy",
            "object": "file",
            "bytes": 5,
            "created_at": 1,
            "filename": "hello.txt",
            "purpose": "user_data",
            "status": "processed",
        }
    ),
    "WS api.openai.com/v1/realtime": REALTIME,
    # Anthropic
    "POST api.anthropic.com/v1/messages?stream": MESSAGE_STREAM,
    "POST api.anthropic.com/v1/messages": _json(MESSAGE),
    # Gemini
    "POST generativelanguage.googleapis.com/*:generateContent": _json(_GENERATED),
    "POST generativelanguage.googleapis.com/*:streamGenerateContent": _events(
        _GENERATED, done=False
    ),
    "WS generativelanguage.googleapis.com/*": _session(replies=({"setupComplete": {}},)),
    # ElevenLabs
    "GET api.elevenlabs.io/v2/voices": _json(
        {"voices": [], "has_more": False, "total_count": 0, "next_page_token": None}
    ),
    "GET api.elevenlabs.io/v1/voices": _json({"voices": []}),
    "GET api.elevenlabs.io/v1/models": _json([]),
    "POST api.elevenlabs.io/v1/text-to-speech/*": AUDIO,
    "POST api.elevenlabs.io/v1/speech-to-text": _json(
        {"language_code": "en", "language_probability": 1.0, "text": HELLO, "words": []}
    ),
    "WS api.elevenlabs.io/v1/text-to-speech/*": _session(
        replies=({"audio": "AAAA", "isFinal": True},), closes=True
    ),
    "WS api.elevenlabs.io/v1/speech-to-text/realtime": _session(
        {"message_type": "session_started", "session_id": "dummy", "config": {}}
    ),
    "WS api.elevenlabs.io/v1/convai/conversation": _session(
        {
            "type": "conversation_initiation_metadata",
            "conversation_initiation_metadata_event": {
                "conversation_id": "dummy",
                "agent_output_audio_format": "pcm_16000",
                "user_input_audio_format": "pcm_16000",
            },
        }
    ),
    # Deepgram
    "GET api.deepgram.com/v1/projects": _json({"projects": []}),
    "POST api.deepgram.com/v1/speak": AUDIO,
    "POST api.deepgram.com/v1/listen": _json(
        {
            "metadata": {
                "request_id": "dummy",
                "sha256": "",
                "created": "2026-01-01T00:00:00Z",
                "duration": 1.0,
                "channels": 1,
                "models": [],
                "model_info": {},
            },
            "results": {"channels": [{"alternatives": [{"transcript": HELLO, "words": []}]}]},
        }
    ),
    "WS api.deepgram.com/v1/listen": _session(
        {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": "dummy",
            "sha256": "",
            "created": "2026-01-01T00:00:00Z",
            "duration": 1.0,
            "channels": 1,
        }
    ),
    "WS agent.deepgram.com/v1/agent/converse": _session({"type": "Welcome", "request_id": "dummy"}),
    # AssemblyAI
    "GET api.assemblyai.com/v2/transcript": _json(
        {
            "page_details": {
                "limit": 10,
                "result_count": 0,
                "current_url": "https://api.assemblyai.com/v2/transcript",
                "prev_url": None,
                "next_url": None,
            },
            "transcripts": [],
        }
    ),
    "POST api.assemblyai.com/v2/upload": _json(
        {"upload_url": "https://cdn.assemblyai.com/upload/dummy"}
    ),
    # Cartesia
    "GET api.cartesia.ai/voices": _json({"data": [], "has_more": False, "next_page": None}),
    "POST api.cartesia.ai/tts/bytes": Stream((PCM,), "audio/wav"),
    "WS api.cartesia.ai/tts/websocket": _session(),
    # Soniox
    "GET api.soniox.com/v1/models": _json({"models": []}),
    "WS stt-rt.soniox.com/transcribe-websocket": _session(),
    # Chat as OpenAI has it, elsewhere
    **{
        f"POST {where}/chat/completions{stream}": found
        for where in (
            "api.mistral.ai/v1",
            "api.groq.com/openai/v1",
            "api.together.ai/v1",
            "api.fireworks.ai/inference/v1",
            "api.perplexity.ai",
            "openrouter.ai/api/v1",
            "router.huggingface.co/v1",
            "api.x.ai/v1",
            "api.deepseek.com",
        )
        for stream, found in (("?stream", CHAT_STREAM), ("", CHAT))
    },
    "POST api.x.ai/v1/responses": RESPONSE,
    "POST api.perplexity.ai/search": _json({"id": "dummy", "results": []}),
    # Cohere
    "POST api.cohere.com/v2/chat": _json(
        {
            "id": "dummy",
            "generation_id": "dummy",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": HELLO}]},
            "usage": {"tokens": {"input_tokens": 1, "output_tokens": 1}},
        }
    ),
    # Hugging Face
    "GET huggingface.co/api/whoami-v2": _json(
        {
            "type": "user",
            "name": "dummy",
            "id": "0",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "x", "role": "read"}},
        }
    ),
    "GET huggingface.co/api/agent-harnesses": _json([]),
    # Replicate
    "GET api.replicate.com/v1/models/*": _json(
        {
            "url": "https://replicate.com/dummy/dummy",
            "owner": "dummy",
            "name": "dummy",
            "description": None,
            "visibility": "public",
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "run_count": 1,
            "cover_image_url": None,
            "default_example": None,
            "latest_version": None,
        }
    ),
    # Stripe
    "GET api.stripe.com/v1/balance": _json(
        {"object": "balance", "available": [], "pending": [], "livemode": False}
    ),
    # Twilio
    "GET api.twilio.com/2010-04-01/Accounts/*/Messages.json": _json(
        {"messages": [], "page": 0, "page_size": 1, "next_page_uri": None, "uri": "/"}
    ),
    # Spotify
    "POST accounts.spotify.com/api/token": _json(
        {"access_token": SPOTIFY_TOKEN, "token_type": "Bearer", "expires_in": 3600}
    ),
    "GET api.spotify.com/v1/markets": _json({"markets": ["DE"]}),
    # GitHub
    "GET api.github.com/user": _json({"login": "dummy", "id": 1}),
    "POST api.github.com/graphql": _json({"data": {"viewer": {"login": "dummy"}}}),
    # Azure OpenAI
    "POST example.openai.azure.com/openai/deployments/*/chat/completions": CHAT,
    "WS example.openai.azure.com/openai/realtime": REALTIME,
    # AssemblyAI's sockets
    "WS streaming.assemblyai.com/v3/ws": _session(
        {"type": "Begin", "id": "9fc18597-3567-42d5-94d6-935bde84bf2f", "expires_at": 4102444800}
    ),
    # Speechmatics
    "WS eu2.rt.speechmatics.com/v2": _session(
        replies=({"message": "RecognitionStarted", "id": "dummy"},)
    ),
    # Gladia
    "GET api.gladia.io/v2/pre-recorded": _json(
        {
            "first": "https://api.gladia.io/v2/pre-recorded",
            "current": "https://api.gladia.io/v2/pre-recorded",
            "next": None,
            "items": [],
        }
    ),
    "POST api.gladia.io/v2/upload": _json(
        {
            "audio_url": "https://api.gladia.io/file/dummy",
            "audio_metadata": {
                "id": "dummy",
                "filename": "dummy.wav",
                "extension": "wav",
                "size": 3200,
                "audio_duration": 1,
                "number_of_channels": 1,
                "source": "dummy",
            },
        }
    ),
    # LMNT
    "GET api.lmnt.com/v1/ai/voice/list": _json([]),
    "WS api.lmnt.com/v1/ai/speech/stream": _session(
        replies=({"type": "flush_complete", "nonce": 0, "buffer_empty": True},)
    ),
    # Telegram
    "POST api.telegram.org/bot*/getMe": _json(
        {
            "ok": True,
            "result": {"id": 1, "is_bot": True, "first_name": "Dummy", "username": "dummy_bot"},
        }
    ),
    # Azure Speech
    "WS westeurope.tts.speech.microsoft.com/tts/cognitiveservices/websocket/v1": Session(
        replies=tuple(
            f"X-RequestId:{{request}}\r\nContent-Type:application/json\r\nPath:{path}\r\n\r\n{{}}"
            for path in ("turn.start", "turn.end")
        ),
        trigger="Path:ssml",
    ),
}


def response(method: str, host: str, target: str, body: bytes) -> Response | None:
    """The response to a request, None if the provider has no such endpoint.

    An entry with ``?stream`` is for requests whose JSON asks for a stream.
    """
    name = f"{method} {host}{target.partition('?')[0]}"
    streaming = b'"stream":true' in body.replace(b" ", b"")
    for pattern, found in RESPONSES.items():
        wanted, _, stream = pattern.partition("?")
        if fnmatchcase(name, wanted) and (streaming or not stream):
            return found
    return None
