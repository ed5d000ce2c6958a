"""The routes file of the working directory: when it is used, and what it cannot do unnamed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import loader
from proxy.config.found_file import NAMES, check_found, find_routes_file
from proxy.errors import ConfigError

ACME = "upstream: https://api.acme.example, auth: [{header: X-Key, value: '{key}'}]"


def _check(path: Path, text: str) -> list[tuple[int, str]]:
    """Line and message of each finding."""
    path.write_text(text)
    try:
        check_found(path, loader.load(path))
    except ConfigError as error:
        return [(one.line, one.message) for one in error.findings]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_either_name_is_found(tmp_path: Path, name: str) -> None:
    """A file of one of the names is found; without one, nothing is, nor is any other name."""
    (tmp_path / "routes.yml").touch()
    assert find_routes_file(tmp_path) is None
    (tmp_path / name).touch()
    assert find_routes_file(tmp_path) == Path(name)


def test_two_files_are_an_error(tmp_path: Path) -> None:
    """Which one is meant is not guessed; both are named, and how to choose."""
    for name in NAMES:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"keyrelay\.yaml is here as well") as caught:
        find_routes_file(tmp_path)
    assert "-c routes.yaml" in caught.value.findings[0].advice


def test_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    """It is not passed over: the routes that ship would then serve unexpectedly."""
    (tmp_path / "routes.yaml").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_routes_file(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Only the user's own is used unnamed."""
    (tmp_path / "routes.yaml").touch()
    os.chown(tmp_path / "routes.yaml", 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        find_routes_file(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "routes: {demo: {provider: demo}, hume: {provider: hume}}",
        "routes: {mine: {provider: hume, path: /voice, allow: [GET /**]}}",
        f"routes: {{acme: {{{ACME}, secrets: {{key: env:ACME_KEY}}}}}}",
        f"routes: {{acme: {{{ACME}, secrets: {{key: file:FOLDER/key}}}}}}",
        f"routes: {{acme: {{{ACME}, secrets: {{key: file:/run/secrets/acme}}}}}}",
        "{browsers: {origins: [http://localhost:1, 'http://a.localhost']}, routes: {d: {PRESET}}}",
    ],
    ids=["presets", "rules", "own", "file", "mount", "pages"],
)
def test_what_it_may_do(tmp_path: Path, text: str) -> None:
    """Presets, a provider of its own with a variable or a file beside it, and local pages."""
    assert _check(tmp_path / "routes.yaml", _filled(text, tmp_path)) == []


def _filled(text: str, folder: Path) -> str:
    return text.replace("FOLDER", str(folder)).replace("PRESET", "provider: demo")


TOKEN = "header: X-Key, value: '{token}'"
PRINTED = "token: {type: exec, command: [x]}"
FETCHED = "token: {type: request, url: https://hume.example/t, json: {k: '{api_key}'}}"
OTHERS = {
    "exec": (f"{ACME}, secrets: {{key: 'exec:pass show x'}}", "exec: runs a program"),
    "keyring": (f"{ACME}, secrets: {{key: 'keyring:a/b'}}", '"keyring" reads a store of secrets'),
    "file": (f"{ACME}, secrets: {{key: 'file:/elsewhere/x'}}", "file: reads a file of another dir"),
    "above": (f"{ACME}, secrets: {{key: 'file:FOLDER/../x'}}", "file: reads a file of another dir"),
    "second": (f"{ACME}, secrets: {{key: [env:A_KEY, 'exec:x']}}", "exec: runs a program"),
    "token": (
        f"upstream: https://api.acme.example, auth: [{{{PRINTED}, {TOKEN}}}]",
        "a program prints the token",
    ),
    "upstream": ("provider: hume, upstream: https://hume.example", "HUME_API_KEY would be sent"),
    "port": ("provider: hume, upstream: https://api.hume.ai:444", "HUME_API_KEY would be sent"),
    "variable": (f"{ACME}, secrets: {{key: env:OPENAI_API_KEY}}", "OPENAI_API_KEY would be sent"),
    "url": (f"provider: hume, auth: [{{{FETCHED}, {TOKEN}}}]", "HUME_API_KEY would be sent"),
    "proxy": ("provider: demo, egress_proxy: http://127.0.0.1:1", "egress_proxy sends requests"),
}


@pytest.mark.parametrize(("route", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_what_needs_the_name(tmp_path: Path, route: str, message: str) -> None:
    """Programs, other files and stores, proxies, and a known provider's key for another host."""
    route = route.replace("FOLDER", str(tmp_path))
    found = _check(tmp_path / "routes.yaml", f"listen: 127.0.0.1:0\nroutes:\n  it: {{{route}}}\n")
    assert {line for line, _ in found} == {3}
    assert any(text.startswith(message) for _, text in found)
    assert all(text.endswith(", and the file is not named") for _, text in found)


def test_a_page_of_another_machine_needs_the_name(tmp_path: Path) -> None:
    """Such a page could spend the keys."""
    text = (
        "browsers:\n  origins: [http://localhost:1, https://app.example]\nroutes: {demo: {provider:"
    )
    found = _check(tmp_path / "routes.yaml", f"{text} demo}}}}")
    assert found == [(2, "this page is of another machine, and the file is not named")]


def test_a_server_of_shared_tokens_needs_the_name(tmp_path: Path) -> None:
    """Any variable could leave as its password."""
    text = "tokens: {share: rediss://redis.example, password: env:DUMMY}\nroutes: {demo: {provider:"
    found = _check(tmp_path / "routes.yaml", f"{text} demo}}}}")
    assert found == [
        (1, "tokens: sends a password and sealed tokens to a server, and the file is not named")
    ]


def test_a_preset_of_the_file_s_own_is_judged_as_a_route(tmp_path: Path) -> None:
    """A directory of presets beside the file hides nothing."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hume.yaml").write_text(
        "upstream: https://hume.example\nsecrets: {key: env:HUME_API_KEY}\n"
        "auth: [{header: X-Key, value: '{key}'}]\n"
    )
    text = "providers: [mine]\nroutes: {hume: {provider: hume}}"
    [(_, message)] = _check(tmp_path / "routes.yaml", text)
    assert message.startswith("HUME_API_KEY would be sent to another provider")
