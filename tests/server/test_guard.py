"""The guard's rows of the threat model, one raw request and its response each."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import Refusal
from proxy.http.address import LOOPBACK_NAMES
from proxy.http.request import Request
from proxy.secrets.secret import Secret
from proxy.server.guard import Guard, is_preflight
from proxy.server.inbound_token import InboundToken

Fields = list[tuple[str, str]]

PAGE = "http://localhost:5173"
GUARD = Guard(LOOPBACK_NAMES | {"acme.localhost"}, frozenset({PAGE, "https://app.test"}))
HOST = ("Host", "localhost:8080")
HANDSHAKE = [
    HOST,
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def request(
    target: str = "/acme/x",
    fields: Fields | None = None,
    *,
    method: str = "GET",
    version: tuple[int, int] = (1, 1),
    chunked: bool = False,
    websocket: bool = False,
) -> Request:
    """A request with these fields and no others, from bytes as a parser would give them."""
    fields = [HOST] if fields is None else fields
    return Request(
        method,
        target.encode("latin-1"),
        tuple((name.encode(), value.encode()) for name, value in fields),
        CIMultiDictProxy(CIMultiDict(fields)),
        version=version,
        chunked=chunked,
        websocket=websocket,
    )


def refused(received: Request) -> Refusal:
    with pytest.raises(Refusal) as caught:
        GUARD.admit(received)
    return caught.value


def status_of(received: Request) -> int:
    """200 stands for admitted."""
    try:
        GUARD.admit(received)
    except Refusal as refusal:
        return refusal.status
    return 200


def asking(*fields: tuple[str, str], method: str = "GET") -> Request:
    return request(fields=[HOST, *fields], method=method)


# -- syntax ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0)])
def test_only_http_1_is_spoken(version: tuple[int, int]) -> None:
    """505 for anything but HTTP/1.1 and HTTP/1.0."""
    assert refused(request(version=version)).status == 505
    GUARD.admit(request(version=(1, 0)))


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_trace_and_connect_are_refused(method: str) -> None:
    """T20: neither an echo of the credential nor a tunnel; 405 with Allow (RFC 9110 15.5.6)."""
    refusal = refused(request(method=method))
    assert refusal.status == 405
    allowed = dict(refusal.headers)["Allow"].split(", ")
    assert "GET" in allowed
    assert method not in allowed


@pytest.mark.parametrize(
    ("fields", "version", "status"),
    [
        ([("Transfer-Encoding", "chunked"), ("Content-Length", "3")], (1, 1), 400),
        ([("Transfer-Encoding", "chunked")], (1, 0), 400),
        ([("Transfer-Encoding", "gzip, chunked")], (1, 1), 501),
        ([("Transfer-Encoding", "xchunked")], (1, 1), 501),
        ([("Transfer-Encoding", "identity")], (1, 1), 501),
        ([("Transfer-Encoding", "")], (1, 1), 501),
        ([("Transfer-Encoding", "chunked"), ("transfer-encoding", "chunked")], (1, 1), 501),
    ],
)
def test_ambiguous_framing_is_refused(
    fields: Fields, version: tuple[int, int], status: int
) -> None:
    """T23: a body whose end two servers could see in two places is not passed on."""
    received = request(fields=[HOST, *fields], method="POST", version=version, chunked=True)
    assert refused(received).status == status


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_chunks_are_served(coding: str) -> None:
    """The one transfer coding there is, in any case (RFC 9112 section 7)."""
    GUARD.admit(request(fields=[HOST, ("Transfer-Encoding", coding)], chunked=True))


@pytest.mark.parametrize(
    ("values", "passes"),
    [
        (["100-continue"], True),
        (["100-Continue"], True),
        (["x"], False),
        (["100-continue, x"], False),
        (["100-continue", "x"], False),
        ([""], False),
    ],
)
def test_only_one_expectation_is_supported(values: list[str], passes: bool) -> None:
    """RFC 9110 section 10.1.1: 417 for every other expectation."""
    received = asking(*(("Expect", value) for value in values), method="POST")
    if passes:
        GUARD.admit(received)
    else:
        assert refused(received).status == 417


@pytest.mark.parametrize(
    "target",
    [
        "",
        "acme/x",
        "//evil.test/x",
        "//",
        "///x",
        "/acme/x#/ok",
        "/acme#",
        "/acme/\\x",
        "/\\evil.test",
        "/acme/ x",
        "/acme?a b",
        "/acme\t",
        "/acme\r\nX: y",
        "/acme\0",
        "/acme\x7f",
        "/acm\xe9",
        "*x",
        "*",
    ],
)
def test_odd_targets_are_refused(target: str) -> None:
    """T21, T22: printable ASCII behind exactly one slash, without what servers read differently."""
    assert refused(request(target)).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/acme/v1/../admin",
        "/acme/..",
        "/acme/.",
        "/acme/./x",
        "/../x",
        "/acme/%2e%2e/admin",
        "/acme/%2E%2e/admin",
        "/acme/.%2e/admin",
        "/acme/%2e/x",
        "/acme/%252e%252e/x",
        "/acme/%25252e%2525252e/x",
        "/acme/%%32e%%32e/x",
        "/acme/..;/x",
        "/acme/..;a=b/x",
        "/acme/..%3bx",
        "/acme/%2e%2e%3B/x",
        "/acme/a%2f..%2fb",
        "/acme/a%2F%2e%2e",
        "/acme/a%5c..%5cb",
        "/acme/a%255C..%255Cb",
        "/acme/..%3fx",
        "/acme/..%23x",
        "/acme/..?x=1",
        "/acme/%00",
        "/acme/x%2500y",
        "/acme/..%00/x",
        "/acme/" + "%25" * 3 + "2525252525252525252525252e",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    """T21: no dot segment and no NUL, raw or encoded at any depth, whichever slash is beside it."""
    assert refused(request(path)).status == 400


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/acme",
        "/acme/",
        "/acme//x",
        "/acme/...",
        "/acme/.well-known/x",
        "/acme/..a/b..",
        "/acme/a.b/c..d/e.",
        "/acme/x%2Fy%2fz",
        "/acme/group%2Fproject/raw",
        "/acme/%20+%41%zz%",
        "/acme/100%25",
        "/acme/a%3fb%23c",
        "/acme/m:generate;v=1,2",
        "/acme/x?u=../../y&v=%2e%2e%2f",
        "/acme/x?a=//b/./c",
        "/acme/x??",
        '/acme/"<>^`{|}',
    ],
)
def test_ordinary_targets_pass_as_they_are(target: str) -> None:
    """Encoded slashes, dots within names, anything printable in a query: all of it is legal."""
    received = request(target)
    assert GUARD.admit(received) == ("localhost", None)
    assert received.target == target.encode()


@st.composite
def dot_segments(draw: st.DrawFn) -> str:
    """A path with a dot segment, each character of it encoded up to three times."""

    def encoded(text: str) -> str:
        done = ""
        for character in text:
            depth = draw(st.integers(0, 3))
            escape = f"%{ord(character):02x}"
            for _ in range(depth - 1):
                escape = escape.replace("%", "%25")
            done += escape if depth else character
        return done

    slash = st.sampled_from(("/", "%2f", "%5C", "%252F"))
    end = st.sampled_from(("", "/x", "%2fx", ";/x", ";a=1/x", "%3b", "%5cx"))
    before = draw(st.sampled_from(("/acme", "/acme/v1", "")))
    opening = "/" if not before else draw(slash)
    return before + opening + encoded(draw(st.sampled_from((".", "..")))) + draw(end)


@given(dot_segments())
def test_no_encoding_hides_a_dot_segment(path: str) -> None:
    """T21: however deep and however mixed, what a server could resolve is refused."""
    assert refused(request(path)).kind == "dot-segment"


@given(st.text(st.characters(max_codepoint=0xFF), max_size=40))
def test_any_target_is_admitted_unchanged_or_refused(target: str) -> None:
    """What was checked is what is sent: the guard answers 4xx, or leaves every byte alone."""
    received = request(target)
    status = status_of(received)
    assert status in {200, 400, 421}
    if status == 200:
        assert received.target == target.encode("latin-1")
        assert received.path.startswith(b"/")
        assert not received.path.startswith(b"//")


def test_options_asterisk_is_for_the_server() -> None:
    """RFC 9110 section 9.3.7: ``OPTIONS *`` asks keyrelay itself; the Host still counts."""
    assert GUARD.admit(request("*", method="OPTIONS")) == ("localhost", None)
    assert refused(request("*", [("Host", "evil.test")], method="OPTIONS")).status == 421


# -- Host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("localhost", "localhost"),
        ("localhost:8080", "localhost"),
        ("LocalHost:1", "localhost"),
        ("localhost:", "localhost"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("[::1]", "[::1]"),
        ("acme.localhost:8080", "acme.localhost"),
        ("ACME.localhost", "acme.localhost"),
    ],
)
def test_this_machine_s_names_are_served(value: str, host: str) -> None:
    """Loopback names and a route's own, in any case, whatever the port (RFC 9110 section 7.2)."""
    assert GUARD.admit(request(fields=[("Host", value)])) == (host, None)


