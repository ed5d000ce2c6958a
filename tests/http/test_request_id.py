"""Request ids: one valid header value each, whatever a client says."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.request_id import FIELD, request_id
from tests.support.command import ROOT, environment
from tests.support.keyrelay import (
    answering,
    exchange,
    keyrelay,
    proxied,
    raw_provider,
    read_head,
    static_route,
)

# RFC 9110 section 5.6.2 and more: nothing that a header, a line of a log or a shell would mind.
VALID = re.compile(r"[!-~]{1,128}", re.ASCII)
GIVEN = "3f2a9c1e-77b0-4d7e-9a52-0c7d5be6a1f4"
HOSTILE = [
    "",
    " ",
    "a b",
    "a\tb",
    "a\n",
    "a\r\nX-Api-Key: dummy",
    "a\0",
    "\x1b[2J",
    "é",
    "\udce9",
    "١٢٣",  # digits, but of another script
    'a"b',
    "a\\b",
    "<script>",
    "$(id)",
    "a;b",
    "a,b",
    "a" * 129,
]


@given(st.none() | st.text())
@example(GIVEN)
def test_it_is_always_one_valid_value(given_: str | None) -> None:
    """Also where the client's is none; and the client's own stays if it can."""
    made = request_id(given_)
    assert VALID.fullmatch(made)
    assert json.loads(json.dumps(made)) == made
    if made != given_:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", made)


@given(st.text("abcXYZ019._~:/+=@-", min_size=1, max_size=128))
@example("a" * 128)
@example("01ARZ3NDEKTSV4RRFFQ69G5FAV")
@example("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
@example("hop1/hop2:3+4==@x~y.z_")
def test_what_clients_and_tracing_tools_make_counts(text: str) -> None:
    """As it is."""
    assert request_id(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_ids_are_replaced(text: str) -> None:
    """By a name in which nothing of them is left."""
    made = request_id(text)
    assert made != text
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", made)


def test_new_names_differ() -> None:
    """Within a process, by their numbers."""
    names = [request_id(None) for _ in range(1000)]
    assert len(set(names)) == 1000
    assert len({name.partition("-")[0] for name in names}) == 1


def test_two_processes_differ() -> None:
    """So that their logs can be put together."""
    program = "from proxy.http.request_id import request_id; print(request_id(None))"
    made = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        for _ in range(3)
    }
    assert len(made) == 3


def lines(head: bytes) -> list[bytes]:
    """The values of all lines ``X-Request-Id`` of a message's head."""
    fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [value.strip() for name, _, value in fields if name.lower() == FIELD]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", False),
        (b"X-Request-Id: %b\r\n" % GIVEN.encode(), True),
        (b"x-request-id: %b\r\nX-REQUEST-ID: other\r\n" % GIVEN.encode(), True),
        (b"X-Request-Id: <script>\r\n", False),
        (b"X-Request-Id: \r\n", False),
        (b"X-Request-Id: %b\r\n" % (b"a" * 200), False),
    ],
)
async def test_the_provider_and_generated_responses_get_it(
    dummy_key: bytes, sent: bytes, kept: bool
) -> None:
    """One line with one name, the same as in the log: the client's if it is valid."""
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.put_nowait(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    request = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n" + sent + b"\r\n"
    async with proxied(serve) as (_, running):
        answer = await exchange(running.port, request % b"api/x")
        assert answer.startswith(b"HTTP/1.1 200 ")
        [crossed] = lines(await heads.get())
        refused = await exchange(running.port, request % b"nowhere")
        assert refused.startswith(b"HTTP/1.1 404 ")
        [answered] = lines(refused.partition(b"\r\n\r\n")[0])
        logged = [one.request_id.encode() for one in running.app.exchange_log.recent]
    assert logged == [crossed, answered]
    assert (crossed == GIVEN.encode()) is kept
    assert (answered == GIVEN.encode()) is kept
    assert kept or crossed != answered


async def test_a_provider_that_cannot_be_reached(dummy_key: bytes) -> None:
    """Our answer in its place has the name."""
    async with raw_provider(answering(b"")) as provider:
        url = provider.url
    async with keyrelay({"api": static_route(url)}) as running:
        request = f"GET /api/x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {GIVEN}\r\n\r\n"
        answer = await exchange(running.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert lines(answer.partition(b"\r\n\r\n")[0]) == [GIVEN.encode()]
