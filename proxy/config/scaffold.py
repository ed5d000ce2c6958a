"""Starter texts and files: the shipped routes, a generated routes file, the demo's commands."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.config.presets import presets
from proxy.config.route import RouteSettings

_HEAD = """\
# yaml-language-server: $schema={schema}
#
# Routes of keyrelay. Each is served at http://127.0.0.1:8080/<name>/… and adds the credential.
# Check with: keyrelay check FILE. Run with: keyrelay run FILE.
# Never write secrets here, only their sources: env:NAME or file:/absolute/path.

listen: 127.0.0.1:8080

# Web pages under development that may use the routes. None by default; exact origins only.
# browsers:
#   origins: [http://localhost:5173]

routes:
  # Built in, needs no key: curl http://127.0.0.1:8080/demo/
  demo:
    provider: demo
"""

_TAIL = """
  # More providers: keyrelay providers. One of them in detail: keyrelay providers NAME.
"""


def shipped_routes() -> Path:
    """Return the shipped routes file: the checkout's, else the package's equal copy."""
    package = Path(__file__).parent.parent
    checkout = package.parent / "config" / "routes.yaml"
    # A directory config/ beside an installed package is not keyrelay's.
    if checkout.is_file() and (package.parent / "pyproject.toml").is_file():
        return checkout
    return package / "config" / "routes.yaml"


def routes_file(
    environment: Mapping[str, str], providers: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Return a commented routes file, and the names of its routes.

    It is for ``providers``, or if none is given for those whose variables are set. A provider
    without a default upstream gets its route as a comment, with upstream to fill in.
    """
    used = ["demo"]
    schema = Path(__file__).with_name("routes.schema.json")
    text = _HEAD.replace("{schema}", schema.as_uri())
    for name, preset in sorted(presets().items()):
        chosen = name in providers if providers else _is_set(preset, environment)
        if not chosen or name == "demo":
            continue
        text += f"\n  # {preset.title or name}: {preset.docs or ''}".rstrip(": ") + "\n"
        variables = alternatives(preset)
        reads = f"   # reads {variables}" if variables else ""
        lines = [f"{name}:", f"  provider: {name}{reads}"]
        if preset.upstream is not None:
            used.append(name)
            text += "".join(f"  {line}\n" for line in lines)
        else:
            lines.append("  upstream: https://…   # yours")
            text += "".join(f"  # {line}\n" for line in lines)
    return text + _TAIL, used


def is_configured(preset: RouteSettings, environment: Mapping[str, str]) -> bool:
    """Whether the environment has what the preset needs: of each required secret one variable, and
    where all are optional, one at least.
    """
    required = [one for one in preset.secrets.values() if not one.optional]
    if not required:
        return not preset.secrets or _is_set(preset, environment)
    return all(
        any(
            reference.startswith("builtin:") or environment.get(reference.removeprefix("env:"))
            for reference in one.references
        )
        for one in required
    )


def _is_set(preset: RouteSettings, environment: Mapping[str, str]) -> bool:
    return any(environment.get(name) for name in _variables(preset))


def alternatives(preset: RouteSettings) -> str:
    """The variables, ``or`` between those of one secret, ``and`` between secrets.

    An optional secret's are marked.
    """
    secrets = []
    for secret in preset.secrets.values():
        names = [one.removeprefix("env:") for one in secret.references if one.startswith("env:")]
        if names:
            secrets.append(" or ".join(names) + (" (optional)" if secret.optional else ""))
    return " and ".join(secrets)


def _variables(preset: RouteSettings) -> list[str]:
    references = [ref for secret in preset.secrets.values() for ref in secret.references]
    return [ref.removeprefix("env:") for ref in references if ref.startswith("env:")]


def curl(url: str, target: str, *options: str) -> str:
    """Return the command that requests ``target`` at a listener's URL or ``unix:`` address."""
    socket: tuple[str, ...] = ()
    if url.startswith("unix:"):
        socket, url = ("--unix-socket", url.removeprefix("unix:")), "http://localhost"
    return shlex.join(["curl", *socket, *options, f"{url}{target}"])


def demo_commands(url: str) -> str:
    """Return three commands to paste: an HTTP request, server-sent events, a WebSocket."""
    connector, base = "", url
    if url.startswith("unix:"):
        path, base = url.removeprefix("unix:"), "http://localhost"
        connector = f"connector=aiohttp.UnixConnector({json.dumps(path)})"
    program = f"""\
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession({connector}) as http:
        async with http.ws_connect("{base}/demo/ws") as ws:
            print(await ws.receive_str())
            await ws.send_str("hello")
            print(await ws.receive_str())
asyncio.run(main())"""
    return f"""\
Paste these into another terminal. None contains a credential; keyrelay adds one to each request.
Ctrl-C here stops it.

  HTTP, showing the request as received by the provider:
{curl(url, "/demo/echo/hello?from=curl")}

  Server-sent events, one by one:
{curl(url, "/demo/sse", "-N")}

  A WebSocket:
{shlex.quote(sys.executable)} -c {shlex.quote(program)}
"""
