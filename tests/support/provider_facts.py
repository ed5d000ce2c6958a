"""What providers document: credentials, places of client credentials, calls, by preset.

Expectations of the tests of presets, in words of their own.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import proxy
from proxy.config.presets import presets

ROOT = Path(proxy.__file__).parent.parent
FOLDER = ROOT / "proxy" / "providers"
NAMES = sorted(presets())
FOREIGN = "dummy-client"  # whatever a client brings along as a credential has this in it
TOKEN = "dummy-token-of-the-endpoint"
JWT = "eyJhbGciOiJub25lIn0.eyJkdW1teS1jbGllbnQiOjF9."

# What leaves: HTTP and WebSocket, by strategy. In braces a secret; "?" begins a query parameter,
# "/" a path, "Basic" what is still to be encoded; IN_MESSAGE nothing of the handshake.
Sent = Mapping[str, tuple[str | None, str | None]]
IN_MESSAGE = "message"
BEARER = "Authorization: Bearer {api_key}"
TOKEN_BEARER = "Authorization: Bearer {token}"
HTTP_BEARER: Sent = {"api_key": (BEARER, None)}
BOTH_BEARER: Sent = {"api_key": (BEARER, BEARER)}


def both(sent: str) -> tuple[str, str]:
    return (sent, sent)


SENT: dict[str, Sent] = {
    "aigne-hub": HTTP_BEARER,
    "anthropic": {"api_key": ("x-api-key: {api_key}", None)},
    "assemblyai": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-agents": BOTH_BEARER,
    "assemblyai-dictation": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-llm-gateway": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-streaming": {"api_key": both("Authorization: {api_key}")},
    "assemblyai-sync": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-tts": {"api_key": both("Authorization: {api_key}")},
    "azure-openai": {"api_key": both("api-key: {api_key}"), "entra": both(TOKEN_BEARER)},
    "azure-speech": {"api_key": both("Ocp-Apim-Subscription-Key: {api_key}")},
    "camb": {"api_key": both("x-api-key: {api_key}")},
    "camb-realtime": {"api_key": both("x-api-key: {api_key}")},
    "cartesia": BOTH_BEARER,
    "cohere": HTTP_BEARER,
    "deepgram": {"api_key": both("Authorization: Token {api_key}")},
    "deepgram-agent": {"api_key": both("Authorization: Token {api_key}")},
    "deepseek": HTTP_BEARER,
    "demo": {"key": ("X-Demo-Key: {key}", "?demo_key={key}")},
    "discord": {"bot_token": ("Authorization: Bot {bot_token}", None)},
    "discord-gateway": {"bot_token": (None, IN_MESSAGE)},
    "elevenlabs": {"api_key": both("xi-api-key: {api_key}")},
    "fireworks": HTTP_BEARER,
    "gemini": {"api_key": ("x-goog-api-key: {api_key}", "?key={api_key}")},
    "github": {"token": ("Authorization: Bearer {access_token}", None)},
    "github-app": {"installation": (TOKEN_BEARER, None)},
    "gladia": {"api_key": ("x-gladia-key: {api_key}", None)},
    "google-service-account": {"token": both(TOKEN_BEARER)},
    "groq": HTTP_BEARER,
    "home-assistant": {"access_token": ("Authorization: Bearer {access_token}", IN_MESSAGE)},
    "huggingface": HTTP_BEARER,
    "huggingface-inference": HTTP_BEARER,
    "hume": {
        "token": (TOKEN_BEARER, "?access_token={token}"),
        "api_key": ("X-Hume-Api-Key: {api_key}", "?api_key={api_key}"),
    },
    "inworld": {
        "session": both(TOKEN_BEARER),
        "api_key": both("Authorization: Basic {api_key}"),
    },
    "inworld-studio": {"api_key": ("Authorization: Basic {api_key}", None)},
    "lmnt": {"api_key": ("X-API-Key: {api_key}", IN_MESSAGE)},
    "mistral": BOTH_BEARER,
    "openai": BOTH_BEARER,
    "openrouter": HTTP_BEARER,
    "perplexity": HTTP_BEARER,
    "replicate": {"api_token": ("Authorization: Bearer {api_token}", None)},
    "rime": HTTP_BEARER,
    "rime-streaming": {"api_key": (None, BEARER)},
    "soniox": HTTP_BEARER,
    "soniox-stt": {"api_key": (None, BEARER)},
    "soniox-tts": BOTH_BEARER,
    "speechmatics": HTTP_BEARER,
    "speechmatics-rt": {"api_key": (None, BEARER)},
    "spotify": {"token": (TOKEN_BEARER, None)},
    "stripe": HTTP_BEARER,
    "telegram": {"bot_token": ("/bot{bot_token}", None)},
    "together": HTTP_BEARER,
    "twilio": {
        "api_key": ("Basic {api_key}:{api_key_secret}", None),
        "account": ("Basic {account_sid}:{auth_token}", None),
    },
    "xai": BOTH_BEARER,
}

# Credentials in uncommon places that the provider's own clients bring along: query parameters …
QUERY: dict[str, tuple[str, ...]] = {
    "assemblyai-streaming": ("token",),
    "assemblyai-agents": ("token",),
    "assemblyai-tts": ("token",),
    "azure-openai": ("Authorization", "api-key"),
    "azure-speech": ("Ocp-Apim-Subscription-Key", "Authorization"),
    "cartesia": ("access_token", "api_key"),
    "elevenlabs": ("single_use_token", "token", "conversation_signature", "xi-api-key"),
    "gemini": ("key", "access_token"),
    "google-service-account": ("key", "access_token"),
    "hume": ("apiKey", "accessToken", "apikey"),
    "home-assistant": ("authSig", "token"),
    "speechmatics-rt": ("jwt",),
}
# First messages of WebSockets: of the provider, of the client, and what the provider gets of it.
# KEY is the credential.
MESSAGES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "camb-realtime": (
        (
            "",
            '{"type":"session.update","session":{},"auth":{"api_key":"dummy-client"}}',
            '{"type":"session.update","session":{}}',
        ),
    ),
    "discord-gateway": (
        (
            '{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}',
            '{"op":2,"d":{"token":"dummy-client","intents":0,"properties":{}}}',
            '{"op":2,"d":{"token":"KEY","intents":0,"properties":{}}}',
        ),
        (
            '{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}',
            '{"op":6,"d":{"seq":5,"session_id":"s","token":"dummy-client"}}',
            '{"op":6,"d":{"seq":5,"session_id":"s","token":"KEY"}}',
        ),
    ),
    "soniox-stt": (
        (
            "",
            '{"api_key":"dummy-client","model":"stt-rt-v5"}',
            '{"model":"stt-rt-v5"}',
        ),
    ),
    "soniox-tts": (("", '{"model":"tts", "api_key":"dummy-client"}', '{"model":"tts"}'),),
    "speechmatics-rt": (
        (
            "",
            '{"message":"StartRecognition","auth_token":"dummy-client"}',
            '{"message":"StartRecognition"}',
        ),
    ),
    "home-assistant": (
        (
            '{"type":"auth_required","ha_version":"2026.11.0"}',
            '{"type": "auth", "access_token": "dummy-client"}',
            '{"type":"auth","access_token":"KEY"}',
        ),
    ),
    "lmnt": (
        (
            "",
            '{"X-API-Key": "dummy-client", "voice": "leah", "speed": 1.0}',
            '{"X-API-Key": "KEY", "voice": "leah", "speed": 1.0}',
        ),
    ),
}
# … and subprotocols: what is offered, and what of it passes.
OFFERED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "deepgram": (("token", FOREIGN), ()),
    "deepgram-agent": (("bearer", FOREIGN), ()),
    "elevenlabs": (("convai", f"bearer.{FOREIGN}"), ("convai",)),
    "inworld": (("bearer", JWT, f"bearer_{FOREIGN}"), ()),
    "mistral": (("realtime", f"rt_{FOREIGN}"), ("realtime",)),
    "openai": (("realtime", f"openai-insecure-api-key.{FOREIGN}"), ("realtime",)),
    "soniox-stt": (("soniox-api-key", FOREIGN), ()),
    "soniox-tts": (("soniox-api-key", FOREIGN), ()),
    "xai": (("realtime", f"xai-client-secret.{FOREIGN}"), ("realtime",)),
}
WELL_KNOWN = (
    *("Authorization", "Cookie", "X-Api-Key", "api-key", "x-goog-api-key", "xi-api-key"),
    *("X-Session-Token", "X-Api-Token", "x-gladia-key"),
)

MINTING = ROOT / "tests" / "config" / "minting.yaml"
"""Calls that return or mint a credential, by preset; the file explains its fields."""

# What is near to those and has to pass.
CALLS: dict[str, tuple[str, ...]] = {
    "azure-openai": ("GET /openai/realtime", "POST /openai/deployments/d/chat/completions"),
    "deepgram": ("GET /v1/listen", "GET /v1/projects/p/usage"),
    "discord": (
        "POST /api/v10/channels/c/messages",
        "POST /api/v10/webhooks/w/dummy-token-in-the-path",
        "POST /api/v10/interactions/i/t/callback",
    ),
    "elevenlabs": ("GET /v1/convai/conversation", "GET /v1/text-to-speech/v/stream-input"),
    "github": ("POST /repos/a/b/issues", "GET /user/keys"),
    "google-service-account": ("POST /v1/projects/p/locations/l/endpoints/e:predict",),
    "hume": ("POST /v0/tts/stream/json",),
    "gladia": ("POST /v2/live", "POST /v2/pre-recorded"),
    "mistral": ("GET /v1/audio/sessions/s", "GET /v1/webhooks"),
    "openrouter": ("GET /api/v1/key", "POST /api/v1/chat/completions"),
    "together": ("GET /v1/compute/clusters/storage/volumes", "POST /v1/chat/completions"),
    "xai": ("GET /v1/realtime",),
    "inworld": (
        "POST /tts/v1/voice:stream",
        "GET /api/v1/realtime/session",
        "POST /v1/realtime/calls",
    ),
    "openai": ("GET /v1/realtime", "POST /v1/realtime/calls", "POST /v1/responses"),
    "stripe": ("POST /v1/payment_intents",),
    "twilio": ("POST /2010-04-01/Accounts/AC1/Messages.json",),
}

# Whose address only the user knows.
WITHOUT_UPSTREAM = {
    "azure-openai": "https://dummy.openai.azure.com",
    "azure-speech": "https://dummy.stt.speech.microsoft.com",
    "google-service-account": "https://aiplatform.googleapis.com",
    "home-assistant": "https://home.example.org",
}


@functools.cache
def minting() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = yaml.safe_load(MINTING.read_text(encoding="utf-8"))
    return entries


def spellings(path: str) -> list[str]:
    """The path as clients and servers may spell it; each addresses the same call somewhere."""
    letter = re.search(r"[a-z](?!.*[a-z])", path)
    assert letter is not None
    encoded = f"{path[: letter.start()]}%{ord(letter[0]):02x}{path[letter.end() :]}"
    first, last = path.find("/", 1), path.rindex("/")
    return [
        path,
        path.upper(),
        f"{path}/",
        f"{path};v=1",
        f"/{path}",
        f"{path[:last]}/{path[last:]}",
        f"{path[:first]}/{path[first:]}" if first > 0 else f"{path}//",
        f"{path[:last]}%2F{path[last + 1 :]}" if last else f"{path}%2F",
        encoded,
        encoded.replace("%", "%25"),
    ]


def basic(user: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(user + b":" + password).decode()
