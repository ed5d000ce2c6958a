"""Export exchanges as HAR 1.2 (W3C Web Performance draft, ``HTTP Archive (HAR) format``).

Has what the inspector shows: no body, no credential, no value of a query, and values of those
fields alone that are safe to show. WebSocket messages are in ``_webSocketMessages``, as Chrome
writes them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from proxy import __version__

REDACTED: Final = "(redacted)"
_OPCODES: Final = {"text": 1, "binary": 2}
# Fields that tools require, of which nothing is known.
_UNKNOWN_SIZE: Final = -1


def archive(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the archive of exchanges, each as ``ExchangeSource.find`` returns it."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "keyrelay", "version": __version__},
            "entries": [_entry(one) for one in found],
        }
    }


def _entry(found: Mapping[str, Any]) -> dict[str, Any]:
    exchange, detail = found["exchange"], found["detail"] or {}
    total = exchange["duration_ms"] or 0.0
    entry: dict[str, Any] = {
        "startedDateTime": datetime.fromtimestamp(exchange["started"], UTC).isoformat(),
        "time": total,
        "request": _request(exchange, detail),
        "response": _response(exchange, detail),
        "cache": {},
        "timings": _timings(exchange, detail.get("timings_ms"), total),
        "comment": _comment(exchange),
    }
    if exchange["kind"] == "websocket":
        entry["_resourceType"] = "websocket"
        entry["_webSocketMessages"] = list(_messages(found["conversation"] or {}))
    return entry


def _request(exchange: Mapping[str, Any], detail: Mapping[str, Any]) -> dict[str, Any]:
    # Without a recorded target the path is all that is known.
    url = detail.get("target") or f"http://localhost/{exchange['route']}{exchange['path']}"
    url, _, query = url.partition("?")
    names = [unquote(one.partition("=")[0]) for one in query.split("&") if one]
    if exchange["kind"] == "websocket":
        url = url.replace("http", "ws", 1)
    return {
        "method": exchange["method"],
        "url": url + ("?" + query.replace("=…", f"={REDACTED}") if query else ""),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _fields(detail.get("request_fields", ())),
        "queryString": [{"name": name, "value": REDACTED} for name in names],
        "headersSize": _UNKNOWN_SIZE,
        "bodySize": exchange["sent"],
    }


def _response(exchange: Mapping[str, Any], detail: Mapping[str, Any]) -> dict[str, Any]:
    fields = detail.get("response_fields", ())
    types = [value for name, value in fields if name.lower() == "content-type"]
    return {
        "status": exchange["status"],
        "statusText": "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _fields(fields),
        "content": {"size": exchange["received"], "mimeType": types[0] if types else ""},
        "redirectURL": "",
        "headersSize": _UNKNOWN_SIZE,
        "bodySize": exchange["received"],
    }


def _fields(pairs: Iterable[Sequence[str | None]]) -> list[dict[str, str]]:
    return [
        {"name": name or "", "value": REDACTED if value is None else value} for name, value in pairs
    ]


def _timings(
    exchange: Mapping[str, Any], phases: Mapping[str, float] | None, total: float
) -> dict[str, float]:
    """Return the phases, which add up to ``total``; ``ssl`` is a part of ``connect``."""
    if phases is None:
        first = min(exchange["first_byte_ms"] or total, total)
        return {"send": 0, "wait": first, "receive": total - first}
    return {
        "blocked": phases["token"] + phases["other"],
        "dns": phases["resolve"],
        "connect": phases["connect"] + phases["tls"],
        "ssl": phases["tls"],
        "send": 0,
        "wait": phases["wait"],
        "receive": phases["transfer"],
    }


def _comment(exchange: Mapping[str, Any]) -> str:
    """Return what went wrong, "" for nothing."""
    problem = exchange["problem"]
    if problem:
        return f"{problem['detail']} {problem['advice']}".strip()
    return str(exchange["outcome"])


def _messages(conversation: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield messages without control frames; binary ones in Base64, as far as they are kept."""
    for message in conversation.get("messages", ()):
        opcode = _OPCODES.get(message["kind"])
        if opcode is None:
            continue
        text = message["text"]
        data = base64.b64encode(bytes.fromhex(text)).decode() if opcode == 2 else text
        yield {
            "type": "send" if message["sender"] == "client" else "receive",
            "time": message["at"],
            "opcode": opcode,
            "data": data,
        }