@pytest.mark.parametrize(
    "value",
    [
        # T1: DNS rebinding.
        "evil.test:8080",
        "evil.test",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "evil-localhost",
        # T2: the address that is every address.
        "0.0.0.0:8080",
        "[::]:8080",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        # T3: other spellings of what would be allowed.
        "localhost.",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.1",
        "other.localhost",
        "x.acme.localhost",
    ],
)
def test_other_names_are_misdirected(value: str) -> None:
    """T1, T2, T3: 421 for every name that is not on the list, which the log alone repeats."""
    refusal = refused(request(fields=[("Host", value)]))
    assert (refusal.status, refusal.kind) == (421, "host-not-allowed")
    other = refused(request(fields=[("Host", "another.test")]))
    assert (refusal.detail, refusal.advice) == (other.detail, other.advice)
    assert value in refusal.log_detail


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["localhost", "localhost"],
        ["localhost", "evil.test"],
        ["localhost/?"],
        ["localhost/"],
        ["localhost@evil.test"],
        ["evil.test@localhost"],
        ["user:pw@localhost"],
        ["localhost:8080@evil.test"],
        ["localhost:80:80"],
        ["localhost:x"],
        ["localhost:123456"],
        ["localhost:-1"],
        ["local host"],
        ["localhost, localhost"],
        ["localhost#"],
        ["localhost\\"],
        ["localhost%00"],
        ["[::1"],
        ["::1"],
        ["[::1]x"],
        ["[::1%25lo]"],
        ["[localhost]"],
        ["http://localhost"],
        ["löcalhost"],
        ["localhost:\uff18\uff10"],
        ["a" * 254],
    ],
)
def test_host_is_one_plain_value(values: list[str]) -> None:
    """T3: 400 for a missing, repeated or malformed Host (RFC 9112 section 3.2)."""
    refusal = refused(request(fields=[("Host", value) for value in values]))
    assert (refusal.status, refusal.kind) == (400, "bad-host")


