from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import proxy
from proxy.config.files import FILE_LIMIT_BYTES
from proxy.config.loader import Overrides, from_providers, load, load_text, schema
from proxy.config.presets import presets
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.errors import ConfigError

SHIPPED = Path(proxy.__file__).parent.parent / "config" / "routes.yaml"


def said(text: str, folder: Path | None = None) -> list[str]:
    """Every finding for ``text`` as ``line:column: message / advice``."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "r.yaml", folder)
    return [str(f).removeprefix("r.yaml:").replace("\n    ", " / ") for f in caught.value.findings]


def one(text: str) -> str:
    (finding,) = said(text)
    return finding


ACME = """\
routes:
  acme:
    upstream: https://api.acme.example/v2
    secrets: {key: env:ACME_KEY}
    auth: [{header: X-Api-Key, value: "{key}"}]
"""


def test_the_shipped_file_loads() -> None:
    """The routes that ship are right and lead to the documented places."""
    settings = load(SHIPPED)
    assert {name: route.upstream for name, route in settings.routes.items()} == {
        "demo": "builtin:demo",
        "hume": "https://api.hume.ai",
        "aigne": "https://hub.aigne.io",
        "camb": "https://client.camb.ai",
        "camb-realtime": "https://realtime.camb.ai",
        "inworld": "https://api.inworld.ai",
    }
    assert settings.routes["aigne"].listen == ("127.0.0.1:8082",)
    first = SHIPPED.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../proxy/config/routes.schema.json"


def test_the_examples_in_the_shipped_file_load() -> None:
    """What is commented out for newcomers is right as well."""
    text = SHIPPED.read_text(encoding="utf-8")
    text = text.replace("# browsers:\n#   origins", "browsers:\n  origins")
    for example in ("upstream: https://hub", "secrets: {api_key: file", "allow: [POST"):
        assert f"  #   {example}" in text or f"    #   {example}" in text
        text = text.replace(f"    #   {example}", f"    {example}")
        text = text.replace(f"  #   {example}", f"  #  {example}")
    lines, inside = [], False
    for line in text.splitlines():
        inside = inside or line == "  # acme:"
        lines.append(line.replace("  # ", "  ", 1) if inside else line)
    settings = load_text("\n".join(lines), "r.yaml")
    assert settings.browsers.origins == ("http://localhost:5173",)
    assert settings.routes["camb"].allow == ("POST /apis/tts-stream", "GET /apis/**")
    assert settings.routes["camb"].secrets["api_key"].references == ("file:/run/secrets/camb",)
    assert settings.routes["acme"].path == "/acme"


def test_a_route_says_all_that_a_preset_can_say() -> None:
    """A route without a provider is complete by itself."""
    route = load_text(ACME, "r.yaml").routes["acme"]
    assert (route.path, route.upstream) == ("/acme", "https://api.acme.example/v2")
    assert route.auth[0].http == route.auth[0].websocket


def test_a_route_overlays_its_preset() -> None:
    """What the route says wins; what it leaves out is the preset's; secrets go by name."""
    route = load_text(
        "routes:\n"
        "  h:\n"
        "    provider: hume\n"
        "    upstream: https://staging.example\n"
        "    idle_seconds: 5\n"
        "    secrets: {api_key: [env:NEW, env:OLD]}\n"
        "    deny: [DELETE /**]\n"
        "    strip: {headers: [X-Mine]}\n",
        "r.yaml",
    ).routes["h"]
    hume = presets()["hume"]
    assert (route.upstream, route.idle_seconds) == ("https://staging.example", 5)
    assert (route.title, route.auth, route.verify) == (hume.title, hume.auth, hume.verify)
    assert route.secrets["api_key"].references == ("env:NEW", "env:OLD")
    assert route.path == "/h"


def test_a_route_adds_to_the_rules_of_its_preset() -> None:
    """Denying more never opens what the preset denies; only an empty list does, on purpose."""
    hume = presets()["hume"]
    text = "routes: {h: {provider: hume, deny: [DELETE /**], strip: {headers: [X-Mine]}}}"
    route = load_text(text, "r.yaml").routes["h"]
    assert route.deny == (*hume.deny, "DELETE /**")
    assert route.strip.headers == (*hume.strip.headers, "X-Mine")
    assert route.strip.query == hume.strip.query
    lifted = load_text("routes: {h: {provider: hume, deny: []}}", "r.yaml").routes["h"]
    assert lifted.deny == ()


