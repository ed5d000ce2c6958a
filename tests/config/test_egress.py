"""Settings of the way to providers: what is accepted, and what each mistake is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config.egress import EgressProxySettings
from proxy.config.loader import Overrides, files, from_providers, load_text
from proxy.errors import ConfigError, Finding
from proxy.upstream.authorities import read_authorities
from tests.support.certificates import Authority

CANARY = "CANARY-dummy-password"
ROUTE = {
    "upstream": "https://api.example",
    "secrets": {"key": "env:DUMMY_KEY"},
    "auth": [{"header": "X-Api-Key", "value": "{key}"}],
}


def loaded(folder: Path, route: dict[str, Any] | None = None, **settings: Any) -> Any:
    document = {"routes": {"acme": {**ROUTE, **(route or {})}}, **settings}
    return load_text(json.dumps(document, indent=1), "routes.yaml", folder)


def findings(folder: Path, route: dict[str, Any] | None = None, **settings: Any) -> list[Finding]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, route, **settings)
    assert CANARY not in str(caught.value)
    return list(caught.value.findings)


def test_every_route_gets_the_way_of_the_file(tmp_path: Path, authority: Authority) -> None:
    """The file's proxy and CAs hold for routes without their own; paths become absolute."""
    settings = loaded(tmp_path, egress_proxy="http://proxy.example:3128", ca_file="authority.pem")
    (route,) = settings.routes.values()
    assert route.egress_proxy == EgressProxySettings(url="http://proxy.example:3128")
    assert route.ca_file == str(authority.file)
    assert authority.file in set(files(tmp_path / "routes.yaml", settings))


def test_a_route_has_its_own(tmp_path: Path, authority: Authority) -> None:
    """A route's own settings replace those of the file."""
    settings = loaded(
        tmp_path,
        {"egress_proxy": "direct", "ca_file": str(authority.file)},
        egress_proxy="env:HTTPS_PROXY",
    )
    (route,) = settings.routes.values()
    assert route.egress_proxy == EgressProxySettings(url="direct")
    assert route.ca_file == str(authority.file)


