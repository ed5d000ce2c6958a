"""Tests of auth/commands.py: programs that print tokens, or do not."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from proxy.auth.token import FetchedToken, TokenError
from proxy.auth.tokens.command import CommandTokenSource
from proxy.auth.tokens.response import TokenFields
from tests.support.clock import ManualClock
from tests.support.keyrelay import both_loops, until

CANARY = "CANARY-dummy"
NOW = 1_800_000_000.0
FIELDS = TokenFields("token", ("expires_in",), 300)


def mint(*command: str, seconds: float = 30, fields: TokenFields = FIELDS) -> CommandTokenSource:
    return CommandTokenSource(command, fields, ManualClock(wall=NOW), timeout_seconds=seconds)


def python(
    code: str, *arguments: str, seconds: float = 30, fields: TokenFields = FIELDS
) -> CommandTokenSource:
    return mint(sys.executable, "-IS", "-c", code, *arguments, seconds=seconds, fields=fields)


async def printed(text: str, fields: TokenFields = FIELDS) -> tuple[bytes, float]:
    minted = await mint("/usr/bin/printf", "%s", text, fields=fields).fetch()
    return minted.value, minted.lifetime_seconds


async def failure_of(one: CommandTokenSource) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await one.fetch()
    assert CANARY not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None
    gc.collect()  # nothing is left open
    return caught.value


@both_loops
async def test_a_token_in_json() -> None:
    """With its lifetime, as a span or a moment."""
    assert await printed('{"token": "dummy", "expires_in": 60}') == (b"dummy", 60)
    assert await printed(' {"token": "dummy", "expires_in": "2027-01-15T08:01:00Z"}\n') == (
        b"dummy",
        60,
    )
    nested = TokenFields("status.token", ("status.expirationTimestamp",), 300)
    text = '{"status": {"token": "dummy", "expirationTimestamp": "2027-01-15T08:01:00Z"}}'
    assert await printed(text, nested) == (b"dummy", 60)
    gc.collect()


@pytest.mark.parametrize("text", ["dummy.a-b", "dummy.a-b\n", "\n  dummy.a-b \r\n"])
async def test_a_token_alone(text: str) -> None:
    """Without the white space around it, for as long as the settings say."""
    assert await printed(text) == (b"dummy.a-b", 300)


async def test_a_token_alone_needs_no_path() -> None:
    """Even where JSON would have it deep inside."""
    assert await printed("dummy", TokenFields("a.b.token", ("a.b.end",), 7)) == (b"dummy", 7)


@pytest.mark.parametrize("text", ["12345", "true", "null"])
async def test_a_token_that_looks_like_json(text: str) -> None:
    """A number may be a token."""
    assert await printed(text) == (text.encode(), 300)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f'"{CANARY}"',
        f'{{"token": "{CANARY}\\r\\nX: y"}}',
        f'{{"other": "{CANARY}"}}',
        f"{CANARY}\nX: y",
        f"error: {CANARY}",
        f'["{CANARY}"]',
        "[" * 60_000,
        f"{CANARY}é",
    ],
    ids=["nothing", "blank", "quoted", "ends", "other", "lines", "words", "list", "deep", "é"],
)
async def test_output_that_holds_no_token(text: str) -> None:
    """It is not repeated, and nothing of it can reach a header."""
    failure = await failure_of(python(f"print({text!r})"))
    assert failure.invalid_response
    assert failure.reason.endswith(" holds no usable token")
    assert CANARY not in failure.reason


async def test_arguments_are_not_expanded(tmp_path: Path) -> None:
    """There is no shell: what would be one's business arrives as it is."""
    odd = "$(touch x)`id`;*'\"{key}"
    code = "import sys; print(sys.argv[1].encode().hex())"
    assert (await python(code, odd).fetch()).value == odd.encode().hex().encode()