def test_providers_alone_are_enough() -> None:
    """Names make complete routes with no file at all, each once."""
    settings = from_providers(["hume", "camb", "hume"])
    assert list(settings.routes) == ["hume", "camb"]
    assert settings.routes["camb"].path == "/camb"
    assert settings.listen == ("127.0.0.1:8080",)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["humee"], 'unknown provider "humee"\n    did you mean "hume"?'),
        (["zzz"], "known are: aigne-hub, anthropic"),
        ([], "no provider given"),
        (["sk-dummy123"], "unknown provider this key"),
    ],
)
def test_providers_that_do_not_exist_are_findings(names: list[str], expected: str) -> None:
    """An unknown name gets the nearest as a suggestion, or all there are."""
    with pytest.raises(ConfigError) as caught:
        from_providers(names)
    assert expected in str(caught.value)


MANY = """\
listen: 8080
lisen: x
browsers:
  origins: [null, "*", http://LOCALHOST:1]
routes:
  a: {provider: humee}
  b:
    provider: hume
    secrets: {apikey: env:X, api_key: sk-dummy-1}
    deny: 5
    idle_seconds: "3"
    auth: x
  c:
    upstream: http://example.com
    secrets: {k: {env: K, optinal: true}}
    auth: [{header: Host, vale: "{k}"}]
  d:
  e: {provider: hume, path: /c, strategy: foo}
  f: {upstream: https://x.example}
  F: {provider: hume, provider: camb}
  g:
    auth:
      - http: {value: a}
      - {query: q, header: h, value: "{k}"}
      - http: {header: a, value: sk-dummy-2}
        cookie: x
  1: {}
"""