@given(st.text(max_size=30))
def test_no_text_but_a_listed_name_is_a_host(value: str) -> None:
    """T1 to T3: whatever stands in Host is on the list when the port is cut off, or refused."""
    status = status_of(request(fields=[("Host", value)]))
    assert status in {200, 400, 421}
    if status == 200:
        assert re.sub(":[0-9]*$", "", value).lower() in LOOPBACK_NAMES | {"acme.localhost"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://localhost:8080/acme/x?a=1", "/acme/x?a=1"),
        ("HTTP://localhost:8080/", "/"),
        ("https://localhost:8080/x", "/x"),
        ("http://localhost:8080", "/"),
        ("http://localhost:8080?a", "/?a"),
    ],
)
def test_absolute_form_becomes_origin_form(target: str, expected: str) -> None:
    """T4, RFC 9112 section 3.2.2: accepted where both authorities agree, then forgotten."""
    received = request(target)
    assert GUARD.admit(received) == ("localhost", None)
    path, mark, query = expected.encode().partition(b"?")
    assert received.target == expected.encode()
    assert (received.path, received.query) == (path, query if mark else None)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/acme/x", "evil.test", 421),
        ("http://evil.test/acme/x", "localhost", 421),
        ("http://evil.test/acme/x", "evil.test", 421),
        ("http://127.0.0.1/acme/x", "localhost", 421),
        ("http://localhost:81/acme/x", "localhost:80", 421),
        ("http://user@localhost/acme/x", "localhost", 421),
        ("http://localhost@evil.test/", "localhost", 421),
        ("http://localhost\\@evil.test/", "localhost", 421),
        ("http:///acme/x", "localhost", 421),
        ("ftp://localhost/acme/x", "localhost", 400),
        ("http:/acme/x", "localhost", 400),
        ("localhost:80", "localhost", 400),
        ("http://localhost//evil.test/x", "localhost", 400),
        ("http://localhost/acme/../x", "localhost", 400),
        ("http://localhost/acme#x", "localhost", 400),
        ("http://localhost#x", "localhost", 400),
    ],
)
def test_absolute_form_cannot_disagree_with_host(target: str, host: str, status: int) -> None:
    """T4: both authorities are allowed and the same, and the path behind is checked as any."""
    assert refused(request(target, [("Host", host)])).status == status


