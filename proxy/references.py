"""Where secrets come from, as the YAML says it: ``env:NAME``, ``file:/path``. Never a value.

Whether an own source exists is the one thing that is asked of the installation here: a word that
names none could be the beginning of a secret, and the rest of it would be repeated in messages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from .envelopes import parse_envelope
from .extensions import own_source
from .spelling import Flag, Node, Seconds, check_env_name, checked_by, listed

_NOT_INLINE = (
    "write env:NAME or file:/absolute/path, credential:, keyring:, exec: or sealed:; "
    "a secret itself never belongs in this file"
)


def parse_reference(text: str) -> tuple[str, str]:
    """Split a reference to a secret into source and rest: ``env:NAME`` is ``("env", "NAME")``.

    Raises ValueError, without the text: it may be the secret itself.
    """
    source, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"a secret is named by its source\n{_NOT_INLINE}")
    if source in _CHECKS:
        _CHECKS[source](rest)
    elif not own_source(source):
        raise ValueError(f"there is no such source\n{_NOT_INLINE}")
    elif not rest or not rest.isprintable():
        raise ValueError("what follows the source is missing\nwrite it in one line, as SOURCE:NAME")
    return source, rest


def shown_reference(text: str) -> str:
    """A checked reference for messages and the status.

    Of a command its program, of a sealed value its key; of an own source only the word, as what
    follows is not known to be harmless.
    """
    source, _, rest = text.partition(":")
    if source == "exec":
        program, *others = shlex.split(rest)
        return f"exec:{program}{' …' if others else ''}"
    if source == "sealed":
        return f"sealed:{parse_envelope(text).key_id}:…"
    return text if source in _CHECKS else f"{source}:…"


def _check_file(path: str) -> None:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(
            "the path of a secret's file is not absolute\nwrite file:/run/secrets/name"
        )


def _check_credential(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]+", name) or name in {".", ".."}:
        raise ValueError(
            "this is no name of a credential of systemd\n"
            "write credential:name, as in LoadCredential=name:…"
        )


def _check_keyring(rest: str) -> None:
    service, slash, user = rest.rpartition("/")
    if not (service and slash and user and rest.isprintable()):
        raise ValueError(
            "an entry of the keyring has a service and a user\nwrite keyring:service/user"
        )


def _check_command(line: str) -> None:
    if not line.isprintable():
        raise ValueError("a command is one line\nremove control characters")
    try:
        words = shlex.split(line)
    except ValueError:
        raise ValueError("a quote of the command is not closed\nclose it") from None
    if not words or not words[0]:
        raise ValueError("the command is missing\nwrite for example exec:op read op://vault/item")


def _check_sealed(rest: str) -> None:
    parse_envelope(f"sealed:{rest}")


def _check_builtin(rest: str) -> None:
    if rest != "demo":
        raise ValueError(f"builtin: has the key of the demo provider alone\n{_NOT_INLINE}")


_CHECKS: dict[str, Callable[[str], None]] = {
    "env": check_env_name,
    "file": _check_file,
    "credential": _check_credential,
    "keyring": _check_keyring,
    "exec": _check_command,
    "sealed": _check_sealed,
    "builtin": _check_builtin,
}

SOURCES = tuple(_CHECKS)
"""Where secrets may come from, own sources aside; ``sources`` has a reader for each."""

# Those that answer at once. Files are watched; the others of these do not change by themselves.
_PROMPT = frozenset({"env", "file", "credential", "sealed", "builtin"})


def _long_form(value: Any) -> Any:
    """The short forms of a secret, as the long one."""
    if isinstance(value, str | list):
        return {"references": listed(value)}
    if not isinstance(value, dict):
        return value
    given = [key for key in (*SOURCES, "references") if key in value]
    if len(given) != 1:
        raise ValueError(
            ("a secret comes from one source" if given else "the source is missing")
            + "\nwrite {env: NAME}, {file: /absolute/path}, {exec: command}, or a list "
            "[env:NEW, env:OLD]"
        )
    if given == ["references"]:
        return value
    rest = value[given[0]]
    reference = f"{given[0]}:{rest}" if isinstance(rest, str) else rest
    others = {key: one for key, one in value.items() if key != given[0]}
    return {"references": (reference,), **others}


class SecretSettings(Node):
    """Where the value of one secret comes from."""

    references: tuple[Annotated[str, checked_by(parse_reference)], ...] = Field(
        min_length=1,
        description="One or more of `env:NAME`, `file:/absolute/path`, `credential:name`, "
        "`keyring:service/user`, `exec:command args`, `sealed:…`; the first that is there is used. "
        "Several mean rotation: the new one first.",
    )
    optional: Flag = Field(
        default=False,
        description="Whether the route is ready without it. False by default: a route whose "
        "secret is missing answers 503 and says what to set.",
    )
    multiline: Flag = Field(
        default=False,
        description="Whether the value may have several lines: PEM keys and JSON files, from which "
        "tokens are made. False by default, as a key with a line break in it is a mistake.",
    )
    ttl_seconds: Seconds | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds after which `exec:`, `keyring:` or a source of your own is asked "
        "again. None by default: at the start and at each reload only.",
    )
    timeout_seconds: Seconds = Field(
        default=10,
        gt=0,
        le=300,
        description="Seconds that `exec:`, `keyring:` or a source of your own may take. "
        "10 by default.",
    )

    @model_validator(mode="after")
    def _time_matters(self) -> SecretSettings:
        for key in ("ttl_seconds", "timeout_seconds"):
            if key in self.model_fields_set and not self.asks:
                raise ValueError(
                    f"{key} is for exec:, keyring: and sources of your own\n"
                    "remove it: files are read again when they change"
                )
        return self

    @property
    def asks(self) -> bool:
        """Whether a program, a keyring or an own source is asked: it may take time, and change."""
        return any(one.partition(":")[0] not in _PROMPT for one in self.references)


_REFERENCE_SCHEMA = {
    "type": "string",
    "pattern": r"^(env:[A-Z_][A-Z0-9_]*|file:/.+|credential:[A-Za-z0-9_.@-]+|keyring:.+/[^/]+"
    r"|exec:.+|sealed:v1:[0-9a-f]{8}:[A-Za-z0-9_-]{16}:[A-Za-z0-9_-]+|builtin:demo"
    r"|(?!(env|file|credential|keyring|exec|sealed|builtin):)[a-z][a-z0-9-]+:.+)$",
}


def _described(name: str, **schema: Any) -> dict[str, Any]:
    return {**schema, "description": SecretSettings.model_fields[name].description}


AnySecret = Annotated[
    SecretSettings,
    BeforeValidator(_long_form),
    WithJsonSchema(
        {
            "description": "Where the value comes from; never the value itself.",
            "anyOf": [
                _REFERENCE_SCHEMA,
                {"type": "array", "items": _REFERENCE_SCHEMA, "minItems": 1},
                {
                    "type": "object",
                    "properties": {
                        "env": {
                            "type": "string",
                            "description": "Name of an environment variable.",
                        },
                        "file": {
                            "type": "string",
                            "description": "Absolute path of a file; one line end at its end "
                            "is left out.",
                        },
                        "credential": {
                            "type": "string",
                            "description": "Name of a credential that systemd passes.",
                        },
                        "keyring": {
                            "type": "string",
                            "description": "Service and user of an entry of the system's keyring: "
                            "`service/user`.",
                        },
                        "exec": {
                            "type": "string",
                            "description": "A command, run without a shell, that prints the "
                            "value. Never write a secret into it: others can see commands.",
                        },
                        "sealed": {
                            "type": "string",
                            "description": "What `keyrelay seal` printed, without `sealed:`.",
                        },
                        "references": {
                            "type": "array",
                            "items": _REFERENCE_SCHEMA,
                            "description": SecretSettings.model_fields["references"].description,
                        },
                        "optional": _described("optional", type="boolean"),
                        "multiline": _described("multiline", type="boolean"),
                        "ttl_seconds": _described("ttl_seconds", type="number", minimum=1),
                        "timeout_seconds": _described(
                            "timeout_seconds", type="number", exclusiveMinimum=0
                        ),
                    },
                    "additionalProperties": False,
                },
            ],
        }
    ),
]