def test_all_findings_come_at_once_with_their_places() -> None:
    """One error has every finding in the file's order, and no value that may be a secret."""
    found = said(MANY)
    assert [finding.partition(" / ")[0] for finding in found] == [
        "1:9: expected a string, got a number",
        '2:1: unknown key "lisen"',
        "4:13: null would admit any sandboxed page",
        "4:19: * would allow pages that were not chosen",
        "4:24: browsers send origins in lower case",
        '6:17: unknown provider "humee"',
        "9:39: invalid secret reference",
        "10:11: expected a list of strings, got a number",
        "11:19: expected a number, got a string",
        "12:11: expected a list of strategies, got a string",
        "14:15: the credential would go over plain http to another machine",
        '15:27: unknown key "optinal"',
        '16:12: "value" is missing',
        "16:21: the header host belongs to the connection, not to the credential",
        '16:27: unknown key "vale"',
        "17:5: expected a mapping, got nothing",
        "18:29: the route c has this path already",
        '18:43: unknown strategy "foo"',
        "19:3: route has no auth",
        "20:3: invalid route name",
        '20:23: duplicate key "provider"',
        "21:3: route has no upstream",
        "23:9: no placement uses a secret",
        "23:15: the placement has no target",
        '24:10: a placement has one target, so it cannot have "query" as well',
        '24:38: "{k}" names no secret',
        "25:9: no placement uses a secret",
        '26:9: a strategy with http: or websocket: has no "cookie" beside them',
        "27:3: a key must be a string",
    ]
    assert "dummy" not in str(found)
    assert 'did you mean "listen"?' in found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("routes: {}", "1:1: no routes"),
        ("routes:\n", "1:1: no routes"),
        ("routes: [a]", "1:9: expected a mapping, got a list"),
        ("listen: 127.0.0.1:1", "1:1: no routes"),
        ("5", "1:1: expected a mapping, got a number"),
        ("[]", "1:1: expected a mapping, got a list"),
        ("~", "1:1: expected a mapping, got nothing"),
        ("routes: {demo: {provider: demo}}\nlisten: []", "2:9: expected at least one, got none"),
        (
            "routes: {demo: {provider: demo, secrets: {kay: env:A}}}",
            '1:43: the provider has no secret "kay" / did you mean "key"?',
        ),
        (
            ACME.replace("{key}", "{kye}"),
            '5:39: "{kye}" names no secret / did you mean "key"?',
        ),
        (
            ACME.replace("    secrets: {key: env:ACME_KEY}\n", ""),
            '4:39: "{key}" names no secret / add secrets: {key: env:NAME}',
        ),
        (
            ACME + "  b: {provider: demo, path: /acme}\n",
            "6:29: the route acme has this path already",
        ),
        (
            "routes: {a: {provider: demo, listen: '127.0.0.1:8080'}}",
            "1:38: the main listener listens there already",
        ),
        (
            "routes:\n  a: {provider: demo, listen: ['[::1]:1', '[0::1]:1']}",
            "2:43: the route a listens there already",
        ),
        (
            "routes:\n  a: {provider: demo, upstream: 'http://localhost:8080/x'}",
            "2:33: the upstream is keyrelay itself",
        ),
        (
            "routes: {a: {provider: hume, drain_seconds: 5}}",
            '1:30: unknown key "drain_seconds" / did you mean "idle_seconds"?',
        ),
        ("browsers: {origin: []}\nroutes: {a: {provider: demo}}", '1:12: unknown key "origin"'),
        ("drain_seconds: -1\nroutes: {a: {provider: demo}}", "1:16: expected at least 0, got"),
        ("drain_seconds: 1e9\nroutes: {a: {provider: demo}}", "1:16: expected a number"),
        ("drain_seconds: .inf\nroutes: {a: {provider: demo}}", "1:16: "),
        (
            "routes: {a: {provider: demo, allow_private: 'yes'}}",
            "1:45: expected true or false, got a string / write it without quotes",
        ),
        (
            "routes: {a: {provider: demo, strip: {header: [a]}}}",
            '1:38: unknown key "header" / did you mean "headers"?',
        ),
        (
            ACME.replace("header: X-Api-Key, value: ", "basic: {user: a}, x: "),
            '5:21: unknown key "user"',
        ),
        (
            ACME.replace("[{", "[{name: n, query: q, value: '{key}'}, {name: n, "),
            "another strategy has this name",
        ),
        (
            ACME + "    strategy: x\n",
            '6:15: unknown strategy "x" / give the strategy a name:',
        ),
        (
            ACME.replace("https://api.acme", "http://api.acme"),
            "3:15: the credential would go over plain http",
        ),
        (
            "routes: {a: {provider: demo, secrets: {key: {env: A, file: /b}}}}",
            "1:45: a secret has one source",
        ),
        (
            "routes: {a: {provider: demo, secrets: {key:dummy}}}",
            "1:40: invalid secret name",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_said_where_it_stands(text: str, expected: str) -> None:
    """Line and column are those of the key or value at fault, in words for people."""
    found = said(text)
    assert any(finding.startswith(expected) or expected in finding for finding in found), found


def test_plain_http_can_be_asked_for() -> None:
    """Loopback needs no leave; another machine needs allow_plaintext."""
    here = ACME.replace("https://api.acme.example", "http://127.0.0.1:9")
    assert load_text(here, "r.yaml").routes["acme"].upstream == "http://127.0.0.1:9/v2"
    there = ACME.replace("https:", "http:") + "    allow_plaintext: true\n"
    assert load_text(there, "r.yaml").routes["acme"].allow_plaintext


def test_port_zero_never_overlaps() -> None:
    """Any number of listeners may ask for a free port."""
    main = "listen: ['127.0.0.1:0', '127.0.0.1:0']\n"
    own = "routes: {demo: {provider: demo, listen: '127.0.0.1:0'}}"
    assert len(load_text(main + own, "r.yaml").listen) == 2


def test_presets_of_ones_own_are_used(tmp_path: Path) -> None:
    """A directory beside the file adds providers and may replace a shipped one."""
    (tmp_path / "mine").mkdir()
    body = "upstream: https://x.example\nsecrets: {k: env:K}\nauth: [{header: X, value: '{k}'}]\n"
    (tmp_path / "mine" / "acme.yaml").write_text(body)
    (tmp_path / "mine" / "demo.yaml").write_text(body)
    file = tmp_path / "routes.yaml"
    file.write_text("providers: [./mine]\nroutes: {a: {provider: acme}, b: {provider: demo}}\n")
    routes = load(file).routes
    assert {route.upstream for route in routes.values()} == {"https://x.example"}


def test_findings_in_presets_point_into_the_preset(tmp_path: Path) -> None:
    """What is wrong in a preset is said of its own file, once, beside the file's findings."""
    for name in ("mine", "also"):
        (tmp_path / name).mkdir()
    bad = tmp_path / "mine" / "bad.yaml"
    bad.write_text(
        "upstream: http://x.example\nsecrets: {k: env:K}\nauth: [{header: X, value: '{z}'}]\n"
    )
    (tmp_path / "mine" / "twice.yaml").write_text("title: x\n")
    (tmp_path / "also" / "twice.yaml").write_text("title: x\n")
    (tmp_path / "also" / "binary.yaml").write_bytes(b"\xff")
    found = said(
        "providers: [mine, also, none]\nroutes: {a: {provider: bad}, b: {provider: bad}}\n",
        tmp_path,
    )
    assert [finding.partition(" / ")[0] for finding in found] == [
        f"{tmp_path}/also/binary.yaml:1:1: invalid UTF-8",
        f"{bad}:1:11: the credential would go over plain http to another machine",
        f'{bad}:3:27: "{{z}}" names no secret',
        '1:19: the preset "twice" is in two of the directories',
        "1:25: no such directory",
    ]


def test_files_that_cannot_be_read_are_findings(tmp_path: Path) -> None:
    """A missing, unreadable, large or foreign file is said in words, not as an exception."""
    large, latin = tmp_path / "large.yaml", tmp_path / "latin.yaml"
    large.write_bytes(b"#" * (FILE_LIMIT_BYTES + 1))
    latin.write_bytes("a: 1\nb: ä".encode("latin-1"))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, expected in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "this is a directory"),
        (loop, "the file cannot be read"),
        (tmp_path / "a\0b", "the file cannot be read"),
        (large, "larger than 1 MiB"),
        (latin, "latin.yaml:2:4: invalid UTF-8"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert expected in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors that write one do not move every column."""
    path = tmp_path / "routes.yaml"
    path.write_text(ACME, encoding="utf-8-sig")
    assert list(load(path).routes) == ["acme"]


def test_loading_leaves_no_trace() -> None:
    """A mistake in one file is not reported for the next: shipped presets are not written to."""
    assert "strategy" in one("routes: {h: {provider: hume, strategy: x}}")
    assert "strategy" in one("routes: {h: {provider: hume, strategy: x}}")
    load_text("routes: {h: {provider: hume}}", "r.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workers: 0", "1:10: expected at least 1, got another number"),
        ("max_connections: -1", "1:18: expected at least 1, got another number"),
        (
            "drain_seconds: -1",
            "1:16: expected at least 0, got another number / the unit is seconds",
        ),
    ],
)
def test_only_what_counts_seconds_has_that_unit(text: str, expected: str) -> None:
    """A bound of connections or processes is said without one."""
    assert said(f"{text}\nroutes: {{a: {{provider: demo}}}}") == [expected]


@pytest.mark.parametrize("rate", ["5", "'5'", "true"])
def test_a_rate_that_is_none_is_shown_one(rate: str) -> None:
    """Putting a number in quotes would make no rate of it."""
    [found] = said(f"routes: {{a: {{provider: demo, rate: {rate}}}}}")
    assert found.endswith(" / write for example 60/minute; or second, hour, day")


@pytest.mark.parametrize("text", ["hume", "[hume]", "5"])
def test_a_file_that_is_no_mapping_is_told_how_it_begins(text: str) -> None:
    """As if naming a provider sufficed."""
    [found] = said(text)
    assert found.startswith("1:1: expected a mapping, got ")
    assert found.endswith(
        " / write routes: and a route, indented below it, such as hume: {provider: hume}"
    )


def test_the_schema_that_ships_is_current() -> None:
    """Editors are told what the settings say today."""
    path = Path(proxy.__file__).parent / "config" / "routes.schema.json"
    assert path.read_text(encoding="utf-8") == json.dumps(schema(), indent=2) + "\n", (
        "proxy/config/routes.schema.json is old; run: make schema, or python -c 'import json; "
        "from proxy.config.loader import schema; print(json.dumps(schema(), indent=2))' "
        "> proxy/config/routes.schema.json"
    )


def test_the_schema_explains_every_key() -> None:
    """Each property has a description; short forms are part of it."""
    made = schema()
    assert made["$schema"].endswith("2020-12/schema")
    parts = {"the file": made, **made["$defs"]}
    for part, body in parts.items():
        for name, value in body.get("properties", {}).items():
            assert "description" in value or "$ref" in value, f"{part}: {name}"
    assert {"header", "basic", "query", "path", "cookie", "message"} <= (
        made["$defs"]["StrategySettings"]["properties"].keys()
    )


WORDS = st.sampled_from(
    [*Settings.model_fields, *RouteSettings.model_fields, "hume", "demo", "header", "value",
     "http", "env", "file", "basic", "username", "query", "key", "null", "*", "env:A", "{key}",
     "127.0.0.1:1", "https://a.example", "/v1/**", "GET /x", "http://[", "https://é", "\u0000",
     "unix:/x", "-", "references", "origins", "subprotocols", "[key]", "placement:header",
     "message", "set", "send", "after", "when", "within", "refused"]
)  # fmt: skip
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
STRUCTURES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | SCALARS, inner, max_size=5),
    max_leaves=25,
)


def try_to_load(text: str) -> None:
    try:
        load_text(text, "r.yaml")
    except ConfigError as error:
        findings = error.findings
    else:
        return
    assert findings
    assert all(finding.line >= 1 and finding.column >= 1 for finding in findings)


@given(STRUCTURES)
def test_no_structure_raises_anything_else(data: object) -> None:
    """Whatever a file says, loading gives settings or a ConfigError with places."""
    try_to_load(yaml.safe_dump(data))


@given(st.dictionaries(st.sampled_from(list(RouteSettings.model_fields)), STRUCTURES))
def test_no_route_raises_anything_else(route: object) -> None:
    """Whatever a route says, loading gives settings or a ConfigError with places."""
    try_to_load(yaml.safe_dump({"routes": {"a": route, "b": {"provider": "demo"}}}))


@given(
    st.lists(
        st.sampled_from(
            [
                *ACME.splitlines(),
                "  b:",
                "    auth:",
                "      - ",
                "&a",
                "*a",
                ":",
                "{",
                "}",
                "[",
                "]",
                "  ",
                "\t",
                "!!x",
                "#",
                "'",
                '"',
                "|",
                "<<: *a",
                "? ",
                "\\",
                "%",
                "é",
            ]
        )
    )
)
def test_no_text_raises_anything_else(lines: list[str]) -> None:
    """Whatever a file holds, loading gives settings or a ConfigError with places."""
    try_to_load("\n".join(lines))
    try_to_load("".join(lines))


# -- who may connect ---------------------------------------------------------------------------

DEMO_ROUTE = "routes: {a: {provider: demo}}"
LEADING = "routes: {a: {provider: demo, upstream: '%s'}}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"listen: 0.0.0.0:80\n{DEMO_ROUTE}", "1:9: this would listen on every network"),
        (f"listen: ['127.0.0.1:1', '[::]:80']\n{DEMO_ROUTE}", "1:25: this would listen on every"),
        (f"listen: 192.0.2.1:80\n{DEMO_ROUTE}", "1:9: this address is not loopback"),
        ("routes: {a: {provider: demo, listen: 0.0.0.0:80}}", "1:38: this would listen on every"),
        (
            f"inbound_token: env:T\npeer_uid: enforce\nlisten: 0.0.0.0:80\n{DEMO_ROUTE}",
            "3:9: peer_uid: enforce refuses every connection",
        ),
        (f"hosts: [0.0.0.0]\n{DEMO_ROUTE}", "1:9: this names no machine"),
        (f"hosts: [a, '127.1']\n{DEMO_ROUTE}", "1:12: this is an address in an unusual"),
        (
            f"inbound_token: env:T\nlisten: ['0.0.0.0:80', '127.0.0.1:80']\n{DEMO_ROUTE}",
            "2:24: the main listener listens there already",
        ),
        (
            f"inbound_token: env:T\nlisten: 0.0.0.0:80\n{LEADING % 'http://localhost:80'}",
            "3:40: the upstream is keyrelay itself",
        ),
        (
            f"inbound_token: env:T\nlisten: 192.0.2.1:443\n{LEADING % 'https://192.0.2.1'}",
            "3:40: the upstream is keyrelay itself",
        ),
        (
            f"admin: {{listen: '127.0.0.1:81'}}\n{LEADING % 'http://127.0.0.1:81'}",
            "2:40: the upstream is keyrelay itself",
        ),
        (
            f"admin: {{listen: '127.0.0.1:81'}}\n{LEADING % 'http://localhost:81'}",
            "2:40: the upstream is keyrelay itself",
        ),
        (
            f"listen: 127.0.0.1:81\nadmin: {{listen: '127.0.0.1:81'}}\n{DEMO_ROUTE}",
            "2:17: the main listener listens there already",
        ),
        (
            "admin: {listen: '[::1]:81'}\nroutes: {a: {provider: demo, listen: '[::1]:81'}}",
            "2:38: the admin listener listens there already",
        ),
    ],
)
def test_listening_where_others_are_is_looked_at(text: str, place: str) -> None:
    """Without a token no other user may connect; with one, nothing else may go wrong by it."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "r.yaml")
    (one,) = caught.value.findings
    assert str(one).startswith(f"r.yaml:{place}")
    assert one.advice


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "'[::]:80'", "192.0.2.1:80"])
def test_with_a_token_others_may_connect(listen: str) -> None:
    """It is not read here: whether it is there is asked at the start."""
    settings = load_text(f"inbound_token: env:T\nlisten: {listen}\n{DEMO_ROUTE}", "r.yaml")
    assert settings.listen == (listen.strip("'"),)