# -- browsers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [("User-Agent", "curl/8.5.0"), ("Accept", "*/*")],
        [("User-Agent", "Python-urllib/3.11")],
        [("User-Agent", "python-requests/2.32.3")],
        [("User-Agent", "OpenAI/Python 1.99.0"), ("X-Stainless-Lang", "python")],
        [("User-Agent", "Hume/0.12 Mozilla/5.0")],
        # Node's fetch and WebSocket, hence the JavaScript SDKs on a server.
        [("User-Agent", "node"), ("Sec-Fetch-Mode", "cors"), ("Accept-Language", "*")],
        [("User-Agent", "undici"), ("sec-fetch-mode", "websocket")],
        [("Sec-Fetch-Dest", "empty")],
        [("User-Agent", "Mozilla/5.0 (Windows NT; en-US) WindowsPowerShell/5.1 PowerShell/7.4")],
        [("Referer", f"{PAGE}/index.html?x#y")],
        [],
    ],
)
def test_programs_need_no_setting(fields: Fields) -> None:
    """T6: curl, SDKs, Node's fetch and PowerShell bear no browser's marks and pass."""
    assert GUARD.admit(asking(*fields)) == ("localhost", None)


BROWSER = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/149.0")


@pytest.mark.parametrize(
    "fields",
    [
        [("Origin", PAGE)],
        [("Origin", PAGE), BROWSER, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")],
        [("Origin", PAGE), BROWSER, ("Referer", PAGE + "/"), ("Sec-Fetch-Dest", "empty")],
        [("Origin", PAGE), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "websocket")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_listed_page_passes(fields: Fields, method: str) -> None:
    """The page whose exact origin is listed may use fetch, EventSource and WebSocket."""
    assert GUARD.admit(asking(*fields, method=method)) == ("localhost", PAGE)


@pytest.mark.parametrize(
    "origin",
    [
        # T5
        "https://evil.test",
        "http://127.0.0.1:8080",
        "http://localhost:8080",
        # T7
        "null",
        "",
        # T8
        "http://localhost:5173.evil.test",
        "http://localhost:51730",
        "http://localhost:517",
        "http://localhost",
        "HTTP://LOCALHOST:5173",
        "http://LOCALHOST:5173",
        "https://localhost:5173",
        "http://localhost:05173",
        "http://localhost.:5173",
        "http://127.0.0.1:5173",
        "http://evil.localhost:5173",
        "http://localhost:5173@evil.test",
        "http://evil.test@localhost:5173",
        "http://localhost:5173/",
        "http://localhost:5173/é",
        "http://localhost:5173?x",
        "http://localhost:5173#x",
        "http://local\thost:5173",
        "http://localhost:5173 https://evil.test",
        "http://localhost:5173, https://evil.test",
        "https://app.test:443",
        "https://app.test.",
        "http://app.test",
        "file://",
        "*",
        "http://[::1",
        "http://localhost:99999",
    ],
)
def test_origins_that_are_not_listed_are_refused(origin: str) -> None:
    """T5, T7, T8: only the very text that a listed page's browser sends; ``null`` never."""
    refusal = refused(asking(("Origin", origin), method="POST"))
    assert (refusal.status, refusal.kind) == (403, "browser-not-allowed")
    assert ("Vary", "Origin") in refusal.headers
    assert "browsers.origins" in refusal.advice
    if origin not in {"", "*", "null"}:
        assert origin not in refusal.detail + refusal.advice


def test_an_origin_beside_a_listed_one_is_refused() -> None:
    """T8: no browser sends two origins, and none hides behind another."""
    assert refused(asking(("Origin", PAGE), ("Origin", "https://evil.test"))).status == 403
    assert refused(asking(("Origin", PAGE), ("Origin", PAGE))).status == 403


@pytest.mark.parametrize(
    "fields",
    [
        # T5: without Origin, as an image or a form that is sent by GET.
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        # No page of ours exists, so nothing is same-origin; none is an address typed in.
        [("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none")],
        [("Sec-Fetch-Site", "")],
        # T6: old browsers.
        [("User-Agent", "Mozilla/5.0")],
        [BROWSER, ("Sec-Fetch-Mode", "no-cors")],
        [BROWSER, ("Referer", f"{PAGE}/")],
        [("Referer", "https://evil.test/x")],
        [("Referer", "http://localhost:5173.evil.test/")],
        [("Referer", "http://localhost:5173@evil.test/")],
        [("Referer", "http://[")],
        [("Referer", "x")],
        # T12: navigations, frames, scripts, workers; also those of a listed page.
        [("Sec-Fetch-Mode", "navigate")],
        [("Origin", PAGE), ("Sec-Fetch-Mode", "navigate")],
        *(
            [("Origin", PAGE), ("Sec-Fetch-Dest", dest)]
            for dest in (
                "document",
                "iframe",
                "frame",
                "embed",
                "object",
                "script",
                "worker",
                "sharedworker",
                "serviceworker",
            )
        ),
        [("Sec-Fetch-Dest", "script")],
        [("Origin", PAGE), ("Service-Worker", "script")],
    ],
)
def test_browsers_without_a_listed_origin_are_refused(fields: Fields) -> None:
    """T5, T6, T12: GET too, since reading spends money; navigations from any origin."""
    refusal = refused(asking(*fields))
    assert (refusal.status, refusal.kind) == (403, "browser-not-allowed")


SAME_ORIGIN = [BROWSER, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "fields",
    [
        # Vite and http-proxy-middleware with changeOrigin: Host is keyrelay's, Referer the page's.
        [("Host", "127.0.0.1:8080"), ("Referer", f"{PAGE}/chat?x")],
        [("Host", "127.0.0.1:8080"), ("Referer", PAGE)],
        # Their default and that of Next.js's rewrites: Host is the page's, too.
        [("Host", "localhost:5173"), ("Referer", f"{PAGE}/")],
        # Of a page with Referrer-Policy: no-referrer.
        [("Host", "localhost:5173")],
        # EventSource, and media elements.
        [("Host", "localhost:5173"), ("Accept", "text/event-stream")],
        [("Host", "localhost:5173"), ("Sec-Fetch-Dest", "audio"), ("Referer", f"{PAGE}/")],
    ],
)
def test_a_listed_page_behind_a_dev_server_passes(fields: Fields, method: str) -> None:
    """Its GET has no Origin, as its target has the same one; it counts as the page's."""
    received = request(method=method, fields=[*SAME_ORIGIN, *fields])
    assert GUARD.admit(received)[1] == PAGE


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        # Pages of other origins that request the dev server: browsers tell the difference.
        ([("Sec-Fetch-Site", "cross-site"), ("Referer", f"{PAGE}/")], "GET"),
        ([("Sec-Fetch-Site", "same-site"), ("Referer", f"{PAGE}/")], "GET"),
        ([("Sec-Fetch-Site", "cross-site")], "GET"),
        ([("Sec-Fetch-Site", "none"), ("Referer", f"{PAGE}/")], "GET"),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], "GET"),
        # Origins that are not listed.
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", "https://evil.test/")], "GET"),
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", "http://localhost:5174/")], "GET"),
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", "http://x@localhost:5173/")], "GET"),
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", "")], "GET"),
        (
            [("Sec-Fetch-Site", "same-origin"), ("Referer", PAGE), ("Referer", "http://evil.test")],
            "GET",
        ),
        ([("Sec-Fetch-Site", "same-origin"), ("Origin", "https://evil.test")], "GET"),
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", PAGE), ("Origin", "null")], "GET"),
        # Browsers send Origin with these.
        ([("Sec-Fetch-Site", "same-origin"), ("Referer", f"{PAGE}/")], "POST"),
        # Frames and scripts of a listed page.
        (
            [("Sec-Fetch-Site", "same-origin"), ("Referer", PAGE), ("Sec-Fetch-Dest", "iframe")],
            "GET",
        ),
        (
            [("Sec-Fetch-Site", "same-origin"), ("Referer", PAGE), ("Sec-Fetch-Mode", "navigate")],
            "GET",
        ),
    ],
)
def test_a_dev_server_opens_nothing_to_other_pages(fields: Fields, method: str) -> None:
    """Also where Host is the listed page's, as it is in every request of the dev server."""
    received = request(method=method, fields=[("Host", "localhost:5173"), BROWSER, *fields])
    refusal = refused(received)
    assert (refusal.status, refusal.kind) == (403, "browser-not-allowed")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("User-Agent", "Mozilla/5.0")], "its User-Agent begins with Mozilla/"),
        ([("Sec-Fetch-Site", "cross-site")], "Sec-Fetch-Site is cross-site"),
        ([("Referer", "https://evil.test/")], "its Referer is of another origin"),
        ([("Sec-Fetch-Site", "same-origin")], "neither Referer nor Host names a listed origin"),
        ([("Origin", "null")], "a file, or a sandboxed frame"),
        (
            [("Sec-Fetch-Site", "same-origin"), ("Referer", "https://playground.test/")],
            "a copied command",
        ),
    ],
)
def test_a_refusal_names_its_cause(fields: Fields, words: str) -> None:
    """Which mark of a browser it was; without a value that others choose."""
    refusal = refused(asking(*fields))
    assert words in refusal.detail
    assert refusal.advice


