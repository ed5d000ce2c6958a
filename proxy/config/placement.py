"""Settings of placements: header, Basic authorization, query, path segment, cookie, message.

``auth.injection`` applies them. Imports neither aiohttp nor asyncio.
"""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag

from proxy.config.fields import Node, is_framing
from proxy.config.message_placement import MessageSettings
from proxy.config.template import parse_template
from proxy.errors import ConfigValueError
from proxy.http.abnf import PATH_CHARS, TOKEN

TAG_PREFIX = "placement:"


def _template(text: str) -> str:
    parse_template(text)
    if text != text.strip():
        raise ConfigValueError("the value has a leading or trailing space", "remove it")
    return text


def _header_name(text: str) -> str:
    name = text.lower()
    if not TOKEN.fullmatch(text):
        raise ConfigValueError(
            "invalid header name", "use letters, digits and -, without a colon or spaces"
        )
    if is_framing(name):
        raise ConfigValueError(
            f"the header {name} belongs to the connection, not to the credential",
            "use the header that the provider's documentation names",
        )
    return text


def _query_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~$:-]+", text):
        raise ConfigValueError("invalid query parameter name", "use letters, digits, _, - and dots")
    return text


def _cookie_name(text: str) -> str:
    if not TOKEN.fullmatch(text):
        raise ConfigValueError("invalid cookie name", "use letters, digits, _ and -")
    return text


def _cookie_value(text: str) -> str:
    if re.search(r'[ ",;\\]', text):
        raise ConfigValueError(
            "a cookie has no spaces, quotes, commas or semicolons", "remove them"
        )
    return text


def _path_template(text: str) -> str:
    literal = re.sub(r"\{[A-Za-z0-9_.-]*\}", "x", text)
    if not re.fullmatch(rf"(?:/[{PATH_CHARS}]+)+", literal) or any(
        segment in {".", ".."} for segment in text.split("/")
    ):
        raise ConfigValueError(
            "invalid path placement: use segments, each after a slash",
            'write for example "/bot{key}", without a trailing slash',
        )
    return text


def _user_template(text: str) -> str:
    if ":" in text:
        raise ConfigValueError(
            "the user name of Basic authorization cannot contain a colon",
            "move the part after it to password: (RFC 7617 section 2)",
        )
    return text


_Template = Annotated[str, AfterValidator(_template)]
_NEEDED = "String with the names of secrets in braces, such as `Bearer {api_key}`."


class PlacementNode(Node, ABC):
    """Base of the placements: what a credential sets, and the templates that it is made of."""

    template_paths: ClassVar[tuple[tuple[str, ...], ...]] = (("value",),)
    """Paths of the templates below the placement in the YAML."""

    @property
    @abstractmethod
    def target(self) -> str:
        """The part of the request that only one placement of a strategy may set."""

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        """The templates by their path below the placement in the YAML."""
        node: Any = self
        return {path: functools.reduce(getattr, path, node) for path in self.template_paths}


class HeaderPlacement(PlacementNode):
    """The credential is a header field: the usual placement, and the one least often logged."""

    header: Annotated[str, AfterValidator(_header_name)] = Field(
        description="Name of the header, as the provider's documentation spells it."
    )
    value: _Template = Field(description=_NEEDED)

    @property
    def target(self) -> str:
        return f"header {self.header.lower()}"


class BasicCredentials(Node):
    """User name and password of Basic authorization (RFC 7617)."""

    username: Annotated[str, AfterValidator(_template), AfterValidator(_user_template)] = Field(
        description="User name; may name secrets in braces. Such a secret has no colon in it."
    )
    password: _Template = Field(
        default="", description="Password; may name secrets in braces. Empty by default."
    )


class BasicPlacement(PlacementNode):
    """The field `Authorization: Basic …`, encoded from a user name and a password.

    For a key that is Base64 already, use a header placement with `Basic {api_key}`.
    """

    template_paths: ClassVar = (("basic", "username"), ("basic", "password"))

    basic: BasicCredentials = Field(
        description="User name and password, which are joined by a colon and Base64-encoded."
    )

    @property
    def target(self) -> str:
        return "header authorization"


class QueryPlacement(PlacementNode):
    """The credential is a query parameter.

    Only for providers that accept nothing else: servers and proxies log URLs.
    """

    query: Annotated[str, AfterValidator(_query_name)] = Field(
        description="Name of the query parameter. Parameters of that name from clients are removed."
    )
    value: _Template = Field(description=_NEEDED + " It is percent-encoded when it is sent.")

    @property
    def target(self) -> str:
        return f"query parameter {self.query}"


class PathPlacement(PlacementNode):
    """The credential is part of the path, between the upstream's base path and the rest."""

    template_paths: ClassVar = (("path",),)

    path: Annotated[str, AfterValidator(_template), AfterValidator(_path_template)] = Field(
        description="Segments with the names of secrets in braces, such as `/bot{key}`."
    )

    @property
    def target(self) -> str:
        return "path"


class CookiePlacement(PlacementNode):
    """The credential is a cookie. Only where the provider takes nothing else."""

    cookie: Annotated[str, AfterValidator(_cookie_name)] = Field(description="Name of the cookie.")
    value: Annotated[_Template, AfterValidator(_cookie_value)] = Field(description=_NEEDED)

    @property
    def target(self) -> str:
        return f"cookie {self.cookie}"


class MessagePlacement(PlacementNode):
    """The credential is in one of the first messages of a WebSocket, a JSON text.

    Such a WebSocket is not compressed. Only for providers that read it nowhere else.
    """

    message: MessageSettings = Field(
        description='The message: `{set: /api_key, value: "{key}"}` for a member of the client\'s, '
        "or `{send: {…}, after: {…}}` for one of keyrelay's own."
    )

    @property
    def target(self) -> str:
        if self.message.set is None:
            return "message that is sent"
        return f"member {self.message.set} of a message"

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        return {("message", *path): text for path, text in self.message.templates.items()}


PLACEMENTS: dict[str, type[PlacementNode]] = {
    "header": HeaderPlacement,
    "basic": BasicPlacement,
    "query": QueryPlacement,
    "path": PathPlacement,
    "cookie": CookiePlacement,
    "message": MessagePlacement,
}
"""The key that tells what kind a placement is, and its model."""


def _tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((TAG_PREFIX + key for key in PLACEMENTS if key in value), None)
    return next((TAG_PREFIX + key for key, kind in PLACEMENTS.items() if type(value) is kind), None)


Placement: TypeAlias = Annotated[
    Annotated[HeaderPlacement, Tag(TAG_PREFIX + "header")]
    | Annotated[BasicPlacement, Tag(TAG_PREFIX + "basic")]
    | Annotated[QueryPlacement, Tag(TAG_PREFIX + "query")]
    | Annotated[PathPlacement, Tag(TAG_PREFIX + "path")]
    | Annotated[CookiePlacement, Tag(TAG_PREFIX + "cookie")]
    | Annotated[MessagePlacement, Tag(TAG_PREFIX + "message")],
    Discriminator(_tag),
]
