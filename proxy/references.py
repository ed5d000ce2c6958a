"""Where secrets come from, as the YAML says it: ``env:NAME``, ``file:/path``. Never a value."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from .spelling import Flag, Node, check_env_name, checked_by, listed

SOURCES = ("env", "file", "builtin")
"""Where secrets may come from; ``sources`` has a reader for each."""

_NOT_INLINE = "write env:NAME or file:/absolute/path; a secret itself never belongs in this file"


def parse_reference(text: str) -> tuple[str, str]:
    """Split a reference to a secret into source and rest: ``env:NAME`` is ``("env", "NAME")``.

    Raises ValueError, without the text: it may be the secret itself.
    """
    source, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"a secret is named by its source\n{_NOT_INLINE}")
    if source not in SOURCES:
        raise ValueError(
            f"there is no such source; those that exist are env and file\n{_NOT_INLINE}"
        )
    if source == "env":
        check_env_name(rest)
    elif source == "file" and (not rest.startswith("/") or not rest.isprintable()):
        raise ValueError(
            "the path of a secret's file is not absolute\nwrite file:/run/secrets/name"
        )
    elif source == "builtin" and rest != "demo":
        raise ValueError(f"builtin: has the key of the demo provider alone\n{_NOT_INLINE}")
    return source, rest


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
            + "\nwrite {env: NAME}, {file: /absolute/path}, or a list [env:NEW, env:OLD]"
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
        description="One or more of `env:NAME` and `file:/absolute/path`; the first that is there "
        "is used. Several mean rotation: the new one first.",
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


_REFERENCE_SCHEMA = {"type": "string", "pattern": r"^(env:[A-Z_][A-Z0-9_]*|file:/.+|builtin:demo)$"}
_OPTIONAL_SCHEMA = {
    "type": "boolean",
    "description": SecretSettings.model_fields["optional"].description,
}
_MULTILINE_SCHEMA = {
    "type": "boolean",
    "description": SecretSettings.model_fields["multiline"].description,
}
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
                        "references": {
                            "type": "array",
                            "items": _REFERENCE_SCHEMA,
                            "description": SecretSettings.model_fields["references"].description,
                        },
                        "optional": _OPTIONAL_SCHEMA,
                        "multiline": _MULTILINE_SCHEMA,
                    },
                    "additionalProperties": False,
                },
            ],
        }
    ),
]
