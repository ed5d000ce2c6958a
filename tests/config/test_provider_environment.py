"""What a command gets instead of keys: base URLs, placeholders, and what is withheld."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import pytest

from proxy.config.presets import presets
from tests.support.provider_facts import NAMES

# Variables for base URLs that official SDKs read, with what each expects.
BASE_URLS: dict[str, Mapping[str, str]] = {
    "aigne-hub": {"AIGNE_HUB_API_URL": "{base}", "BLOCKLET_AIGNE_API_URL": "{base}"},
    "anthropic": {"ANTHROPIC_BASE_URL": "{base}"},
    "assemblyai": {"ASSEMBLYAI_BASE_URL": "{base}"},
    "assemblyai-dictation": {"ASSEMBLYAI_DICTATION_BASE_URL": "{base}"},
    "assemblyai-llm-gateway": {"ASSEMBLYAI_LLM_GATEWAY_BASE_URL": "{base}"},
    "assemblyai-sync": {"ASSEMBLYAI_SYNC_BASE_URL": "{base}"},
    "assemblyai-tts": {"ASSEMBLYAI_TTS_BASE_URL": "{base}"},
    "azure-openai": {"AZURE_OPENAI_ENDPOINT": "{base}"},
    "cartesia": {"CARTESIA_BASE_URL": "{base}"},
    "cohere": {"CO_API_URL": "{base}"},
    "fireworks": {
        "FIREWORKS_BASE_URL": "{base}/inference",
        "FIREWORKS_TRAINER_GATEWAY_URL": "{base}",
        "TINKER_BASE_URL": "{base}/training/v1/serverless",
    },
    "gemini": {"GOOGLE_GEMINI_BASE_URL": "{base}"},
    "github": {"GITHUB_API_URL": "{base}", "GITHUB_GRAPHQL_URL": "{base}/graphql"},
    "github-app": {"GITHUB_API_URL": "{base}", "GITHUB_GRAPHQL_URL": "{base}/graphql"},
    "gladia": {"GLADIA_API_URL": "{base}"},
    "groq": {"GROQ_BASE_URL": "{base}"},
    "home-assistant": {"HASS_SERVER": "{base}"},
    "huggingface": {"HF_ENDPOINT": "{base}", "HF_HUB_DISABLE_XET": "1"},
    "hume": {"HUME_BASE_URL": "{base}"},
    "inworld": {"INWORLD_BASE_URL": "{base}"},
    "lmnt": {"LMNT_BASE_URL": "{base}"},
    "mistral": {"MISTRAL_AUDIO_BASE_URL": "{base}"},
    "openai": {"OPENAI_BASE_URL": "{base}/v1", "OPENAI_API_BASE": "{base}/v1"},
    "perplexity": {"PERPLEXITY_BASE_URL": "{base}"},
    "replicate": {"REPLICATE_BASE_URL": "{base}"},
    "soniox": {"SONIOX_API_BASE_URL": "{base}"},
    "soniox-stt": {"SONIOX_WS_URL": "{base}/transcribe-websocket"},
    "soniox-tts": {
        "SONIOX_TTS_API_URL": "{base}",
        "SONIOX_TTS_WS_URL": "{base}/tts-websocket",
    },
    "speechmatics": {"SPEECHMATICS_BATCH_URL": "{base}/v2"},
    "speechmatics-rt": {"SPEECHMATICS_RT_URL": "{ws_base}/v2"},
    "together": {"TOGETHER_BASE_URL": "{base}", "TOGETHER_API_BASE_URL": "{base}/v1"},
}
# Names of one key, beside the first, that clients read.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "aigne-hub": ("BLOCKLET_AIGNE_API_CREDENTIAL",),
    "azure-openai": ("AZURE_API_KEY",),
    "cohere": ("COHERE_API_KEY",),
    "elevenlabs": ("ELEVEN_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY", "GOOGLE_GENAI_API_KEY"),
    "github": ("GH_TOKEN",),
    "huggingface": ("HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_API_KEY"),
    "replicate": ("REPLICATE_API_KEY",),
    "stripe": ("STRIPE_SECRET_KEY",),
    "together": ("TOGETHER_AI_API_KEY",),
    "twilio": ("TWILIO_API_SECRET",),
}
# What clients check in a key before they send it.
CHECKED: dict[tuple[str, str], str] = {
    ("anthropic", "api_key"): r"sk-ant-",
    ("elevenlabs", "api_key"): r"sk_",
    ("huggingface", "api_key"): r"hf_",
    ("huggingface-inference", "api_key"): r"hf_",
    ("inworld", "api_key"): r"[A-Za-z0-9+/]+={0,2}\Z",
    ("openai", "api_key"): r"sk-",
    ("stripe", "api_key"): r"sk_test_",
    ("telegram", "bot_token"): r"\d+:",
    ("twilio", "account_sid"): r"AC[0-9a-f]{32}\Z",
    ("twilio", "api_key"): r"SK[0-9a-f]{32}\Z",
}


def test_base_urls_are_set_as_the_sdks_expect_them() -> None:
    """Every variable that an official SDK reads for a base URL, and no other."""
    found = {name: dict(one.environment) for name, one in presets().items() if one.environment}
    assert found == BASE_URLS


def test_a_key_is_known_under_every_name() -> None:
    """Each is a source of the secret, so each is removed from a command's environment too."""
    for name, others in OTHER_NAMES.items():
        references = {one for each in presets()[name].secrets.values() for one in each.references}
        assert references >= {f"env:{other}" for other in others}, name


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_are_no_keys(name: str) -> None:
    """A placeholder has the form that clients check, and says that it is none."""
    for secret, source in presets()[name].secrets.items():
        if (placeholder := source.placeholder) is None:
            assert source.multiline or name == "azure-openai"
            continue
        assert re.match(CHECKED.get((name, secret), ""), placeholder), secret
        assert "unused" in (placeholder, *re.split(r"[-_:]", placeholder)) or (
            set(placeholder[2:]) == {"0"} or base64.b64decode(placeholder) == b"unused:unused"
        )


def test_tokens_beside_the_key_are_withheld() -> None:
    """Variables with credentials of another kind are removed, and are no sources of the key."""
    found = {name: one.withhold for name, one in presets().items() if one.withhold}
    assert found == {
        "anthropic": (
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_IDENTITY_TOKEN",
            "ANTHROPIC_ENVIRONMENT_KEY",
            "ANTHROPIC_WORK_SECRET",
        ),
        "azure-openai": ("AZURE_OPENAI_AD_TOKEN",),
        "gemini": ("GOOGLE_GENAI_ACCESS_TOKEN",),
        "openai": ("OPENAI_ADMIN_KEY",),
        "xai": ("XAI_MANAGEMENT_KEY",),
    }
