"""Settings of secrets: references to their sources, such as ``env:NAME`` and ``file:/path``.

Checks that a plugin source is installed: an unknown source could be the beginning of a secret, and
messages would quote the rest of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.config.fields import Flag, Line, Node, Seconds, checked_by, listed
from proxy.errors import ConfigValueError
from proxy.secrets.reference import LOCAL_SOURCES, SOURCES, parse_reference


def _long_form(value: Any) -> Any:
    """Convert the short forms of a secret to the long one."""
    if isinstance(value, str | list):
        return {"references": listed(value)}
    if not isinstance(value, dict):
        return value
    given = [key for key in (*SOURCES, "references") if key in value]
    if len(given) != 1:
        raise ConfigValueError(
            ("a secret has one source" if given else "the source is missing") + "",
            "write {env: NAME}, {file: /absolute/path}, {exec: command}, or a list "
            "[env:NEW, env:OLD]",
        )
    if given == ["references"]:
        return value
    rest = value[given[0]]
    names = rest if given == ["env"] and isinstance(rest, list) else [rest]
    references = tuple(f"{given[0]}:{one}" if isinstance(one, str) else one for one in names)
    others = {key: one for key, one in value.items() if key != given[0]}
    return {"references": references, **others}


_REFERENCE_SCHEMA = {
    "type": "string",
    "pattern": r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+|credential:[A-Za-z0-9_.@-]+|keyring:.+/[^/]+"
    r"|exec:.+|sealed:v1:[0-9a-f]{8}:[A-Za-z0-9_-]{16}:[A-Za-z0-9_-]+|builtin:demo"
    r"|(?!(env|file|credential|keyring|exec|sealed|builtin):)[a-z][a-z0-9-]+:.+)$",
}

_SOURCE_SCHEMAS: dict[str, dict[str, Any]] = {
    "env": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ],
        "description": "Name of an environment variable, or a list of the names under which "
        "clients know it; the first that is set is used.",
    },
    "file": {
        "type": "string",
        "description": "Absolute path of a file; one trailing line end is removed.",
    },
    "credential": {
        "type": "string",
        "description": "Name of a credential that systemd passes.",
    },
    "keyring": {
        "type": "string",
        "description": "Service and user of an entry of the system keyring: `service/user`.",
    },
    "exec": {
        "type": "string",
        "description": "A command, run without a shell, that prints the value. Never write a "
        "secret into it: commands are visible to others.",
    },
    "sealed": {
        "type": "string",
        "description": "The output of `keyrelay seal`, without `sealed:`.",
    },
}


class SecretSettings(Node):
    """Where the value of one secret comes from."""

    references: tuple[
        Annotated[str, checked_by(parse_reference), WithJsonSchema(_REFERENCE_SCHEMA)], ...
    ] = Field(
        min_length=1,
        description="One or more of `env:NAME`, `file:/absolute/path`, `credential:name`, "
        "`keyring:service/user`, `exec:command args`, `sealed:…`; the first available one is used. "
        "Several mean rotation: the new one first.",
    )
    optional: Flag = Field(
        default=False,
        description="Whether the route is ready without it. False by default: a route whose secret "
        "is missing responds with 503 and what to set.",
    )
    multiline: Flag = Field(
        default=False,
        description="Whether the value may have several lines: PEM keys and JSON files, which sign "
        "for tokens. False by default, as a line break in a key is a mistake.",
    )
    placeholder: Annotated[Line, Field(min_length=1)] | None = Field(
        default="unused",
        description="Value that `keyrelay exec` gives to the variables of this secret in its "
        "command's environment, in a form that the provider's SDKs accept as a key. `unused` by "
        "default; null removes the variables instead.",
    )
    ttl_seconds: Seconds | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds after which `exec:`, `keyring:` or a plugin source is read again. "
        "None by default: at the start and at each reload only.",
    )
    timeout_seconds: Seconds = Field(
        default=10,
        gt=0,
        le=300,
        description="Seconds that `exec:`, `keyring:` or a plugin source may take. 10 by default.",
    )

    @model_validator(mode="after")
    def _time_matters(self) -> SecretSettings:
        for key in ("ttl_seconds", "timeout_seconds"):
            if key in self.model_fields_set and not self.external:
                raise ConfigValueError(
                    f"{key} is for exec:, keyring: and plugin sources",
                    "remove it: files are read again when they change",
                )
        return self

    @property
    def external(self) -> bool:
        """Whether a source is a program, a keyring or a plugin: it can be slow, and change."""
        return any(one.partition(":")[0] not in LOCAL_SOURCES for one in self.references)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the short forms, which ``_long_form`` accepts, to the schema of the fields."""
        long = handler.resolve_ref_schema(handler(core_schema))
        fields = {key: {**one} for key, one in long["properties"].items()}
        for one in fields.values():
            one.pop("title", None)
        return {
            "description": "Where the value comes from; never the value itself.",
            "anyOf": [
                _REFERENCE_SCHEMA,
                {"type": "array", "items": _REFERENCE_SCHEMA, "minItems": 1},
                {
                    "type": "object",
                    "properties": {**_SOURCE_SCHEMAS, **fields},
                    "additionalProperties": False,
                },
            ],
        }


AnySecret = Annotated[SecretSettings, BeforeValidator(_long_form)]
