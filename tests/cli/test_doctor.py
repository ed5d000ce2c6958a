"""The command doctor: what it prints, how it ends, and that it never prints a value."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.command import CANARY, Done, keyrelay, running
from tests.support.keyrelay import answering, raw_provider, until
from tests.support.processes import as_equals, readable

ROUTE = """\
routes:
  acme:
    upstream: {upstream}
    secrets: {{key: env:ACME_KEY}}
    auth: [{{header: X-Api-Key, value: '{{key}}'}}]
    verify: GET /v1/me
  demo: {{provider: demo}}
"""


def answer(status: int) -> bytes:
    return b"HTTP/1.1 %d X\r\nX-Echo: %b\r\nContent-Length: 0\r\n\r\n" % (status, CANARY.encode())


async def examined(tmp_path: Path, status: int, *arguments: str) -> Done:
    """``doctor`` on a file with a route to a provider that answers so."""
    file = tmp_path / "routes.yaml"
    async with raw_provider(answering(answer(status))) as acme:
        file.write_text(ROUTE.format(upstream=acme.url))
        return await asyncio.to_thread(
            keyrelay, "doctor", *arguments, "-c", str(file), variables={"ACME_KEY": CANARY}
        )


async def test_a_line_for_each_step(tmp_path: Path) -> None:
    """The route, then its steps with their marks; exit 0 if none has failed."""
    done = await examined(tmp_path, 200)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "acme"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        *("ok", "ok", "ok", "skip", "skip", "ok"),
        *("ok", "ok", "ok"),
    ]
    assert lines[7] == "demo"
    assert "  ok    verify              GET /v1/me with strategy 1 was answered 200" in lines


async def test_a_refused_key_is_exit_1(tmp_path: Path) -> None:
    """Only the named route is examined, and what to do stands below the step."""
    done = await examined(tmp_path, 401, "acme")
    assert (done.code, done.err) == (1, "")
    assert "demo" not in done.out
    lines = done.out.splitlines()
    assert lines[-2].startswith("  fail  verify  ")
    assert lines[-1].strip() == "Is the key whole, not revoked, and allowed to do this?"


async def test_json(tmp_path: Path) -> None:
    """The same for programs, at the end."""
    done = await examined(tmp_path, 403, "--json")
    document = json.loads(done.out)
    assert (done.code, document["failed"]) == (1, True)
    (verify,) = [
        one for one in document["results"] if (one["route"], one["what"]) == ("acme", "verify")
    ]
    assert verify["mark"] == "fail"
    assert set(verify) == {"route", "what", "mark", "finding", "advice"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("debuggable", [False, True])
async def test_other_programs_of_the_user_do_not_read_it(tmp_path: Path, debuggable: bool) -> None:
    """It holds the keys that the server holds, so its environment is closed as the server's is,
    unless --debuggable."""
    within = as_equals()

    async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with raw_provider(hang) as provider:
        file = tmp_path / "routes.yaml"
        file.write_text(ROUTE.format(upstream=provider.url))
        more = ("--debuggable",) if debuggable else ()
        async with running(
            *("doctor", "acme", "-c", str(file), *more),
            variables={"ACME_KEY": CANARY},
            within=within,
            until="",
        ) as process:
            await until(lambda: provider.connections > 0, seconds=30)
            assert readable(Path(f"/proc/{process.pid}/environ"), within) is debuggable


def test_shipped_routes_without_a_key_are_passed_over() -> None:
    """Nothing is wrong with a machine that has no keys."""
    done = keyrelay("doctor")
    assert (done.code, done.err) == (0, "")
    assert "  skip  secret api_key      set HUME_API_KEY\n" in done.out


@pytest.mark.parametrize("names", [("camb",), ("demo", "telegram")])
def test_a_named_route_must_work(names: tuple[str, ...]) -> None:
    """Shipped or just a provider: naming it is enough. Nothing is sent without a key."""
    done = keyrelay("doctor", *names)
    assert done.code == 1
    assert "  fail  secret " in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("humee",), 'did you mean "hume"?'),
        (("acme", "-c", "absent.yaml"), "no such file"),
        (("demoo", "-c", "routes.yaml"), 'did you mean "demo"?'),
    ],
)
def test_misuse_is_exit_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Names and files that are not there."""
    (tmp_path / "routes.yaml").write_text("routes: {demo: {provider: demo}}\n")
    done = keyrelay("doctor", *arguments, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert words in " ".join(done.err.split())
