"""aiohttp's parsers without the rest of aiohttp, and the rest once it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """Run code in an interpreter of its own, behind the import of the parsers."""
    program = f"import sys, threading\nfrom proxy.http import aiohttp_parser\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_neither_client_nor_server_is_imported_with_the_parsers() -> None:
    """The C parser is there, and the modules of aiohttp's client and server are not."""
    printed = run(
        "print(aiohttp_parser.HttpRequestParser.__module__)\n"
        "print([n for n in ('client', 'web', 'connector') if f'aiohttp.{n}' in sys.modules])"
    )
    assert printed.splitlines() == ["aiohttp._http_parser", "[]"]


@pytest.mark.parametrize(
    "code",
    [
        "import aiohttp; print(aiohttp.ClientSession.__name__, aiohttp.hdrs.HOST)",
        "import aiohttp.web as web; print(web.Application.__name__, 'Host')",
        "from aiohttp import web, hdrs; print(web.Application.__name__, hdrs.HOST)",
        "from aiohttp import ClientSession, hdrs; print(ClientSession.__name__, hdrs.HOST)",
        "from aiohttp.client import ClientSession, hdrs; print(ClientSession.__name__, hdrs.HOST)",
        "import aiohttp; print(aiohttp.__version__ and 'version', aiohttp.hdrs.HOST)",
    ],
)
def test_the_rest_of_aiohttp_is_there_once_it_is_used(code: str) -> None:
    """However aiohttp is imported afterwards, it is whole, with the same classes of errors."""
    same = (
        "import aiohttp.http_exceptions as e\n"
        "assert e.HttpProcessingError is aiohttp_parser.HttpProcessingError\n"
        "import aiohttp\nassert aiohttp.http_exceptions is e"
    )
    assert run(f"{code}\n{same}").split()[1:] == ["Host"]


def test_an_unknown_name_of_aiohttp_is_an_attribute_error() -> None:
    """A name that aiohttp does not have is reported as for any module, also the second time."""
    code = "import aiohttp\nprint(hasattr(aiohttp, 'dummy'), hasattr(aiohttp, 'dummy'))"
    assert run(code) == "False False"


def test_threads_that_use_aiohttp_at_once_all_get_it() -> None:
    """The first use executes the package once; another thread waits for its end."""
    code = (
        "import aiohttp\ngot = []\n"
        "one = lambda: got.append(aiohttp.ClientSession)\n"
        "threads = [threading.Thread(target=one) for _ in range(16)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\n"
        "print(len(got), len(set(got)))"
    )
    assert run(code) == "16 1"


def test_an_aiohttp_that_was_imported_before_is_left_alone() -> None:
    """A program that has aiohttp already gets the parsers of that one."""
    code = (
        "import aiohttp, sys\nbefore = sys.modules['aiohttp']\n"
        "from proxy.http import aiohttp_parser\n"
        "assert sys.modules['aiohttp'] is before\nprint(aiohttp.ClientSession.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ClientSession\n"
