"""docs/clients/: a page for each client and the table of all, from proxy/config/clients.yaml.

`make client-pages` writes them; a test holds them equal.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.clients import data
from tests.clients.data import BUILT, MODES, ROOT, ROUTED, Call, Client, Mode

FOLDER = ROOT / "docs" / "clients"
_HEADINGS: Mapping[Mode, str] = {
    "prefix": "prefix",
    "listen": "own port",
    "tls": "TLS",
    "exec": "`exec`",
    "intercept": "`--intercept`",
}
_WAYS: Mapping[Mode, str] = {
    "prefix": "the base URL `http://127.0.0.1:8080/<route>`, with any text as key",
    "listen": "a `listen` of the route's own, without a prefix",
    "tls": "the prefix on a listener with `https://`",
    "exec": "the program as the package's README has it, started by `keyrelay exec`",
    "intercept": "the same, started by `keyrelay exec --intercept`",
}
_REGISTRIES = {"pypi": "Python", "npm": "Node"}
_CODE = re.compile(r"[\w.]+[=:](?=\s|,|$)|/[\w/]+|\w+(?:[._]\w+)+|(?<=with )base\w+")
_INSTALL = {"pypi": "pip install", "npm": "npm install"}
_FENCE = {"pypi": "python", "npm": "javascript"}
_CALLS = {
    "rest": "A request",
    "stream": "A streamed response",
    "upload": "An upload",
    "socket": "A WebSocket",
    "agent": "A WebSocket of a voice agent",
    "graphql": "GraphQL",
}


def tried(client: Client, mode: Mode) -> bool:
    """Whether the client is run in a mode: exec only if it can be written without a base URL."""
    return mode in BUILT and (mode in ROUTED or bool(client.plain))


def outcome(client: Client, mode: Mode) -> str:
    """``yes``, ``no``, ``part`` or ``-`` for not tried."""
    if not tried(client, mode):
        return "-"
    failing = sum(mode in call.cannot for call in client.calls)
    return "yes" if not failing else "no" if failing == len(client.calls) else "part"


def pages() -> dict[str, str]:
    """Every file of the folder by name, and its text."""
    known = data.clients()
    texts = {f"{client.slug}.md": _page(client) for client in known}
    texts["README.md"] = _index(known)
    return texts


def _page(client: Client) -> str:
    routes = ", ".join(f"`{route}`" for route in client.routes)
    lines = [
        f"# {client.name}, {_REGISTRIES[client.registry]}",
        "",
        f"Tried with version {client.version}: `{_INSTALL[client.registry]} {client.package}`.",
        f"Routes: {routes}. Setting: {_code(client.setting)}.",
        "",
        _variables(client),
        "",
    ]
    if client.notes:
        lines += [client.notes, ""]
    for call in client.calls:
        lines += [f"## {_CALLS[call.name]}", ""]
        lines += [f"```{_FENCE[client.registry]}", client.program(call).rstrip(), "```", ""]
        lines += [f"Sends {_sends(call)}.", ""]
        lines += _failures(client, call)
    return "\n".join(lines).rstrip() + "\n"


def _variables(client: Client) -> str:
    if not client.variables:
        return "It reads no variable for its address, so `keyrelay exec` alone does not move it."
    names = ", ".join(f"`{name}`" for name in client.variables)
    return f"It reads its address from {names}, which `keyrelay exec` sets."


def _sends(call: Call) -> str:
    return ", then ".join(f"`{name}`" for name in call.sends)


def _failures(client: Client, call: Call) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for mode in MODES:
        if mode in call.cannot and tried(client, mode):
            reasons.setdefault(call.cannot[mode].why, []).append(_HEADINGS[mode])
    lines = [f"- Does not work by {', '.join(modes)}: {why}." for why, modes in reasons.items()]
    return [*lines, ""] if lines else []


def _index(known: tuple[Client, ...]) -> str:
    counts = Counter(outcome for client in known for outcome in _call_outcomes(client))
    packages = {(client.registry, client.package) for client in known}
    registries = Counter(registry for registry, _ in packages)
    routes = {route for client in known for route in client.routes}
    modes = [mode for mode in MODES if mode in BUILT]
    works, cannot = counts["works"], counts["cannot"]
    head = f"""# Clients

{len(packages)} packages, {registries["pypi"]} of PyPI and {registries["npm"]} of npm, for
{len(routes)} presets. `make test-clients` runs each call of each package as a program of its own,
against a recorder of its provider on loopback that takes the one real key at the one right place,
and nothing of the client's own.

Of {works + cannot} combinations of call and way, {works} work and {cannot} cannot. Each of these
is an expected failure; its reason is on the package's page.

| way | what it is |
|---|---|
{"".join(f"| {_HEADINGS[mode]} | {_WAYS[mode]} |{chr(10)}" for mode in modes)}
| package | | version | routes | setting | {" | ".join(_HEADINGS[mode] for mode in modes)} |
|---|---|---|---|---|{"---|" * len(modes)}
"""
    return head + "".join(f"{_row(client)}\n" for client in sorted(known, key=_order))


def _order(client: Client) -> tuple[str, str]:
    return client.routes[0], client.slug


def _call_outcomes(client: Client) -> Iterator[str]:
    for call in client.calls:
        for mode in MODES:
            if tried(client, mode):
                yield "cannot" if mode in call.cannot else "works"


def _row(client: Client) -> str:
    cells = [
        f"[{client.name}]({client.slug}.md)",
        _REGISTRIES[client.registry],
        client.version,
        ", ".join(f"`{route}`" for route in client.routes),
        _code(client.setting),
        *(outcome(client, mode) for mode in MODES if mode in BUILT),
    ]
    return "| " + " | ".join(cells) + " |"


def _code(setting: str) -> str:
    """The setting, with what is written in code marked as such."""
    return _CODE.sub(lambda found: f"`{found[0]}`", setting)


def write(folder: Path) -> None:
    """Write every page, and remove those of clients that are gone."""
    texts = pages()
    folder.mkdir(exist_ok=True)
    for file in folder.glob("*.md"):
        if file.name not in texts:
            file.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(FOLDER)
    sys.exit(0)
