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