@pytest.mark.parametrize(
    "origin", ["capacitor://localhost", "tauri://localhost", "app://dummy.app"]
)
def test_an_app_s_page_can_be_listed(origin: str) -> None:
    """Its origin has a scheme of its own."""
    guard = Guard(LOOPBACK_NAMES, frozenset({origin}))
    assert guard.admit(asking(("Origin", origin)))[1] == origin


def test_without_a_list_no_page_passes() -> None:
    """The default: no page in the browser can spend a key."""
    with pytest.raises(Refusal) as caught:
        Guard(LOOPBACK_NAMES, frozenset()).admit(asking(("Origin", PAGE)))
    assert caught.value.status == 403


def test_the_offending_origin_is_for_the_log() -> None:
    """Only the log repeats it, escaped and cut, so that it can forge no line."""
    refusal = refused(asking(("Origin", "http://evil.test/\x1b[31m\n" + "x" * 5_000)))
    assert "\\x1b[31m\\n" in refusal.log_detail
    assert refusal.log_detail.isprintable()
    assert len(refusal.log_detail) < 250


def test_host_comes_before_the_browser_s_marks() -> None:
    """T1: a rebound name is misdirected, not a matter of origins."""
    fields = [("Host", "evil.test"), ("Origin", "http://evil.test")]
    assert refused(request(fields=fields)).status == 421