def test_a_wrong_token_is_one_finding() -> None:
    """Not a second one that there is none."""
    with pytest.raises(ConfigError) as caught:
        load_text(f"inbound_token: dummy-inline\nlisten: 0.0.0.0:80\n{DEMO_ROUTE}", "r.yaml")
    (one,) = caught.value.findings
    assert one.line == 1
    assert "dummy-inline" not in str(one)


@pytest.mark.parametrize(
    "text",
    [
        # an invalid secret beside it
        (
            "routes: {a: {upstream: 'https://a.example', secrets: {key: env:low-er, other: env:OK},"
            " auth: [{header: X, value: '{kye}'}]}}"
        ),
        # an invalid strategy before it
        (
            "routes: {a: {upstream: 'https://a.example', secrets: {key: env:KEY},"
            " auth: [{heder: X}, {header: X, value: '{kye}'}]}}"
        ),
        # an invalid secret of a preset's route
        (
            "routes: {a: {provider: hume, secrets: {api_key: env:low-er},"
            " auth: [{header: X, value: '{kye}'}]}}"
        ),
        # secrets that are no mapping
        (
            "routes: {a: {upstream: 'https://a.example', secrets: [key],"
            " auth: [{header: X, value: '{kye}'}]}}"
        ),
    ],
)
def test_an_unknown_name_is_found_beside_other_errors(text: str) -> None:
    """A template's unknown name is reported whatever else is wrong with the route."""
    found = said(text)
    assert len([one for one in found if '"{kye}" names no secret' in one]) == 1
    assert len(found) > 1


