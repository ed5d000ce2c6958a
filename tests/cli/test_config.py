"""The commands that show something: what they say, and what they never say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from proxy.config.presets import presets
from tests.support.command import CANARY, ROOT, Done, keyrelay, keys

PROVIDERS = tuple(sorted(presets()))


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """A routes file that is right: one route with a key, one without, one built in."""
    path = tmp_path / "routes.yaml"
    path.write_text(
        "listen: 127.0.0.1:0\n"
        "routes:\n"
        "  demo: {provider: demo}\n"
        "  hume: {provider: hume}\n"
        "  acme:\n"
        "    upstream: https://api.acme.example/v2\n"
        "    secrets: {key: env:ACME_NOT_SET}\n"
        "    auth: [{query: api_key, value: '{key}'}]\n"
    )
    return path


# --- check ------------------------------------------------------------------------------------

WRONG = f"""\
listen: 0.0.0.0:8080
browsers:
  origins: ["null"]
drain_seconds: "10"
routes:
  hume:
    provider: humee
  camb:
    provider: camb
    upsteam: https://{CANARY}.example
    secrets: {{api_key: {CANARY}}}
  acme:
    upstream: http://api.acme.example
    secrets: {{key: env:ACME_KEY}}
    auth: [{{header: Host, value: "{{key}}"}}]
"""


def test_check_of_names(tmp_path: Path) -> None:
    """Names are presets without a file, routes with one; a file of that name is ./NAME."""
    done = keyrelay("check", "hume", "openai", variables={"HUME_API_KEY": "dummy"})
    assert (done.code, done.out) == (0, "hume, openai: no findings, 2 routes\n")
    assert "openai: not ready: " in done.err
    assert "hume" not in done.err
    assert keyrelay("check", "--strict", "openai").code == 1
    done = keyrelay("check", "hmue")
    assert done.code == 2
    assert 'There is no route or provider "hmue"; did you mean "hume"?' in done.err
    file = _only_demo(tmp_path)
    assert keyrelay("check", "-c", str(file), "demo").out == f"{file}: no findings, 1 route\n"
    done = keyrelay("check", "-c", str(file), "hume")
    assert (done.code, "There is no route hume" in done.err) == (2, True)
    (tmp_path / "hume").write_text("routes: {demo: {provider: demo}}")
    done = keyrelay("check", "./hume", cwd=tmp_path)
    assert (done.out, done.err) == ("hume: no findings, 1 route\n", "")


def test_check_finds_everything_at_once(tmp_path: Path) -> None:
    """Eight mistakes are eight findings, each at its line; the inline secret is not repeated."""
    path = tmp_path / "routes.yaml"
    path.write_text(WRONG)
    done = keyrelay("check", "-c", str(path))
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("keyrelay: 8 findings\n")
    findings = [line for line in done.err.splitlines() if line.startswith(f"{path}:")]
    places = [line.removeprefix(f"{path}:").split(": ")[0].split(":") for line in findings]
    assert [int(line) for line, _ in places] == [1, 3, 4, 7, 10, 11, 13, 15]
    assert [int(column) for _, column in places] == [9, 13, 16, 15, 5, 24, 15, 21]
    assert 'did you mean "hume"?' in done.err
    assert 'did you mean "upstream"?' in done.err
    assert "write env:NAME or file:/absolute/path" in done.err


def test_check_says_so_if_nothing_is_wrong(routes: Path) -> None:
    """Exit 0 and one line; that secrets are missing where nothing runs is no failure."""
    for arguments in (("-c", str(routes)), (str(routes),)):
        done = keyrelay("check", *arguments)
        assert (done.code, done.out) == (0, f"{routes}: no findings, 3 routes\n")
    assert keyrelay("check").out == "the shipped routes: no findings, 6 routes\n"


def test_check_says_what_is_wrong_with_a_secret(routes: Path, tmp_path: Path) -> None:
    """In words, for each route, and never a value; with --strict it is a failure."""
    (tmp_path / "open").write_text("dummy-key-for-all-to-read")
    (tmp_path / "open").chmod(0o644)
    text = routes.read_text().replace("env:ACME_NOT_SET", f"file:{tmp_path / 'open'}")
    routes.write_text(text)
    done = keyrelay("check", "-c", str(routes))
    assert done.code == 0
    assert done.err.startswith("hume: not ready: set HUME_API_KEY\nacme: not ready: run chmod ")
    assert "dummy-key" not in done.err
    assert keyrelay("check", "-c", str(routes), "--strict").code == 1
    ready = keyrelay("check", "--strict", "-c", str(_only_demo(tmp_path)))
    assert (ready.code, ready.err) == (0, "")


def _only_demo(folder: Path) -> Path:
    path = folder / "demo.yaml"
    path.write_text("routes:\n  demo: {provider: demo}\n")
    return path


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    """An empty file, one that is no text and one that is no YAML: words, not tracebacks."""
    for content in (b"", b"\xff\xfe\x00", b"routes: [", b"routes: !!python/object:os.system x"):
        path = tmp_path / "routes.yaml"
        path.write_bytes(content)
        done = keyrelay("check", "-c", str(path))
        assert done.code == 2
        assert done.err.startswith(str(path))


# --- explain ----------------------------------------------------------------------------------


def test_explain_shows_the_request_without_the_secret(routes: Path) -> None:
    """Steps, then the head as it would leave, with a name where the key is."""
    done = keyrelay(
        "explain",
        "POST",
        "/hume/v0/tts?x=1&api_key=client-dummy",
        *("-c", str(routes), "-H", "X-Hume-Api-Key: client-dummy", "-H", "X-B:  2"),
        variables=keys(),
    )
    assert (done.code, done.err) == (0, "")
    steps, _, head = done.out.partition("\n\n")
    assert [line.split(":")[0] for line in steps.splitlines()] == [
        "guard",
        "route",
        "rules",
        "strategy",
        "sent to",
    ]
    assert head == (
        "POST /v0/tts?x=1 HTTP/1.1\nHost: api.hume.ai\nX-B: 2\n"
        "X-Request-Id: <request id>\nX-Hume-Api-Key: <api_key>\n"
    )


def test_explain_shows_a_handshake(routes: Path) -> None:
    """--websocket, or a ws: URL, asks for one; the key is in the query then."""
    for arguments in (("/hume/v0/evi/chat", "--websocket"), ("ws://localhost/hume/v0/evi/chat",)):
        done = keyrelay("explain", "GET", *arguments, "-c", str(routes), variables=keys())
        assert done.code == 0
        assert "GET /v0/evi/chat?api_key=<api_key> HTTP/1.1\n" in done.out
        assert "Upgrade: websocket\n" in done.out


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://127.0.0.1:8080/hume/v0/x?a=b#c", "GET /v0/x?a=b HTTP/1.1"),
        ("http://hume.localhost:8080/v0/x", "GET /v0/x HTTP/1.1"),
        ("/hume/v0/x?next=http://elsewhere/", "GET /v0/x?next=http://elsewhere/ HTTP/1.1"),
    ],
)
def test_explain_takes_a_url_as_a_client_has_it(routes: Path, url: str, line: str) -> None:
    """The URL that one would give to curl; its Host counts."""
    done = keyrelay("explain", "GET", url, "-c", str(routes), variables=keys())
    assert done.code == 0, done.out
    assert f"\n{line}\n" in done.out


def test_explain_knows_a_route_s_own_listener() -> None:
    """The shipped AIGNE route, as its SDK calls it."""
    url = "http://127.0.0.1:8082/__blocklet__.js?type=json"
    done = keyrelay("explain", "GET", url, variables=keys())
    assert "aigne, mounted at /\n" in done.out
    assert "\nGET /__blocklet__.js?type=json HTTP/1.1\nHost: hub.aigne.io\n" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("GET", "/nowhere"), "The routes are: /acme, /demo, /hume."),
        (("GET", "http://[::1/x"), "refused:"),
        (("GET", "/hume/\udcff"), "400 bad-target"),
        (("GET", "/hume/x", "-H", "Origin: https://evil.example"), "403 browser-not-allowed"),
    ],
)
def test_explain_says_why_a_request_is_refused(
    routes: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 1, the answer that the client would get, and what to do about it."""
    done = keyrelay("explain", *arguments, "-c", str(routes), variables=keys())
    assert (done.code, done.err) == (1, "")
    assert words in done.out


