"""Settings of tokens that several keyrelays share through Redis, and the address of the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field

from proxy.config.fields import Node, checked_by
from proxy.config.secret import AnySecret, SecretSettings
from proxy.errors import ConfigValueError

_PORT = 6379
_WRITE = "write redis://127.0.0.1:6379/0, rediss://HOST:6379/0 or unix:/run/redis/redis.sock"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis server is.

    scheme    ``redis``, ``rediss`` (TLS) or ``unix``
    place     host name or address without brackets; for ``unix`` the path of the socket
    username  for servers with an access control list, "" for the default user
    """

    scheme: str
    place: str
    port: int = _PORT
    database: int = 0
    username: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.place}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.place}]" if ":" in self.place else self.place
        return f"{self.scheme}://{host}:{self.port}/{self.database}"


def parse_redis_url(text: str) -> RedisAddress:
    """Parse ``share:``. Raises ConfigValueError, without the text: it may contain a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigValueError("invalid address of a Redis server", _WRITE) from None
    if parts.password is not None:
        raise ConfigValueError(
            "a password does not belong in this file",
            "write share: redis://HOST:PORT/0 and password: env:REDIS_PASSWORD",
        )
    if parts.scheme == "unix":
        return _unix(parts)
    database = parts.path.removeprefix("/") or "0"
    if (
        parts.scheme not in {"redis", "rediss"}
        or not parts.hostname
        or not re.fullmatch(r"[A-Za-z0-9_.:%-]+", parts.hostname)
        or not re.fullmatch(r"[0-9]{1,4}", database)
        or parts.query
        or parts.fragment
        or not text.isprintable()
        or port == 0
    ):
        raise ConfigValueError("invalid address of a Redis server", _WRITE)
    found = RedisAddress(
        parts.scheme,
        parts.hostname,
        _PORT if port is None else port,
        int(database),
        unquote(parts.username or ""),
    )
    if found.scheme == "redis" and _is_public(found.place):
        raise ConfigValueError(
            "without TLS the password of Redis would cross a public network",
            "write rediss://, or the server's private address",
        )
    return found


def _unix(parts: SplitResult) -> RedisAddress:
    database = re.fullmatch(r"(?:db=([0-9]{1,4}))?", parts.query)
    if parts.netloc or not parts.path.startswith("/") or database is None or parts.fragment:
        raise ConfigValueError(
            "invalid address of a Redis server", "write unix:/run/redis/redis.sock"
        )
    return RedisAddress("unix", parts.path, database=int(database[1] or 0))


def _is_public(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return False  # a name: its address is checked when it is connected to


class TokenSharing(Node):
    """Tokens that several keyrelays with the same routes share."""

    share: Annotated[str, checked_by(parse_redis_url)] = Field(
        description="The Redis or Valkey server: `redis://HOST:PORT/DB`, `rediss://` with TLS, "
        "`unix:/abs/path`; a user name as `redis://NAME@HOST`. Without TLS only loopback and "
        "private addresses. Needs the extra `redis`.",
    )
    password: AnySecret | None = Field(
        default=None,
        description="The secret with the server's password. None by default. Read again when the "
        "server refuses it.",
    )
    key: AnySecret | None = Field(
        default=None,
        description="A secret of at least 16 bytes that every keyrelay needs, besides the route's "
        "own secrets, to find and open shared tokens. None by default: needed where those are "
        "guessable, and for `type: exec`.",
    )
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        default="keyrelay",
        description="Beginning of the names of all keys in Redis. `keyrelay` by default.",
    )
    when_down: Literal["fetch", "fail"] = Field(
        default="fetch",
        description="What happens to a route that needs a token while Redis cannot be used: "
        "`fetch` (the default) obtains a token for this keyrelay alone, `fail` responds with 503. "
        "Refresh tokens that are replaced at each use always fail.",
    )

    @property
    def address(self) -> RedisAddress:
        return parse_redis_url(self.share)

    @property
    def secrets(self) -> Iterator[SecretSettings]:
        """The secrets that these settings name."""
        for one in (self.password, self.key):
            if one is not None:
                yield one
