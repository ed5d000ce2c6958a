"""Common mistakes in routes files: each gets the remedy in the user's terms, with its place."""

from __future__ import annotations

import pytest

from proxy.config.loader import load_text
from proxy.errors import ConfigError

CANARY = "CANARY-dummy"
AUTH = 'auth: [{header: X, value: "{key}"}]'
ACME = f"upstream: 'https://a.example', secrets: {{key: env:KEY}}, {AUTH}"

BARE = ACME.removesuffix(AUTH)


def said(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "routes.yaml")
    assert CANARY not in str(caught.value)
    assert all(one.line for one in caught.value.findings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "message", "advice"),
    [
        ("routes:\n\thume: {provider: hume}", "2:1", "a tab is no indentation", "with spaces"),
        ("routes:\n  a: {provider: hume}\n b: {}", "3:2", "indentation differs", "same column"),
        ("routes:\n  a: hume\n    b: c", "3:6", "second colon", "same column"),
        ("routes: {a: {auth: [{header: X, value: Bearer {key}}]}}", "1:47", "braces", 'value: "B'),
        ("routes: {a: {provider: hume}", "1:9", "not closed", "close it"),
        ("listen: [127.0.0.1:80\nroutes: {}", "2:7", "comma or a closing brace", "commas"),
        ("routes:\n  hume\n  camb: {}", "3:7", "second colon", "same column"),
        ("routes: {a: {title: 'hume}}", "1:21", "a quote is not closed", "close it"),
        ('routes: {a: {path: "/\\d"}}', "1:23", "a backslash in double quotes", "single quotes"),
        ("routes: {a: {title: @hume}}", "1:21", "cannot begin with this", "in quotes"),
        ("routes: {a: {title: `hume`}}", "1:21", "cannot begin with this", "in quotes"),
        ("browsers: {origins: [*]}\nroutes: {}", "1:23", "meaning of their own", "in quotes"),
        ("routes: {a: {auth: *auth}}", "1:20", "undefined alias", "in quotes"),
        ("routes: {demo: {provider: demo}}\n---\na: b", "2:1", "a second document", "remove it"),
    ],
)
def test_mistakes_in_yaml(text: str, place: str, message: str, advice: str) -> None:
    """What YAML itself does not accept, in words about the file and not about a parser."""
    found = said(text)
    assert found.startswith(f"routes.yaml:{place}: invalid YAML: "), found
    assert message in found
    assert advice in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("peer_uid: off\nroutes: {demo: {provider: demo}}", 'put it in quotes: "off", "warn"'),
        ("routes: [hume, camb]", "hume: {provider: hume}"),
        ("routes:\n- hume", "hume: {provider: hume}"),
        ("routes: {hume: hume}", "hume: {provider: hume}"),
        ("browsers: [http://localhost:5173]\nroutes: {demo: {provider: demo}}", "{origins: ["),
        (f"routes: {{a: {{{ACME}, max_body_bytes: 10MB}}}}", "number of bytes: 10000000"),
        (f"routes: {{a: {{{ACME}, max_body_bytes: 2 MiB}}}}", "number of bytes: 2097152"),
        (f"routes: {{a: {{{ACME}, idle_seconds: 5m}}}}", "number of seconds: 300"),
        (f"routes: {{a: {{{ACME}, idle_seconds: 30s}}}}", "number of seconds: 30"),
        (f"routes: {{a: {{{ACME}, idle_seconds: 500ms}}}}", "number of seconds: 0.5"),
        (f"routes: {{a: {{{ACME}, idle_seconds: {CANARY}}}}}", "bare number"),
        (f"routes: {{a: {{{ACME}, insecure: true}}}}", "TLS is always verified"),
        (f"routes: {{a: {{{ACME}, verify_ssl: false}}}}", "TLS is always verified"),
        (f"routes: {{a: {{{ACME}, proxy: 'http://p:1'}}}}", "egress_proxy:"),
        ("https_proxy: http://p:1\nroutes: {demo: {provider: demo}}", "egress_proxy:"),
        (f"routes: {{a: {{{ACME}, tls: true}}}}", "ca_file:"),
        (f"routes: {{a: {{{ACME}, ca: /a.pem}}}}", "ca_file:"),
        ("port: 8080\nroutes: {demo: {provider: demo}}", "listen: 127.0.0.1:8080"),
        ("routes: {a: {target: 'https://a.example'}}", "upstream: https://"),
        (f"routes: {{a: {{{ACME}, headers: {{A: b}}}}}}", "auth: ["),
        (f"routes: {{a: {{{ACME}, api_key: {CANARY}}}}}", "secrets: {api_key: env:NAME}"),
        (f"routes: {{a: {{{ACME}, cors: '*'}}}}", "browsers: {origins:"),
        (f"routes: {{a: {{{ACME}, timeout: 5}}}}", "answer_timeout_seconds"),
        (f"routes: {{a: {{{ACME}, prefix: /a}}}}", "path: /prefix"),
        (f"routes: {{a: {{{ACME}, retries: 3}}}}", "keyrelay repeats nothing"),
        ("routes: {hume: {provider: hume, secrets: {api_key: '${HUME_API_KEY}'}}}", "env:HUME_API"),
        ("routes: {hume: {provider: hume, secrets: {api_key: $HUME_API_KEY}}}", "env:HUME_API_KEY"),
        ("routes: {hume: {provider: hume, secrets: {api_key: '${A_KEY:-b}'}}}", "write env:A_KEY"),
        (f"routes: {{a: {{{BARE} auth: [{{header: X, value: {{key}}}}]}}}}", 'value: "{key}"'),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:cat /a | head -1'}}}", "script"),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:cat ~/key'}}}", "sh -c"),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:cat $FILE'}}}", "sh -c"),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:a && b'}}}", "without a shell"),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:a 2>/dev/null'}}}", "sh -c"),
        ("routes: {hume: {provider: hume, secrets: {api_key: 'exec:$(a)'}}}", "without a shell"),
        ("routes: {no: {provider: hume}}", "put it in quotes"),
    ],
)  # fmt: skip
def test_habits_of_other_tools(text: str, words: str) -> None:
    """A key or a form of another tool leads to the setting that is meant, or why there is none."""
    assert words in said(text)


def test_a_shell_that_is_named_is_no_mistake() -> None:
    """A command of sh, and an operator within a quoted argument, are as they should be."""
    for command in ("sh -c 'cat ~/key | head -1'", "op read op://v/i", "jq '.a | .b' /f"):
        load_text(
            f'routes: {{hume: {{provider: hume, secrets: {{api_key: "exec:{command}"}}}}}}',
            "r.yaml",
        )