def test_explain_asks_only_for_the_secrets_of_its_route(tmp_path: Path) -> None:
    """The programs of the other routes are not run, nor any if no route has the path."""
    document = "routes:\n"
    for name in ("acme", "other"):
        document += (
            f"  {name}:\n"
            "    upstream: https://api.acme.example\n"
            f"    secrets: {{key: 'exec:sh -c \"echo {CANARY} | tee {tmp_path}/{name}\"'}}\n"
            "    auth: [{header: X-Key, value: '{key}'}]\n"
        )
    path = tmp_path / "routes.yaml"
    path.write_text(document)
    assert keyrelay("explain", "GET", "/nowhere", "-c", str(path)).code == 1
    assert [one.name for one in tmp_path.iterdir()] == ["routes.yaml"]
    done = keyrelay("explain", "GET", "/acme/x", "-c", str(path))
    assert done.code == 0, done.out
    assert "X-Key: <key>\n" in done.out
    assert {one.name for one in tmp_path.iterdir()} == {"routes.yaml", "acme"}


def test_explain_names_the_pattern_that_denies(routes: Path) -> None:
    """As it is written in the preset, which the answer to a client does not repeat."""
    arguments = ("explain", "POST", "/hume/oauth2-cc/token", "-c", str(routes))
    done = keyrelay(*arguments, variables=keys())
    assert done.code == 1
    assert "rules:     POST is served, denied by " in done.out
    matches = r" The request matches deny (.+) of the preset hume\.$"
    found = re.search(matches, done.out, re.MULTILINE)
    assert found is not None
    assert found[1] in (ROOT / "proxy" / "providers" / "hume.yaml").read_text()
    assert f"rules:     POST is served, denied by {found[1]} of the preset hume\n" in done.out