def test_a_secret_that_is_invalid_is_not_unknown() -> None:
    """The name of an invalid secret resolves: only the secret itself is reported."""
    (finding,) = said(
        "routes: {a: {upstream: 'https://a.example', secrets: {key: env:low-er},"
        " auth: [{header: X, value: '{key}'}]}}"
    )
    assert "invalid variable name" in finding


def test_valid_addresses_are_checked_beside_invalid_ones() -> None:
    """An invalid address hides neither an exposed one nor one that is used twice."""
    found = said(
        "listen: [x, 0.0.0.0:1]\nroutes:\n"
        "  a: {provider: demo, listen: [y, '127.0.0.1:2']}\n"
        "  b: {provider: demo, listen: '127.0.0.1:2'}\n"
    )
    assert len([one for one in found if one.startswith("1:13:")]) == 1
    assert len([one for one in found if one.startswith("4:")]) == 1
    assert len(found) == 4


def test_a_broken_token_does_not_make_an_address_exposed() -> None:
    """Whether a token was meant is known also where its reference is invalid."""
    (finding,) = said("inbound_token: env:low-er\nlisten: 0.0.0.0:1\nroutes: {a: {provider: demo}}")
    assert "invalid variable name" in finding


def test_options_replace_settings_before_the_checks() -> None:
    """Listeners are judged as they will be: by options where these replace the file's settings."""
    text = "listen: 0.0.0.0:1\nroutes: {a: {provider: demo, listen: '127.0.0.1:3'}}"
    assert said(text)
    settings = load_text(text, "r.yaml", overrides=Overrides(listen=("127.0.0.1:2",)))
    assert settings.listen == ("127.0.0.1:2",)
    for address in ("0.0.0.0:2", "127.0.0.1:3"):
        with pytest.raises(ConfigError) as caught:
            load_text(
                "routes: {a: {provider: demo, listen: '127.0.0.1:3'}}",
                "r.yaml",
                overrides=Overrides(listen=(address,)),
            )
        assert len(caught.value.findings) == 1
    with pytest.raises(ConfigError, match=r"^command line: "):
        from_providers(["demo"], Overrides(listen=("0.0.0.0:2",)))


