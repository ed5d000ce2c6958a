"""proxy/config/clients.yaml agrees with what is pinned, with the presets and with docs/clients/."""

from __future__ import annotations

import json
import re

import pytest

from proxy.config.presets import presets
from tests.clients import data, pages
from tests.clients.data import BASE, ROOT, Client

CLIENTS = data.clients()

every_client = pytest.mark.parametrize("client", CLIENTS, ids=[one.slug for one in CLIENTS])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(file: str) -> dict[str, str]:
    """Name and version of each requirement of a hashed file."""
    text = (ROOT / file).read_text()
    return {
        normal(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    }


def installed() -> dict[str, str]:
    """Name and version of each package of the lock file."""
    lock = json.loads((ROOT / "tests" / "clients" / "node" / "package-lock.json").read_text())
    return {
        path.removeprefix("node_modules/"): entry["version"]
        for path, entry in lock["packages"].items()
        if path.count("node_modules/") == 1
    }


@every_client
def test_the_version_is_the_one_that_is_run(client: Client) -> None:
    """The version that the pages name is what make test-clients installs, CI's subset too."""
    if client.registry == "npm":
        assert installed()[client.package] == client.version
        manifest = json.loads((ROOT / "tests" / "clients" / "node" / "package.json").read_text())
        assert client.package in manifest["dependencies" if client.ci else "devDependencies"]
        return
    assert pinned("requirements-clients-all.txt")[normal(client.package)] == client.version
    if client.ci:
        assert pinned("requirements-clients.txt")[normal(client.package)] == client.version


@every_client
def test_the_routes_are_presets(client: Client) -> None:
    """A snippet leads to routes of the catalogue alone, and to no other address."""
    assert set(client.routes) <= presets().keys()
    for call in client.calls:
        text = client.program(call)
        found = {f"{BASE}/{one}" for one in re.findall(r"127\.0\.0\.1:8080/([\w-]+)", text)}
        assert found <= {f"{BASE}/{route}" for route in client.routes}


@every_client
def test_the_dummy_is_recognisable(client: Client) -> None:
    """Every snippet's key is a word that a recorder finds wherever it arrives."""
    assert "unused" in client.routed


def test_there_is_one_entry_for_each_package() -> None:
    """Names of pages, and of tests, are unique."""
    slugs = [client.slug for client in CLIENTS]
    assert sorted(set(slugs)) == sorted(slugs)
    assert len({(client.registry, client.package) for client in CLIENTS}) >= 60


def test_the_pages_are_those_of_the_file() -> None:
    """docs/clients/ is what `make client-pages` writes."""
    there = {file.name: file.read_text(encoding="utf-8") for file in pages.FOLDER.glob("*.md")}
    assert there == pages.pages()


def test_no_file_names_a_registry() -> None:
    """The lock file has hashes and versions, and no addresses."""
    lock = (ROOT / "tests" / "clients" / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in lock
