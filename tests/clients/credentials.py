"""What each provider takes as credential and where, written by hand from the providers' pages.

Kept apart from the presets, so that a preset that is wrong is not the measure of itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HUME_TOKEN: Final = "REAL-hume-token-canary"
INWORLD_TOKEN: Final = "REAL-inworld-token-canary"
SPOTIFY_TOKEN: Final = "REAL-spotify-token-canary"
_PORTAL: Final = base64.b64encode(b"real-inworld-key:real-inworld-secret-canary").decode()

_FORMS: Final = {
    "INWORLD_API_KEY": _PORTAL,
    "TWILIO_ACCOUNT_SID": "AC" + "5f0c" * 8,
    "TWILIO_API_KEY": "SK" + "5f0c" * 8,
    "TELEGRAM_BOT_TOKEN": "5050505050:REAL-telegram-canary",
}

VARIABLES: Final = (
    "AIGNE_HUB_API_KEY", "ANTHROPIC_API_KEY", "ASSEMBLYAI_API_KEY", "AZURE_OPENAI_API_KEY",
    "AZURE_SPEECH_KEY", "CAMB_API_KEY", "CARTESIA_API_KEY", "CO_API_KEY", "DEEPGRAM_API_KEY",
    "DEEPSEEK_API_KEY", "ELEVENLABS_API_KEY", "FIREWORKS_API_KEY", "GEMINI_API_KEY",
    "GITHUB_TOKEN", "GLADIA_API_KEY", "GROQ_API_KEY", "HF_TOKEN", "HUME_API_KEY",
    "HUME_SECRET_KEY", "INWORLD_API_KEY", "LMNT_API_KEY", "MISTRAL_API_KEY", "OPENAI_API_KEY",
    "OPENROUTER_API_KEY", "PERPLEXITY_API_KEY", "REPLICATE_API_TOKEN", "RIME_API_KEY",
    "SONIOX_API_KEY", "SPEECHMATICS_API_KEY", "SPOTIPY_CLIENT_ID", "SPOTIPY_CLIENT_SECRET",
    "STRIPE_API_KEY", "TELEGRAM_BOT_TOKEN", "TOGETHER_API_KEY", "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN", "XAI_API_KEY",
)  # fmt: skip

VALUES: Final[Mapping[str, str]] = {
    name: _FORMS.get(name, f"REAL-{name.lower().replace('_', '-')}-canary") for name in VARIABLES
}
"""The keys that keyrelay is given; none may be seen anywhere but at its provider."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request has to bring.

    credential      ``header authorization: Bearer …``, ``path /…/`` with which the target has to
                    begin, or ``message name: …`` for a member of the first message of a WebSocket;
                    None if there is no such provider
    harmless        names in a query that are no credential here
    headers         further header fields in which this provider's clients send a key
    token_endpoint  keyrelay's own call for a token
    """

    credential: str | None
    harmless: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    token_endpoint: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    """One place of one host: the first rule whose pattern matches ``path`` counts."""

    place: str
    path: str = ".*"
    websocket: bool | None = None
    harmless: frozenset[str] = field(default=frozenset())
    headers: frozenset[str] = field(default=frozenset())
    token_endpoint: bool = False


def _bearer(variable: str) -> list[_Rule]:
    return [_Rule(f"header authorization: Bearer {{{variable}}}")]


_HUME_TOKENS = r"/+v0/(evi|tts)(/.*)?"
_INWORLD_SESSIONS = r"/(api/)?v1/realtime/.*|/(tts|stt)/v1/\w+:streamBidirectional"
_TWILIO = base64.b64encode(
    f"{VALUES['TWILIO_ACCOUNT_SID']}:{VALUES['TWILIO_AUTH_TOKEN']}".encode()
).decode()

RULES: Final[Mapping[str, list[_Rule]]] = {
    "api.hume.ai": [
        _Rule("", "/oauth2-cc/token", token_endpoint=True),
        _Rule(f"query access_token: {HUME_TOKEN}", _HUME_TOKENS, websocket=True),
        _Rule(f"header authorization: Bearer {HUME_TOKEN}", _HUME_TOKENS),
        _Rule("query api_key: {HUME_API_KEY}", websocket=True),
        _Rule("header x-hume-api-key: {HUME_API_KEY}"),
    ],
    "hub.aigne.io": _bearer("AIGNE_HUB_API_KEY"),
    "client.camb.ai": [_Rule("header x-api-key: {CAMB_API_KEY}")],
    "realtime.camb.ai": [_Rule("header x-api-key: {CAMB_API_KEY}")],
    "api.inworld.ai": [
        _Rule("", r"/(auth/v1/tokens|v1/sessionTokens)/token:generate", token_endpoint=True),
        _Rule(
            f"header authorization: Bearer {INWORLD_TOKEN}",
            _INWORLD_SESSIONS,
            harmless=frozenset({"key"}),  # the name of a session, which the client makes up
        ),
        _Rule("header authorization: Basic {INWORLD_API_KEY}"),
    ],
    "api.anthropic.com": [_Rule("header x-api-key: {ANTHROPIC_API_KEY}")],
    "api.assemblyai.com": [_Rule("header authorization: {ASSEMBLYAI_API_KEY}")],
    "streaming.assemblyai.com": [_Rule("header authorization: {ASSEMBLYAI_API_KEY}")],
    "example.openai.azure.com": [_Rule("header api-key: {AZURE_OPENAI_API_KEY}")],
    "westeurope.tts.speech.microsoft.com": [
        _Rule("header ocp-apim-subscription-key: {AZURE_SPEECH_KEY}")
    ],
    "api.cartesia.ai": _bearer("CARTESIA_API_KEY"),
    "api.cohere.com": _bearer("CO_API_KEY"),
    "api.deepgram.com": [_Rule("header authorization: Token {DEEPGRAM_API_KEY}")],
    "agent.deepgram.com": [_Rule("header authorization: Token {DEEPGRAM_API_KEY}")],
    "api.deepseek.com": _bearer("DEEPSEEK_API_KEY"),
    "api.elevenlabs.io": [_Rule("header xi-api-key: {ELEVENLABS_API_KEY}")],
    "api.fireworks.ai": _bearer("FIREWORKS_API_KEY"),
    "generativelanguage.googleapis.com": [
        _Rule("query key: {GEMINI_API_KEY}", websocket=True),
        _Rule("header x-goog-api-key: {GEMINI_API_KEY}"),
    ],
    "api.github.com": _bearer("GITHUB_TOKEN"),
    "api.gladia.io": [
        _Rule("header x-gladia-key: {GLADIA_API_KEY}", headers=frozenset({"x-gladia-key"}))
    ],
    "api.groq.com": _bearer("GROQ_API_KEY"),
    "huggingface.co": _bearer("HF_TOKEN"),
    "router.huggingface.co": _bearer("HF_TOKEN"),
    "api.lmnt.com": [
        _Rule("message X-API-Key: {LMNT_API_KEY}", websocket=True),
        _Rule("header x-api-key: {LMNT_API_KEY}"),
    ],
    "api.mistral.ai": _bearer("MISTRAL_API_KEY"),
    "api.openai.com": _bearer("OPENAI_API_KEY"),
    "openrouter.ai": _bearer("OPENROUTER_API_KEY"),
    "api.perplexity.ai": _bearer("PERPLEXITY_API_KEY"),
    "api.replicate.com": _bearer("REPLICATE_API_TOKEN"),
    "api.soniox.com": _bearer("SONIOX_API_KEY"),
    "stt-rt.soniox.com": _bearer("SONIOX_API_KEY"),
    "tts-rt.soniox.com": _bearer("SONIOX_API_KEY"),
    "accounts.spotify.com": [_Rule("", "/api/token", token_endpoint=True)],
    "api.spotify.com": [_Rule(f"header authorization: Bearer {SPOTIFY_TOKEN}")],
    "eu2.rt.speechmatics.com": _bearer("SPEECHMATICS_API_KEY"),
    "asr.api.speechmatics.com": _bearer("SPEECHMATICS_API_KEY"),
    "api.stripe.com": _bearer("STRIPE_API_KEY"),
    "api.telegram.org": [_Rule("path /bot{TELEGRAM_BOT_TOKEN}/")],
    "api.together.ai": _bearer("TOGETHER_API_KEY"),
    "api.twilio.com": [_Rule(f"header authorization: Basic {_TWILIO}")],
    "api.x.ai": _bearer("XAI_API_KEY"),
}

# Real names that no route leads to, but that clients dial by themselves.
ELSEWHERE: Final = (
    "api-inference.together.ai",
    "files.stripe.com",
)

HOSTS: Final = (*RULES, *ELSEWHERE)


def expected(host: str, target: str, websocket: bool, values: Mapping[str, str]) -> Expected:
    """What a request to ``target`` of ``host`` has to bring."""
    path = target.partition("?")[0]
    for rule in RULES.get(host, ()):
        if re.fullmatch(rule.path, path) and rule.websocket in (None, websocket):
            credential = rule.place.format_map(values) or None
            return Expected(credential, rule.harmless, rule.headers, rule.token_endpoint)
    return Expected(None)