def test_an_option_replaces_the_proxy_of_the_file() -> None:
    """The command line's proxy holds for presets without a file too."""
    overrides = Overrides(egress_proxy=EgressProxySettings(url="env:HTTPS_PROXY"))
    (route,) = from_providers(["hume"], overrides).routes.values()
    assert route.egress_proxy == overrides.egress_proxy


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("https://proxy.example:3128", "TLS to the proxy itself is not supported", "write http://"),
        ("socks5://proxy.example:1080", "only HTTP proxies are supported", "http://HOST:PORT"),
        ("http://proxy.example", "the proxy's port is missing", "http://HOST:PORT"),
        ("proxy.example:3128", "the scheme is missing", "http://HOST:PORT"),
        (
            f"http://dummy:{CANARY}@proxy.example:3128",
            "a password does not belong",
            "password: env",
        ),
        (f"dummy:{CANARY}@proxy.example:3128", "", "http://HOST:PORT"),
        ("proxy.example", "invalid secret reference", "env:HTTPS_PROXY"),
        ("env:1X", "invalid variable name", "env:HTTPS_PROXY"),
        ("file:proxy", "not absolute", "file:/absolute/path"),
        (False, "off is read as false", "egress_proxy: direct"),
        ({"url": "http://proxy.example:1", "username": "a"}, "belong together", "both"),
        ({"url": "http://proxy.example:1", "password": "env:A"}, "belong together", "both"),
        (
            {"url": "http://proxy.example:1", "username": "a:b", "password": "env:A"},
            "no colon",
            "password:",
        ),
        ({"url": "direct", "no_proxy": ["a"]}, "direct has no further settings", "remove"),
        ({"url": "http://proxy.example:1", "no_proxy": ["a,b"]}, "invalid host", "env:NO_PROXY"),
        (
            {"url": "http://proxy.example:1", "no_proxy": ["*.a.example"]},
            "a wildcard in no_proxy matches nothing",
            "write a.example, which covers its subdomains",
        ),
        (
            {"url": "http://proxy.example:1", "no_proxy": ["a.example:8443"]},
            "an entry of no_proxy has no port",
            "write a.example",
        ),
        (
            {"url": "http://proxy.example:1", "no_proxy": ["http://a.example/"]},
            "an entry of no_proxy is a host",
            "write a.example",
        ),
        ({"url": "http://proxy.example:1", "no_proxy": "[::1]:80"}, "no port", "write [::1]"),
        (
            {"url": "http://proxy.example:1", "pasword": "env:A"},
            'unknown key "pasword"',
            "password",
        ),
        ({}, '"url" is missing', "add url:"),
        (3128, "expected a mapping, got a number", ""),
    ],
)
def test_what_is_no_proxy(tmp_path: Path, value: Any, message: str, hint: str) -> None:
    """Each mistake has its place, its sentence and what to write, in the file and in a route."""
    for found in (
        findings(tmp_path, egress_proxy=value),
        findings(tmp_path, {"egress_proxy": value}),
    ):
        (one,) = found
        assert message in one.message
        assert hint in one.advice
        assert one.line > 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "no certificate in PEM"),
        (b"\x30\x82\x01\x0a", "no certificate in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no certificate"),
        (b"a" * (5 * 1024 * 1024), "larger than 4 MiB"),
    ],
)
def test_files_without_a_certificate(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A CA file of no use is a finding with its place, and the file starts nothing."""
    if content is not None:
        (tmp_path / "company.pem").write_bytes(content)
    for found, line in (
        (findings(tmp_path, ca_file="company.pem"), 16),
        (findings(tmp_path, {"ca_file": "company.pem"}), 14),
    ):
        (one,) = found
        assert message in one.message
        assert one.advice
        assert (one.file, one.line) == ("routes.yaml", line)


@pytest.mark.parametrize("damage", ["line", "text", "empty", "outside"])
def test_a_damaged_certificate(tmp_path: Path, authority: Authority, damage: str) -> None:
    """It is a finding with its number: the others in the file do not make up for it."""
    good = authority.file.read_bytes()
    lines = good.splitlines(keepends=True)
    bad = {
        "line": b"".join(lines[:2] + lines[3:]),
        "text": lines[0] + b"YWFhYQ==\n" + lines[-1],
        "empty": lines[0] + b"\n" + lines[-1],
        "outside": b"".join([*lines[:2], b"> a line of a mail:\n", *lines[2:]]),
    }[damage]
    for content, number in ((bad, 1), (good + bad, 2), (bad + good, 1)):
        (tmp_path / "company.pem").write_bytes(content)
        (one,) = findings(tmp_path, ca_file="company.pem")
        assert f"certificate {number} of the file is damaged" in one.message
        assert one.advice


def test_a_bundle(tmp_path: Path, authority: Authority) -> None:
    """Several certificates, text around them, line breaks of Windows and a byte-order mark."""
    good = authority.file.read_bytes()
    text = b"\xef\xbb\xbf# company\n" + good + b"\nsubject=dummy\n" + good
    for content in (text, text.replace(b"\n", b"\r\n")):
        (tmp_path / "company.pem").write_bytes(content)
        assert read_authorities(tmp_path / "company.pem").count("BEGIN") == 2


def test_a_directory_as_ca_file(tmp_path: Path) -> None:
    """A directory is no file with certificates."""
    (one,) = findings(tmp_path, ca_file=".")
    assert "cannot be read: Is a directory" in one.message


@pytest.mark.parametrize("key", ["egress_proxy", "ca_file"])
def test_presets_have_no_way_of_their_own(tmp_path: Path, key: str) -> None:
    """The way to a provider is of a network, and so of a route."""
    (tmp_path / "presets").mkdir()
    preset = {**ROUTE, key: "direct"}
    (tmp_path / "presets" / "acme.yaml").write_text(json.dumps(preset))
    with pytest.raises(ConfigError, match=f'"{key}" is not for presets'):
        load_text(
            "providers: [presets]\nroutes: {acme: {provider: acme}}\n", "routes.yaml", tmp_path
        )
