"""Base model of the configuration and the syntax checks of its strings.

A check raises ``ConfigValueError`` with a message and a hint. Neither quotes the text, which may be
a misplaced secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict

from proxy.config.template import NAME, parse_template
from proxy.errors import ConfigValueError
from proxy.http.abnf import METHOD
from proxy.http.path_patterns import check_pattern

_FRAMING = {
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class Node(BaseModel):
    """Base of all models: one mapping of the YAML. Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that calls ``check``, which may raise, and keeps the text."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def listed(value: Any) -> Any:
    """Return a list unchanged, and any other value as a tuple of one."""
    return value if isinstance(value, list | tuple) else (value,)


def check_line(text: str) -> None:
    """Check a string that is displayed in one line."""
    if not text.isprintable():
        raise ConfigValueError("expected one line of text", "remove control characters")


def check_route_path(text: str) -> None:
    """Check a route's path prefix on the main listener."""
    if text == "/-" or text.startswith("/-/"):
        raise ConfigValueError("paths below /-/ are reserved", "choose another path")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text) or {".", ".."} & set(text.split("/")):
        raise ConfigValueError(
            "invalid route path: use segments of letters, digits, . _ ~ and -",
            "write for example /hume or /team/hume, without a trailing slash",
        )


def check_method(text: str) -> None:
    """Check an HTTP method that may be forwarded."""
    if text in {"CONNECT", "TRACE"}:
        raise ConfigValueError(
            f"{text} is never forwarded (RFC 9110 sections 9.3.6, 9.3.8)", "remove it"
        )
    if not METHOD.fullmatch(text):
        raise ConfigValueError("invalid HTTP method", "write it in capitals, as GET or POST")


def check_strategy_path(text: str) -> None:
    """Check a path pattern without a method."""
    if not text.startswith("/"):
        raise ConfigValueError(
            "a strategy's path starts with a slash", "write /v1/**, without a method"
        )
    check_pattern(text)


def check_verify(text: str) -> None:
    """Check a request that costs nothing: GET and a request target."""
    if not re.fullmatch(r"GET /[!-~]*", text) or "#" in text:
        raise ConfigValueError("invalid request for doctor", "write for example GET /v1/me")


def check_base_template(text: str) -> None:
    """Check a value of `environment:`."""
    if parse_template(text).names - {"base", "ws_base"}:
        raise ConfigValueError(
            "only {base} and {ws_base}, the route's address, are available",
            "remove the other names",
        )


def check_secret_name(text: str) -> None:
    """Check a secret's name, which templates have in braces."""
    if not NAME.fullmatch(text):
        raise ConfigValueError(
            "invalid secret name",
            "use lower-case letters, digits and _, and a space after the colon: api_key: env:NAME",
        )


def check_route_name(text: str) -> None:
    """Check a route's name, also a DNS label: browsers reach it at http://<name>.localhost."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ConfigValueError(
            "invalid route name",
            "use at most 63 lower-case letters, digits and -, with a letter or digit at both ends",
        )


def check_rate(text: str) -> None:
    """Check a rate: requests per unit of time."""
    if not re.fullmatch(r"[1-9][0-9]{0,6}/(second|minute|hour|day)", text):
        raise ConfigValueError("invalid rate", "write for example 60/minute; or second, hour, day")


def check_host(text: str) -> None:
    """Check a further host name for the allowlist."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9_.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\]", text):
        raise ConfigValueError(
            "invalid host name", "write it in lower case, without scheme and port: keyrelay"
        )


def check_header_field_name(text: str) -> None:
    """Check the name of a header field to strip or to set."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ConfigValueError("invalid header name", "use letters, digits and -")
    if is_framing(text):
        raise ConfigValueError("this header belongs to the connection", "leave it out")


def is_framing(header: str) -> bool:
    """Return whether a field concerns the connection or framing, which only the proxy sets."""
    name = header.lower()
    return name in _FRAMING or name.startswith("sec-websocket-")


Line = Annotated[str, checked_by(check_line)]
Flag = Annotated[bool, Strict()]
Seconds = Annotated[float, Strict()]
