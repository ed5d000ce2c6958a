"""A route with its preset, and what is wrong with it; whole files: tests.config.test_loader."""

from __future__ import annotations

from proxy.config.document import read_yaml
from proxy.config.presets import shipped
from proxy.config.route_findings import complete_routes, valid_listeners


def found(text: str) -> list[str]:
    """The findings about the routes in a text."""
    document = read_yaml(text, "r.yaml")
    findings = list(document.findings)
    complete_routes(document, document.data["routes"], shipped(), findings)
    return [str(one) for one in [*findings, *document.findings]]


def test_a_route_has_what_its_preset_has() -> None:
    """And a path by its name; without findings."""
    document = read_yaml("routes: {h: {provider: hume}}", "r.yaml")
    routes = complete_routes(document, document.data["routes"], shipped(), [])
    hume = shipped()["hume"].settings
    assert (routes["h"].upstream, routes["h"].auth, routes["h"].path) == (
        hume.upstream,
        hume.auth,
        "/h",
    )
    assert document.findings == []


def test_what_a_route_lacks_is_found() -> None:
    """Each at its place, all at once."""
    assert found("routes:\n  a: {}\n  b: {provider: humee}\n") == [
        "r.yaml:2:3: route has no upstream\n    add upstream: https://…",
        "r.yaml:2:3: route has no auth\n    add provider:, or auth: with a placement",
        'r.yaml:3:17: unknown provider "humee"\n    did you mean "hume"?',
    ]


def test_an_invalid_address_has_a_stand_in() -> None:
    """The other addresses are still compared with those of other listeners."""
    listen = ["127.0.0.1:1", "nowhere", "unix:/run/dummy.sock"]
    assert valid_listeners(listen) == ("127.0.0.1:1", "127.0.0.1:0", "unix:/run/dummy.sock")