def test_origins_of_options_are_added() -> None:
    """Unlike other options these add to what the file has."""
    text = "browsers: {origins: ['http://localhost:1']}\nroutes: {a: {provider: demo}}"
    settings = load_text(text, "r.yaml", overrides=Overrides(origins=("http://localhost:2",)))
    assert settings.browsers.origins == ("http://localhost:1", "http://localhost:2")


INVALID_STRATEGIES = {
    "unknown secret beside another error in a message": (
        '{websocket: {message: {set: /a, value: "{kye}", when: 5}}}',
        ['"{kye}" names no secret', "expected a mapping, got a number"],
    ),
    "no pointer": (
        '{websocket: {message: {set: a, value: "{kye}"}}}',
        ["invalid JSON pointer", '"{kye}" names no secret'],
    ),
    "in a message that is sent": (
        '{websocket: {message: {send: {a: [{b: "{kye}"}]}}}}',
        ['"after" is missing', '"{kye}" names no secret'],
    ),
    "in a header": (
        '{http: {header: X, value: "{kye}", vale: 1}}',
        ['"{kye}" names no secret', 'unknown key "vale"'],
    ),
    "in a password": (
        '{basic: {username: u, password: "{kye}", pass: x}}',
        ['"{kye}" names no secret', 'unknown key "pass"'],
    ),
    "no secret in a message": (
        '{websocket: {message: {set: a, value: "fixed"}}}',
        ["invalid JSON pointer", "no placement uses a secret"],
    ),
    "no secret in a message that is sent": (
        '{websocket: {message: {send: {type: auth, key: "fixed"}}}}',
        ['"after" is missing', "no placement uses a secret"],
    ),
    "no secret in a header": (
        '{http: {header: X, value: "fixed", vale: 1}}',
        ["no placement uses a secret", 'unknown key "vale"'],
    ),
    "in one of two headers": (
        '{http: [{header: X, value: "fixed", vale: 1}, {header: Y, value: "{key}"}]}',
        ['unknown key "vale"'],
    ),
    "in a path": (
        '{path: "/{kye}", pat: 1}',
        ['"{kye}" names no secret', 'unknown key "pat"'],
    ),
    "a template that is not closed beside one without a secret": (
        '{http: [{header: X, value: "{key"}, {header: Y, value: "fixed"}]}',
        ["brace"],
    ),
    "a template that is not closed": (
        '{http: {header: X, value: "{key"}}',
        ["brace"],
    ),
    "a known secret": (
        '{http: {header: X, value: "{key}", vale: 1}}',
        ['unknown key "vale"'],
    ),
    "the token": (
        '{token: {type: none}, http: {header: X, value: "{token}"}}',
        ["the token has no type, or an unknown one"],
    ),
}


@pytest.mark.parametrize("case", INVALID_STRATEGIES)
def test_an_error_in_a_strategy_hides_none_in_its_templates(case: str) -> None:
    """A name that is no secret is found beside other errors."""
    strategy, expected = INVALID_STRATEGIES[case]
    text = (
        "routes:\n  a:\n    upstream: https://api.acme.example\n"
        f"    secrets: {{key: env:ACME_KEY}}\n    auth: [{strategy}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_text(text, "r.yaml")
    found = [str(one) for one in caught.value.findings]
    assert len(found) == len(expected), found
    for message in expected:
        assert any(message in one for one in found), found
    assert "dummy" not in str(found)