# -- WebSocket -------------------------------------------------------------------------------------


def test_a_handshake_passes_the_same_gate() -> None:
    """A program's and a listed page's handshakes are admitted."""
    assert GUARD.admit(request(fields=HANDSHAKE, websocket=True)) == ("localhost", None)
    received = request(fields=[*HANDSHAKE, ("Origin", PAGE)], websocket=True)
    assert GUARD.admit(received) == ("localhost", PAGE)


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://localhost:8080"])
def test_other_pages_get_no_socket(origin: str) -> None:
    """T9: cross-site WebSockets are refused like any other request, before anything is dialled."""
    received = request(fields=[*HANDSHAKE, ("Origin", origin)], websocket=True)
    assert refused(received).status == 403


def replaced(name: str, *values: str) -> Fields:
    return [pair for pair in HANDSHAKE if pair[0] != name] + [(name, value) for value in values]


@pytest.mark.parametrize(
    ("fields", "method", "version", "chunked"),
    [
        (HANDSHAKE, "POST", (1, 1), False),
        (HANDSHAKE, "GET", (1, 0), False),
        (HANDSHAKE, "GET", (1, 1), True),
        ([*HANDSHAKE, ("Content-Length", "3")], "GET", (1, 1), False),
        (replaced("Sec-WebSocket-Key"), "GET", (1, 1), False),
        (replaced("Sec-WebSocket-Key", "short"), "GET", (1, 1), False),
        (replaced("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=!"), "GET", (1, 1), False),
        (replaced("Sec-WebSocket-Key", HANDSHAKE[-1][1], HANDSHAKE[-1][1]), "GET", (1, 1), False),
    ],
)
def test_a_broken_handshake_is_refused(
    fields: Fields, method: str, version: tuple[int, int], chunked: bool
) -> None:
    """RFC 6455 section 4.2.1: a GET of HTTP/1.1 without a body, with one key of 16 bytes."""
    received = request(
        fields=fields, method=method, version=version, chunked=chunked, websocket=True
    )
    refusal = refused(received)
    assert (refusal.status, refusal.kind) == (400, "bad-handshake")


