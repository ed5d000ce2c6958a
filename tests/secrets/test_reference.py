from __future__ import annotations

import pytest

from proxy.config.secret import SecretSettings
from proxy.errors import ConfigValueError
from proxy.secrets.envelope import Envelope, SealBinding
from proxy.secrets.reference import display_reference, parse_reference

SEALED = str(Envelope.of("1a2b3c4d", bytes(60), SealBinding("r", "https://a.dev:443"), "k"))


@pytest.mark.parametrize(
    ("text", "parts", "shown"),
    [
        ("env:NAME", ("env", "NAME"), "env:NAME"),
        ("file:/run/secrets/a", ("file", "/run/secrets/a"), "file:/run/secrets/a"),
        ("credential:a.b-c", ("credential", "a.b-c"), "credential:a.b-c"),
        ("keyring:acme/dev/key", ("keyring", "acme/dev/key"), "keyring:acme/dev/key"),
        ("exec:op read op://v/i", ("exec", "op read op://v/i"), "exec:op …"),
        ("exec:'/opt/my tool'", ("exec", "'/opt/my tool'"), "exec:/opt/my tool"),
        (SEALED, ("sealed", SEALED.removeprefix("sealed:")), "sealed:1a2b3c4d:…"),
        ("builtin:demo", ("builtin", "demo"), "builtin:demo"),
    ],
)
def test_a_reference(text: str, parts: tuple[str, str], shown: str) -> None:
    """Source and rest, and what of it may be shown."""
    assert parse_reference(text) == parts
    assert display_reference(text) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dummy-inline", "invalid secret reference"),
        ("env:dummy-inline", "invalid variable name"),
        ("file:dummy/relative", "not absolute"),
        ("credential:../dummy", "LoadCredential"),
        ("credential:", "LoadCredential"),
        ("credential:..", "LoadCredential"),
        ("keyring:dummy", "service and a user"),
        ("keyring:dummy/", "service and a user"),
        ("keyring:/dummy", "service and a user"),
        ("exec:", "the command is missing"),
        ("exec:''", "the command is missing"),
        ("exec:dummy 'open", "not closed"),
        ("exec:dummy\nmore", "one line"),
        (SEALED[:-5], "truncated"),
        ("sealed:dummy", "incomplete sealed value"),
        ("builtin:dummy", "only the key of the demo provider"),
        ("acme:dummy", "unknown secret source"),
    ],
)
def test_what_is_no_reference(text: str, words: str) -> None:
    """It is refused with what to write, and not repeated: it may be the secret itself."""
    with pytest.raises(ConfigValueError, match=words) as caught:
        parse_reference(text)
    assert "dummy" not in str(caught.value)
    assert caught.value.message
    assert caught.value.hint


def test_the_long_form_of_a_command() -> None:
    """Time to live and time to wait stand beside the command."""
    from pydantic import TypeAdapter

    from proxy.config.secret import AnySecret

    form = {"exec": "op read op://v/i", "ttl_seconds": 300, "timeout_seconds": 2}
    read = TypeAdapter(AnySecret).validate_python(form)
    assert read == SecretSettings(
        references=("exec:op read op://v/i",), ttl_seconds=300, timeout_seconds=2
    )
    assert SecretSettings(references=("exec:op",)).timeout_seconds == 10


@pytest.mark.parametrize(
    "name",
    ["HUME_API_KEY", "https_proxy", "openai_api_key", "AzureApiKey", "apiKey2", "npm_config_token"],
)
def test_names_of_variables(name: str) -> None:
    """Names in small letters, capitals or both are names."""
    assert parse_reference(f"env:{name}") == ("env", name)


@pytest.mark.parametrize(
    "text",
    [
        "sk_live_dummy",
        "hf_dummydummydummy",
        "dummy0123abcd4567efab0123456789ab",
        "aB3dummyXY9z",
        "a" * 65,
        "d-ummy",
        "1dummy",
        "",
    ],
)
def test_what_could_be_a_key_is_no_name(text: str) -> None:
    """A pasted key is refused and not repeated, also where it could be the name of a variable."""
    with pytest.raises(ConfigValueError) as caught:
        parse_reference(f"env:{text}")
    assert not text or text not in str(caught.value)
