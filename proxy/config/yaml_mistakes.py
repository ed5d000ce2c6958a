"""What to write instead, for common mistakes in YAML and habits of other tools.

Advice contains no text of the file beyond names and numbers: it may be a misplaced secret.
"""

from __future__ import annotations

import re
from typing import Any

# Problems of PyYAML, by a part of its message, with what went wrong and what to do.
_PROBLEMS: tuple[tuple[str, str, str], ...] = (
    (r"character '\\t'", "a tab is no indentation", "indent with spaces"),
    (
        r"expected ',' or '\}', but got '\{'|expected ',' or '\]', but got '\{'",
        "a value with braces is not in quotes",
        'put it in quotes, as value: "Bearer {key}"',
    ),
    (
        r"expected ',' or '[\}\]]', but got '<(stream end|block|document)",
        "a brace or bracket is not closed",
        "close it with } or ]",
    ),
    (
        r"expected ',' or '[\}\]]'",
        "a comma or a closing brace is missing",
        "separate with commas, and put values with braces, brackets or commas in quotes",
    ),
    (
        r"expected <block end>",
        "the indentation differs from the lines above",
        "begin keys of one mapping in the same column; after a value no key can be indented",
    ),
    (
        r"mapping values are not allowed here",
        "a second colon in the line, or a key indented below a value",
        "put a value with ': ' in quotes, and begin keys of one mapping in the same column",
    ),
    (
        r"could not find expected ':'",
        "a key without a colon",
        "write KEY: VALUE, with a space behind the colon",
    ),
    (r"unexpected end of stream", "a quote is not closed", "close it"),
    (
        r"unknown escape character",
        "a backslash in double quotes begins an escape",
        "use single quotes, or write it twice",
    ),
    (
        r"that cannot start any token",
        "a value cannot begin with this character",
        "put the value in quotes",
    ),
    (
        r"undefined alias",
        "undefined alias: * begins the name of an anchor",
        "put the value in quotes if * is a part of it",
    ),
    (
        r"expected alphabetic or numeric character",
        "* and & have a meaning of their own at the beginning of a value",
        "put the value in quotes",
    ),
    (
        r"expected a single document|but found another document",
        "--- begins a second document",
        "remove it",
    ),
)

_VERIFIED = "TLS is always verified; for a CA of your own write ca_file: /path/company.pem"
# Keys of other tools, and the setting that is meant or why there is none.
_HABITS: dict[str, str] = {
    **dict.fromkeys(
        ("insecure", "verify_ssl", "ssl_verify", "skip_verify", "tls_verify", "verify_tls"),
        _VERIFIED,
    ),
    **dict.fromkeys(("insecure_skip_verify", "rejectUnauthorized", "secure"), _VERIFIED),
    **dict.fromkeys(
        ("ca", "cafile", "ca_cert", "cacert", "ca_bundle", "ca_path", "cert", "certificate"),
        "for a CA of your own write ca_file: /path/company.pem",
    ),
    **dict.fromkeys(
        ("tls", "ssl"),
        "an https upstream uses TLS; for a CA of your own write ca_file: /path/company.pem",
    ),
    **dict.fromkeys(
        ("proxy", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "proxies"),
        "for an HTTP proxy on the way out write egress_proxy: http://HOST:PORT",
    ),
    **dict.fromkeys(("port", "bind", "address", "server", "ports"), "write listen: 127.0.0.1:8080"),
    **dict.fromkeys(
        ("url", "target", "base_url", "baseUrl", "baseURL", "backend", "proxy_pass", "destination"),
        "write upstream: https://api.example.com",
    ),
    **dict.fromkeys(
        ("headers", "header_up", "proxy_set_header"),
        'write auth: [{header: X-Api-Key, value: "{key}"}]',
    ),
    **dict.fromkeys(
        ("api_key", "apiKey", "key", "password", "env"),
        "write secrets: {api_key: env:NAME}; a secret itself never belongs in this file",
    ),
    **dict.fromkeys(
        ("cors", "origins", "allowed_origins", "allow_origins"),
        "write browsers: {origins: [http://localhost:5173]} at the top of the file",
    ),
    **dict.fromkeys(
        ("timeout", "timeouts", "read_timeout"),
        "write connect_timeout_seconds: or answer_timeout_seconds:",
    ),
    **dict.fromkeys(("prefix", "location", "context"), "write path: /prefix"),
    **dict.fromkeys(
        ("retries", "retry"), "keyrelay repeats nothing by itself; clients do: remove it"
    ),
}

_SIZES = {"k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3, "": 1}
_SPANS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def of_problem(problem: str) -> tuple[str, str] | None:
    """Return message and advice for a problem that PyYAML describes; None for another one."""
    for pattern, message, advice in _PROBLEMS:
        if re.search(pattern, problem):
            return message, advice
    return None


def of_key(key: str) -> str:
    """Return the advice for a key of another tool, "" for any other."""
    return _HABITS.get(key, "")


def of_unit(value: Any, *, seconds: bool) -> str:
    """Return the number to write for a text with a unit, "" for any other value."""
    if not isinstance(value, str):
        return ""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s?([A-Za-z]{0,3})", value)
    if found is None:
        return ""
    unit = found[2].lower()
    factor = _SPANS.get(unit) if seconds else _SIZES.get(unit.removesuffix("b"))
    if factor is None or not unit:
        return ""
    return (
        f"write the number of {'seconds' if seconds else 'bytes'}: {float(found[1]) * factor:.12g}"
    )