@pytest.mark.parametrize("versions", [(), ("8",), ("13, 8",), ("13", "8"), ("013",)])
def test_another_version_gets_the_supported_one(versions: tuple[str, ...]) -> None:
    """RFC 6455 section 4.4 and RFC 9110 15.5.22, 7.8: 426, the version, and what to upgrade to."""
    refusal = refused(request(fields=replaced("Sec-WebSocket-Version", *versions), websocket=True))
    assert refusal.status == 426
    assert set(refusal.headers) == {
        ("Sec-WebSocket-Version", "13"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    }


# -- preflights ------------------------------------------------------------------------------------


def test_a_preflight_is_recognised() -> None:
    """T10: OPTIONS with Origin and the method that is asked for, from a listed page."""
    received = asking(
        ("Origin", PAGE),
        ("Access-Control-Request-Method", "DELETE"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
        method="OPTIONS",
    )
    assert GUARD.admit(received) == ("localhost", PAGE)
    assert is_preflight(received)


def test_a_stranger_s_preflight_is_refused_as_any_request() -> None:
    """T10: a preflight of an unlisted page gets the same 403."""
    received = asking(
        ("Origin", "https://evil.test"),
        ("Access-Control-Request-Method", "DELETE"),
        method="OPTIONS",
    )
    assert refused(received).status == 403


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("OPTIONS", [("Origin", PAGE)]),
        ("OPTIONS", [("Access-Control-Request-Method", "GET")]),
        ("GET", [("Origin", PAGE), ("Access-Control-Request-Method", "GET")]),
    ],
)
def test_other_requests_are_no_preflight(method: str, fields: Fields) -> None:
    """The provider's own OPTIONS is the provider's."""
    assert not is_preflight(asking(*fields, method=method))


@pytest.mark.parametrize("names", ["a\r\nX: y", "a:b", '"a"', "é", "a;b", "a/b"])
def test_a_preflight_asks_for_names_only(names: str) -> None:
    """T10: what would be echoed is a list of field names, or the answer is 400."""
    received = asking(
        ("Origin", PAGE),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", names),
        method="OPTIONS",
    )
    with pytest.raises(Refusal) as caught:
        is_preflight(received)
    assert caught.value.status == 400


# -- step 4: the inbound token -----------------------------------------------------------------

TOKEN = "dummy-inbound-0123456789"
TOKEN_FIELD = ("X-Keyrelay-Token", TOKEN)
LOCKED = Guard(
    LOOPBACK_NAMES | {"acme.localhost"},
    frozenset({PAGE}),
    InboundToken(Secret("inbound_token", TOKEN.encode())),
    lambda host: host != "acme.localhost",
)
PREFLIGHT = [HOST, ("Origin", PAGE), ("Access-Control-Request-Method", "POST")]


def locked(received: Request) -> int:
    """The status; 200 stands for admitted."""
    try:
        LOCKED.admit(received)
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([HOST], 401),
        ([HOST, TOKEN_FIELD], 200),
        ([HOST, ("Authorization", f"Bearer {TOKEN}")], 200),
        ([HOST, ("Origin", PAGE)], 401),
        ([HOST, ("Origin", PAGE), TOKEN_FIELD], 200),
        ([HOST, ("Origin", "http://evil.test"), TOKEN_FIELD], 403),
        ([("Host", "evil.test"), TOKEN_FIELD], 421),
        ([("Host", "evil.test")], 421),
    ],
)
def test_the_token_comes_after_host_and_browser(fields: Fields, status: int) -> None:
    """It opens nothing that they close, and requests that they stop learn nothing of it."""
    assert locked(request(fields=fields)) == status