def test_explain_speaks_json(routes: Path) -> None:
    """The same for programs: the request with its line ends, or the refusal."""
    arguments = ("-c", str(routes), "--json")
    shown = json.loads(keyrelay("explain", "GET", "/hume/v0/x", *arguments, variables=keys()).out)
    assert shown["refused"] is None
    assert shown["request"] == (
        "GET /v0/x HTTP/1.1\r\nHost: api.hume.ai\r\n"
        "X-Request-Id: <request id>\r\nX-Hume-Api-Key: <api_key>\r\n\r\n"
    )
    assert {"what": "strategy", "finding": "api_key, for every path"} in shown["steps"]
    done = keyrelay("explain", "GET", "/nowhere", *arguments)
    refused = json.loads(done.out)["refused"]
    assert (done.code, refused["status"], refused["kind"]) == (1, 404, "no-route")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/hume/v0/x", "X-Hume-Api-Key: <api_key: not set>"),
        ("/acme/x", "GET /v2/x?api_key=<key: not set> HTTP/1.1"),
    ],
)
def test_explain_needs_no_key(routes: Path, path: str, line: str) -> None:
    """The request is shown with the mark where the key would be, and what to set: exit 0."""
    done = keyrelay("explain", "GET", path, "-c", str(routes))
    assert (done.code, done.err) == (0, "")
    assert line in done.out.splitlines()
    assert re.search(
        r"^not set: +\w+: set [A-Z_]+; until then the response is 503$", done.out, re.MULTILINE
    )


# --- providers and init -----------------------------------------------------------------------


def test_providers_are_listed_and_shown() -> None:
    """A line each with what to set, the same as JSON, and any preset as it is."""
    listed = keyrelay("providers", variables={"INWORLD_API_KEY": CANARY})
    head, *lines = listed.out.partition("\n\n")[0].splitlines()
    assert head.split() == ["PROVIDER", "TITLE", "HERE", "VARIABLES"]
    assert [line.split()[0] for line in lines] == list(PROVIDERS)
    here = {line.split()[0]: line[head.index("HERE") :].split(maxsplit=1) for line in lines}
    assert here["demo"] == ["set", "none"]
    assert here["inworld"][0] == "set"
    assert here["inworld"][1].startswith("INWORLD_API_KEY")
    assert here["hume"] == ["-", "HUME_API_KEY and HUME_SECRET_KEY (optional)"]
    assert " or BLOCKLET_AIGNE_API_CREDENTIAL" in here["aigne-hub"][1]
    assert listed.out.endswith("\n\nOne of them, and what to write: keyrelay providers NAME\n")
    rows = json.loads(keyrelay("providers", "--json").out)
    assert [row["name"] for row in rows] == list(PROVIDERS)
    (hume,) = [row for row in rows if row["name"] == "hume"]
    assert "env:HUME_API_KEY" in hume["secrets"]
    for name in ("demo", "hume"):
        preset = (ROOT / "proxy" / "providers" / f"{name}.yaml").read_text()
        shown = keyrelay("providers", name).out
        assert shown.startswith(preset)
        assert all(line.startswith("#") for line in shown.removeprefix(preset).split("\n") if line)


def test_a_provider_is_shown_with_what_to_write() -> None:
    """Behind its preset stand the programs of its packages, which leave the output a preset."""
    shown = keyrelay("providers", "hume").out
    assert 'client = HumeClient(api_key="unused", base_url="http://127.0.0.1:8080/hume")' in shown
    assert 'environment: "http://127.0.0.1:8080/hume"' in shown
    assert yaml.safe_load(shown)["title"] == "Hume AI"


def test_init_writes_a_file_that_check_takes(tmp_path: Path) -> None:
    """For the providers whose variables are set; not over a file that is there."""
    camb = {"CAMB_API_KEY": CANARY}
    done = keyrelay("init", cwd=tmp_path, variables=camb)
    assert done == Done(
        0,
        "Wrote routes.yaml with demo, camb, camb-realtime.\nNext: keyrelay run\n",
        "",
    )
    path = tmp_path / "routes.yaml"
    written = path.read_text()
    assert CANARY not in written
    assert keyrelay("check", "-c", "routes.yaml", cwd=tmp_path).code == 0
    again = keyrelay("init", cwd=tmp_path, variables=keys())
    assert again == Done(1, "", "keyrelay: routes.yaml exists; use --force to overwrite it\n")
    assert path.read_text() == written
    assert keyrelay("init", "--force", cwd=tmp_path, variables=keys()).code == 0
    assert path.read_text() != written
    assert keyrelay("check", "-c", "routes.yaml", cwd=tmp_path).code == 0


@pytest.mark.parametrize("file", ["no/such/directory/x.yaml", "x" * 300 + ".yaml", "link.yaml"])
def test_init_says_in_a_line_that_it_cannot_write(tmp_path: Path, file: str) -> None:
    """No directory, a name too long, a link to nowhere that it must not write through."""
    (tmp_path / "link.yaml").symlink_to("elsewhere.yaml")
    done = keyrelay("init", file, cwd=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "elsewhere.yaml").exists()
