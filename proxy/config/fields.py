"""How the texts of the configuration are spelled, and what all of its mappings have in common.

A check raises ``ValueError``: the first line of its message says what is wrong, the second what to
write. Neither ever repeats the text, which may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict

from proxy.config.template import NAME, parse_template
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
    """One mapping of the YAML. Frozen; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """A validator that keeps the text and lets ``check`` raise."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def listed(value: Any) -> Any:
    """One value as a list of one; a list as it is."""
    return value if isinstance(value, list | tuple) else (value,)


def check_line(text: str) -> None:
    """A text that can be shown in one line."""
    if not text.isprintable():
        raise ValueError("this has to be one line of text\nremove control characters")


def check_route_path(text: str) -> None:
    """A route's prefix on the main listener."""
    if text == "/-" or text.startswith("/-/"):
        raise ValueError("paths below /-/ are keyrelay's own\nchoose another path")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text) or {".", ".."} & set(text.split("/")):
        raise ValueError(
            "a route's path is one or more segments of letters, digits, . _ ~ and -\n"
            "write for example /hume or /team/hume, without a slash at the end"
        )


def check_method(text: str) -> None:
    """A method that may be passed on."""
    if text in {"CONNECT", "TRACE"}:
        raise ValueError(f"{text} is never passed on (RFC 9110 sections 9.3.6, 9.3.8)\nremove it")
    if not re.fullmatch(r"[A-Z][A-Z-]{0,31}", text):
        raise ValueError("this is no HTTP method\nwrite it in capitals, as GET or POST")


def check_strategy_path(text: str) -> None:
    """A path pattern without a method."""
    if not text.startswith("/"):
        raise ValueError("a strategy's path begins with a slash\nwrite /v1/**, without a method")
    check_pattern(text)


def check_verify(text: str) -> None:
    """A call that costs nothing: GET and a target."""
    if not re.fullmatch(r"GET /[!-~]*", text) or "#" in text:
        raise ValueError("this is no call that doctor could make\nwrite for example GET /v1/me")


def check_base_template(text: str) -> None:
    """A value of `environment:`."""
    if parse_template(text).names - {"base", "ws_base"}:
        raise ValueError(
            "only {base} and {ws_base} can stand here: the address of the route\nremove the others"
        )


def check_secret_name(text: str) -> None:
    """What stands in braces in a template."""
    if not NAME.fullmatch(text):
        raise ValueError(
            "this is no name for a secret\n"
            "use small letters, digits and _, and put a blank after the colon: api_key: env:NAME"
        )


def check_route_name(text: str) -> None:
    """The name of a route, also a DNS label: browsers reach it at http://<name>.localhost."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError(
            "this is no name for a route\n"
            "use at most 63 small letters, digits and -, with a letter or digit at both ends"
        )


def check_rate(text: str) -> None:
    """So many requests in a span of time."""
    if not re.fullmatch(r"[1-9][0-9]{0,6}/(second|minute|hour|day)", text):
        raise ValueError("this is no rate\nwrite for example 60/minute; or second, hour, day")


def check_host(text: str) -> None:
    """A further host name for the allow-list."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9_.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\]", text):
        raise ValueError(
            "this is no host name in lower case\nwrite it without scheme and port: keyrelay"
        )


def check_header_field_name(text: str) -> None:
    """A header to strip."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError("this is no header name\nuse letters, digits and -")
    if is_framing(text):
        raise ValueError("this header belongs to the connection\nleave it out")


def is_framing(header: str) -> bool:
    """Whether a header is about the connection or the body's length; nobody but us sets those."""
    name = header.lower()
    return name in _FRAMING or name.startswith("sec-websocket-")


Line = Annotated[str, checked_by(check_line)]
Flag = Annotated[bool, Strict()]
Seconds = Annotated[float, Strict()]