def test_a_websocket_needs_the_token_as_well() -> None:
    """In a header or as a subprotocol, before anything is dialled."""
    assert locked(request(fields=HANDSHAKE, websocket=True)) == 401
    assert locked(request(fields=[*HANDSHAKE, TOKEN_FIELD], websocket=True)) == 200
    offer = ("Sec-WebSocket-Protocol", f"chat, keyrelay.token.{TOKEN}")
    assert locked(request(fields=[*HANDSHAKE, offer], websocket=True)) == 200


def test_a_preflight_needs_none_but_all_the_rest() -> None:
    """Browsers send no token with it. Nothing else that looks like it is exempt."""
    assert locked(request(fields=PREFLIGHT, method="OPTIONS")) == 200
    assert locked(request(fields=[("Host", "evil.test"), *PREFLIGHT[1:]], method="OPTIONS")) == 421
    evil = [HOST, ("Origin", "http://evil.test"), PREFLIGHT[2]]
    assert locked(request(fields=evil, method="OPTIONS")) == 403
    assert locked(request(fields=[HOST, PREFLIGHT[2]], method="OPTIONS")) == 401
    assert locked(request(fields=PREFLIGHT[:2], method="OPTIONS")) == 401
    assert locked(request(fields=PREFLIGHT, method="POST")) == 401
    assert locked(request("*", method="OPTIONS")) == 401


@pytest.mark.parametrize("path", ["/-/health", "/-/ready", "/-/health?x=1"])
def test_health_needs_none_where_it_is_ours(path: str) -> None:
    """Supervisors have no token. At a route's own host the same path is the provider's."""
    assert locked(request(path)) == 200
    assert locked(request(f"http://localhost:8080{path}")) == 200
    assert locked(request(path, [("Host", "acme.localhost")])) == 401


@pytest.mark.parametrize(
    "path", ["/-/token/acme", "/-/health/", "/-/healthy", "/-/", "/x/-/health", "/-/%68ealth"]
)
def test_nothing_else_of_ours_is_open(path: str) -> None:
    """Tokens of providers least of all."""
    assert locked(request(path)) == 401


def test_without_a_token_to_ask_for_none_is_asked() -> None:
    """What clients bring then is theirs."""
    assert status_of(request(fields=[HOST, TOKEN_FIELD])) == 200


def _probing(
    target: str, *fields: tuple[str, str], version: tuple[int, int] = (1, 1), method: str = "GET"
) -> Request:
    request = Request.of(method, target, list(fields))
    request.version = version
    return request


PROBED = Guard(LOOPBACK_NAMES, frozenset(), None, lambda host: host != "one", probes=True)


@pytest.mark.parametrize("path", ["/-/health", "/-/ready"])
@pytest.mark.parametrize("host", ["10.1.2.3:8080", "10.1.2.3", "[fd00::7]:8080", None])
def test_probes_need_no_name_beyond_loopback(path: str, host: str | None) -> None:
    """By address or HTTP/1.0 without Host, on listeners beyond loopback only."""
    fields = [] if host is None else [("Host", host)]
    version = (1, 0) if host is None else (1, 1)
    assert PROBED.admit(_probing(path, *fields, version=version)) == ("", None)
    with pytest.raises(Refusal):
        GUARD.admit(_probing(path, *fields, version=version))


@pytest.mark.parametrize(
    "request_",
    [
        _probing("/acme", ("Host", "10.1.2.3")),
        _probing("/-/token/acme", ("Host", "10.1.2.3")),
        _probing("/-/health/x", ("Host", "10.1.2.3")),
        _probing("/-/health", ("Host", "evil.example")),
        _probing("/-/health", ("Host", "10.1.2.3"), ("Host", "10.1.2.3")),
        _probing("/-/health", ("Host", "10.1.2.3"), ("Origin", "https://evil.example")),
        _probing("/-/health", ("Host", "10.1.2.3"), method="POST"),
        _probing("/-/health"),
        _probing("/acme", version=(1, 0)),
    ],
)
def test_nothing_but_probes_goes_without_a_name(request_: Request) -> None:
    """Other paths, names, methods and pages are refused as before."""
    with pytest.raises(Refusal):
        PROBED.admit(request_)
