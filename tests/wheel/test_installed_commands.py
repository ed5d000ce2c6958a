"""What the README promises, from a wheel in an environment that has never seen the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import version

import pytest
import yaml

from tests.support.command import CANARY
from tests.wheel.installation import Installation

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

HUME = {"HUME_API_KEY": CANARY}
ANY_PORT = ("--listen", "127.0.0.1:0")


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_wheel_is_what_runs(installed: Installation) -> None:
    """The command and the package are those of the environment, of the version that was built."""
    assert installed.keyrelay("--version").out.split()[-1] == version("keyrelay")
    done = subprocess.run(
        [installed.python, "-c", "import proxy; print(proxy.__file__)"],
        cwd=installed.folder,
        env={},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(str(installed.environment))


def test_demo_serves(installed: Installation) -> None:
    """``keyrelay demo`` authenticates a request and shows what reached the provider."""
    with installed.serving("demo", *ANY_PORT) as served:
        status, body = get(f"{served.url}/demo/echo/hello?from=curl")
    assert status == 200
    assert b"from=curl" in body


def test_run_serves_a_provider_by_its_name(installed: Installation) -> None:
    """``keyrelay run hume`` needs no file; what is not routed is refused by keyrelay itself."""
    with installed.serving("run", "hume", *ANY_PORT, variables=HUME) as served:
        assert get(f"{served.url}/-/health")[0] == 200
        assert get(f"{served.url}/elsewhere/")[0] == 404


def test_run_serves_without_the_key(installed: Installation) -> None:
    """A request to a route that lacks its key is answered with the variable to set."""
    with installed.serving("run", "hume", *ANY_PORT) as served:
        status, body = get(f"{served.url}/hume/v0/evi/configs")
    assert status == 503
    assert b"HUME_API_KEY" in body


def test_exec_sets_a_program_up(installed: Installation) -> None:
    """``keyrelay exec hume -- …``: a base URL, no key, and the program's own exit code."""
    code = (
        "import os, sys; print(os.environ['HUME_BASE_URL'], os.environ.get('HUME_API_KEY')); "
        "sys.exit(7)"
    )
    done = installed.keyrelay("exec", "hume", "--", sys.executable, "-c", code, variables=HUME)
    assert done.code == 7, done.err
    url, key = done.out.split()
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/hume")
    assert key != CANARY


def test_doctor_tries_the_demo(installed: Installation) -> None:
    """``keyrelay doctor demo``: every check passes, without a network."""
    done = installed.keyrelay("doctor", "demo")
    assert done.code == 0, done.out + done.err


def test_doctor_names_the_missing_key(installed: Installation) -> None:
    """``keyrelay doctor hume`` without its key: exit 1 and the variable to set."""
    done = installed.keyrelay("doctor", "hume")
    assert done.code == 1
    assert "HUME_API_KEY" in done.out + done.err


def test_explain_shows_what_would_be_sent(installed: Installation) -> None:
    """``keyrelay explain GET /hume/…`` ends with the request, the key's name in the key's place."""
    done = installed.keyrelay("explain", "GET", "/hume/v0/evi/configs?page_size=1", variables=HUME)
    assert done.code == 0, done.err
    assert "X-Hume-Api-Key: <api_key>" in done.out
    assert "Host: api.hume.ai" in done.out


def test_check_reads_the_shipped_routes(installed: Installation) -> None:
    """``keyrelay check`` without a file."""
    assert installed.keyrelay("check").code == 0


def test_init_begins_a_file_that_runs(installed: Installation) -> None:
    """``keyrelay init`` writes routes for the keys that are set; check and run take them."""
    assert installed.keyrelay("init", variables=HUME).code == 0
    text = (installed.folder / "routes.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)["routes"]) == {"demo", "hume"}
    assert installed.keyrelay("check", "-c", "routes.yaml", variables=HUME).code == 0
    with installed.serving("run", "-c", "routes.yaml", *ANY_PORT, variables=HUME) as served:
        assert get(f"{served.url}/demo/echo/hello")[0] == 200


@pytest.mark.parametrize("file", [True, False])
def test_a_sealed_value_serves(installed: Installation, file: bool) -> None:
    """``keygen``, then ``seal hume api_key`` with or without a file: the reference it prints
    belongs into the route, and ``check`` takes it.
    """
    routes = installed.folder / "routes.yaml"
    routes.write_text("routes:\n  hume:\n    provider: hume\n", encoding="utf-8")
    assert installed.keyrelay("keygen").code == 0
    named = ("-c", "routes.yaml") if file else ()
    sealed = installed.keyrelay("seal", "hume", "api_key", *named, stdin=CANARY.encode())
    assert sealed.code == 0, sealed.err
    secrets = json.dumps({"api_key": sealed.out.strip()})
    routes.write_text(
        f"routes:\n  hume:\n    provider: hume\n    secrets: {secrets}\n", encoding="utf-8"
    )
    done = installed.keyrelay("check", "-c", "routes.yaml")
    assert done.code == 0, done.err


def test_providers_lists_the_catalogue(installed: Installation) -> None:
    """``keyrelay providers`` has the presets, and ``providers hume`` the whole of one."""
    listed = installed.keyrelay("providers")
    assert listed.code == 0
    assert {"demo", "hume", "inworld"} <= {
        line.split()[0] for line in listed.out.splitlines() if line
    }
    shown = installed.keyrelay("providers", "hume")
    assert yaml.safe_load(shown.out)["upstream"] == "https://api.hume.ai"


def test_what_is_wrong_is_one_line(installed: Installation) -> None:
    """A file that is not there and a provider that is not known: exit 2 or 1, no traceback."""
    assert installed.keyrelay("run", "-c", "missing.yaml").code == 2
    assert installed.keyrelay("run", "nonesuch").code == 2
