"""Explain why an address of a configuration cannot be listened at: where it is written, and what
has it.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from proxy.config.document import read_yaml
from proxy.config.files import read_text
from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress, parse_listen
from proxy.server.listener import AddressUnavailable

# How long the program at the address has to respond (seconds).
_PROBE_SECONDS = 1.0


def explain_unavailable(error: AddressUnavailable, file: Path | None) -> KeyrelayError:
    """The error with its remedy: the setting's place in ``file``, and whether another keyrelay
    has the address. Blocking: one request to loopback, 1 s at most.
    """
    address = parse_listen(error.text)
    setting = _setting(error.route, file)
    remedy = ""
    if error.in_use and _is_keyrelay(address):
        remedy = f" by another keyrelay; use that one, stop it first, or {setting}"
    elif error.in_use:
        remedy = f" by another program; stop that program, or {setting}"
    if error.route is not None:
        remedy += f" (only clients of {error.route} that need a port of their own need it)"
    return KeyrelayError(f"{_place(error, file)}{error}{remedy}")


def _setting(route: str | None, file: Path | None) -> str:
    if route is None:
        return "choose another address with --listen" + ("" if file is None else " or listen:")
    if file is None:
        return (
            "name the providers that you need (keyrelay run NAME), or write a file (keyrelay init)"
        )
    return f"change listen of the route {route}"


def _place(error: AddressUnavailable, file: Path | None) -> str:
    """``FILE:LINE: `` of the setting, "" if it is in no file."""
    if file is None:
        return "" if error.route is None else "the shipped routes: "
    try:
        document = read_yaml(read_text(file, ours=True), str(file))
    except KeyrelayError:
        return ""  # the file has changed since it was read; the address suffices
    path = ("listen",) if error.route is None else ("routes", error.route, "listen")
    settings = document.data
    for key in path:
        if not isinstance(settings, dict) or key not in settings:
            return ""  # it comes from the command line or a preset
        settings = settings[key]
    return f"{file}:{document.position(path, key=True)[0]}: "


def _is_keyrelay(address: ListenAddress) -> bool:
    """Whether what listens there responds as keyrelay does to a page that it does not have."""
    connection = http.client.HTTPConnection("localhost", timeout=_PROBE_SECONDS)
    try:
        if address.unix_path is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(_PROBE_SECONDS)
            connection.sock.connect(address.unix_path)
        else:
            assert address.host is not None
            connection.sock = socket.create_connection(
                (address.host, address.port), timeout=_PROBE_SECONDS
            )
            # A TLS listener of keyrelay responds to this as well, with its own refusal.
        connection.request("GET", "/-/", headers={"User-Agent": "keyrelay"})
        response = connection.getresponse()
        problem = json.loads(response.read(4096))
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    kind = str(problem.get("type", "")) if isinstance(problem, dict) else ""
    return kind.startswith("urn:keyrelay:") and kind.endswith(("no-such-page", "wrong-protocol"))