async def test_the_command_has_nothing_to_read_and_our_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Standard input is empty, so that nothing waits for a person."""
    monkeypatch.setenv("DUMMY_VARIABLE", "dummy-value")
    code = "import os, sys; print(sys.stdin.read() + os.environ['DUMMY_VARIABLE'])"
    assert (await python(code).fetch()).value == b"dummy-value"


@both_loops
async def test_a_command_that_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """Its exit code is said, what it printed is not, here or there, not even a good token."""
    code = f"import sys; print('{CANARY}'); print('{CANARY}', file=sys.stderr); sys.exit(3)"
    assert "failed with exit code 3" in (await failure_of(python(code))).reason
    assert (
        "failed with exit code -9"
        in (await failure_of(python("import os; os.kill(os.getpid(), 9)"))).reason
    )
    assert CANARY not in "".join(capfd.readouterr())


@both_loops
async def test_a_command_that_is_missing(tmp_path: Path) -> None:
    """Its name is said; so it is for one that may not be run, or is no program."""
    missing = await failure_of(mint("/nowhere/dummy"))
    assert missing.reason == "there is no command /nowhere/dummy"
    file = tmp_path / "file"
    file.write_text("dummy")
    assert "cannot be run (PermissionError)" in (await failure_of(mint(str(file)))).reason


@both_loops
async def test_a_command_that_prints_without_end(tmp_path: Path) -> None:
    """It is stopped early, and not waited for."""
    code = f"import os\nwhile True: os.write(1, b'{CANARY}' * 1000)"
    async with asyncio.timeout(30):
        failure = await failure_of(python(code, seconds=60))
    assert failure.invalid_response
    assert "printed too much" in failure.reason


@both_loops
async def test_a_command_that_prints_ten_mebibytes_and_ends() -> None:
    """The same, though it ends by itself."""
    async with asyncio.timeout(30):
        failure = await failure_of(python("print('x' * 10485760)", seconds=60))
    assert "printed too much" in failure.reason


def alive(file: Path) -> bool:
    """Whether the process whose id is in ``file`` runs."""
    pid = int(file.read_text())
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


SLEEPY = """
import os, sys, time
open(sys.argv[1] + "~", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + "~", sys.argv[1])
time.sleep(60)
"""

# Starts another program that holds the output too, writes its id, and does not end.
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-IS", "-c", sys.argv[2], sys.argv[1]])
time.sleep(60)
"""

# Ends, but what it has started has left its group and holds the output.
LEAVING = """
import subprocess, sys
print("dummy")
arguments = [sys.executable, "-IS", "-c", sys.argv[2], sys.argv[1]]
subprocess.Popen(arguments, start_new_session=True)
"""


@both_loops
@pytest.mark.parametrize("code", [SLEEPY, FAMILY])
async def test_a_command_that_does_not_end(code: str, tmp_path: Path) -> None:
    """It is killed with all that it has started, and waited for no longer."""
    file = tmp_path / "pid"
    async with asyncio.timeout(30):
        failure = await failure_of(python(code, str(file), SLEEPY, seconds=0.3))
    assert failure.reason.endswith("did not end in time")
    assert not failure.invalid_response
    if file.exists():  # it may have been killed before it came to that
        await until(lambda: not alive(file))


@both_loops
@pytest.mark.parametrize("code", [SLEEPY, FAMILY])
async def test_cancelling_ends_the_command(code: str, tmp_path: Path) -> None:
    """With all that it has started; nothing is left running or open."""
    file = tmp_path / "pid"
    task: asyncio.Task[FetchedToken] = asyncio.ensure_future(  # noqa: TID251
        python(code, str(file), SLEEPY).fetch()
    )
    await until(file.exists)
    assert alive(file)
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not alive(file))
    gc.collect()


@both_loops
async def test_output_that_is_held_open_by_others(tmp_path: Path) -> None:
    """A command that has ended but left its output to another is not waited for beyond its time."""
    file = tmp_path / "pid"
    async with asyncio.timeout(30):
        failure = await failure_of(python(LEAVING, str(file), SLEEPY, seconds=0.3))
    assert failure.reason.endswith("did not end in time")
    await until(file.exists)
    os.kill(int(file.read_text()), 9)


async def test_commands_are_never_printed() -> None:
    """Arguments may contain secrets."""
    one = mint("/usr/bin/printf", CANARY)
    assert CANARY not in f"{one!r}{one}"
    assert (await one.fetch()).value == CANARY.encode()


@both_loops
async def test_variables_that_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sees all but them, as they are when it is started."""
    monkeypatch.setenv("DUMMY_KEY", "dummy-of-another-route")
    monkeypatch.setenv("DUMMY_SESSION", "dummy-session")
    script = "echo ${DUMMY_KEY-none}-$DUMMY_SESSION"
    hidden: set[str] = set()
    one = CommandTokenSource(
        ("/bin/sh", "-c", script),
        FIELDS,
        ManualClock(wall=NOW),
        timeout_seconds=10,
        hidden=lambda: hidden,
    )
    assert (await one.fetch()).value == b"dummy-of-another-route-dummy-session"
    hidden.add("DUMMY_KEY")
    assert (await one.fetch()).value == b"none-dummy-session"
