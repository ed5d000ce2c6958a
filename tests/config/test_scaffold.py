"""The texts to begin with: they have to work as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

import proxy
from proxy.config import loader
from proxy.config.presets import presets
from proxy.config.scaffold import _variables, demo_commands, routes_file, shipped_routes

NOT_ANYWHERE = {"demo"} | {name for name, one in presets().items() if one.upstream is None}
ALL_KEYS = {one: "dummy" for preset in presets().values() for one in _variables(preset)}


def test_the_shipped_routes_are_there_and_right() -> None:
    """Every provider of the project has a route in the file that ships, and the file is right."""
    settings = loader.load(shipped_routes())
    assert list(settings.routes) == ["demo", "hume", "aigne", "camb", "camb-realtime", "inworld"]
    assert settings.routes["aigne"].listen


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, []),
        ({"HUME_API_KEY": "dummy"}, ["hume"]),
        ({"CAMB_API_KEY": "dummy"}, ["camb", "camb-realtime"]),
        (ALL_KEYS, sorted(name for name in presets() if name not in NOT_ANYWHERE)),
        ({"UNRELATED": "dummy", "HUME_API_KEY": ""}, []),
    ],
    ids=["none", "hume", "camb", "all", "empty"],
)
def test_a_routes_file_has_what_the_environment_has(
    environment: Mapping[str, str], found: list[str]
) -> None:
    """Routes for the providers whose variables are set; no value of a variable in the text."""
    text, names = routes_file(environment)
    assert names == ["demo", *found]
    assert list(loader.load_text(text, "routes.yaml").routes) == names
    assert "dummy" not in text


@pytest.mark.parametrize(
    "name", sorted(name for name, preset in presets().items() if preset.upstream is None)
)
def test_a_provider_that_runs_in_many_places_waits_for_its_upstream(name: str) -> None:
    """Its route stands there as a comment, which is right once the address is filled in."""
    variables = {one: "dummy" for one in ALL_KEYS if one in _variables(presets()[name])}
    text, names = routes_file(variables)
    assert name not in names
    commented = re.search(rf"^  # {name}:\n(?:  #   .*\n)+", text, re.MULTILINE)
    assert commented is not None
    route = re.sub("^  # ", "  ", commented[0], flags=re.MULTILINE)
    route = route.replace("https://…", "https://api.example.com")
    settings = loader.load_text(text.replace(commented[0], route), "routes.yaml")
    assert name in settings.routes


def test_the_origins_example_is_right_too() -> None:
    """What is commented out about pages is YAML that would be taken."""
    text, _ = routes_file({})
    uncommented = re.sub(r"^# (browsers:|  origins:)", r"\1", text, flags=re.MULTILINE)
    settings = loader.load_text(uncommented, "routes.yaml")
    assert settings.browsers.origins == ("http://localhost:5173",)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://[::1]:1234", "unix:/run/it's here/keyrelay.sock"]
)
def test_the_demo_s_commands_survive_a_shell(url: str) -> None:
    """Each of the three is one command whose words are what was meant, odd paths included."""
    text = demo_commands(url)
    commands = re.findall(r"^  \S.*:\n((?:.+\n)+)", text, re.MULTILINE)
    assert len(commands) == 3
    http, events, socket = (shlex.split(command) for command in commands)
    base = "http://localhost" if url.startswith("unix:") else url
    assert http[-1] == f"{base}/demo/echo/hello?from=curl"
    assert events[-2:] == ["-N", f"{base}/demo/sse"]
    if url.startswith("unix:"):
        assert http[1:3] == events[1:3] == ["--unix-socket", url.removeprefix("unix:")]
    assert socket[1] == "-c"
    compile(socket[2], "pasted", "exec")
    assert f'"{base}/demo/ws"' in socket[2]


def test_the_package_has_the_shipped_routes() -> None:
    """The copy that a wheel brings is the checkout's file, byte for byte."""
    package = Path(proxy.__file__).parent
    copy = package / "config" / "routes.yaml"
    assert copy.read_bytes() == (package.parent / "config" / "routes.yaml").read_bytes()
