"""House rules that no single module can hold: what the checkout and its files promise."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import proxy
from tests.support.checkout import listed_files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "proxy"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

IMPORT_EACH_ALONE = """
import importlib, sys, traceback
failed = []
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.partition(".")[0] == "proxy"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException:
        failed.append(name + "\\n" + traceback.format_exc())
sys.exit("\\n".join(failed) or 0)
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported_names(path: Path) -> set[str]:
    """Every module that a file names in an import; relative ones spelt out."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names.add(origin)
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return names


def called_methods(path: Path) -> list[tuple[str, int]]:
    return [
        (node.func.attr, node.lineno)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def project_files() -> list[Path]:
    """What git tracks or would track; a checkout without git has nothing to say about that."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed_files()]


def pins(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def findings_of(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in project_files():
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # an image names nothing
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


@pytest.mark.timeout(240)
def test_every_module_imports_alone() -> None:
    """Any module may be the first one imported, and none warns or does anything when it is."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *map(module_name, SOURCES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert not done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (0, "")


def test_imports_go_downhill() -> None:
    """The import contract of pyproject.toml is kept, and it knows every module there is."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_auth_reveals_secrets() -> None:
    """A secret's value is read in auth alone, where it leaves for its provider; for the digest of
    the inbound token; and for the channel to a worker process.
    """
    revealing = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if PACKAGE / "auth" not in path.parents
        and path not in {PACKAGE / "server/inbound_token.py", PACKAGE / "process/worker_config.py"}
        for name, line in called_methods(path)
        if name == "reveal"
    ]
    assert not revealing


def test_queries_are_never_rebuilt() -> None:
    """No query is parsed and written again: the provider gets the client's bytes."""
    banned = {"update_query", "with_query", "extend_query"}
    rebuilding = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for name, line in called_methods(path)
        if name in banned
    ]
    assert not rebuilding


def test_module_names_say_what_is_inside() -> None:
    """No module has a name that says nothing."""
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    for path in SOURCES:
        assert path.stem not in vague, path


def test_every_module_is_tested() -> None:
    """Each module has a test file of its name, or one that imports it."""
    files = {path.stem for path in TESTS}
    imported = set().union(*map(imported_names, TESTS))
    untested = [
        name
        for path in SOURCES
        if not path.stem.startswith("__")
        and (name := module_name(path)) not in imported
        and not files & {f"test_{path.stem}", "test_" + "_".join(name.split(".")[1:])}
    ]
    assert not untested


def test_every_test_says_what_must_hold() -> None:
    """Each test has a docstring: the sentence that is false when it fails."""
    silent = [
        f"{path.name}:{node.lineno}: {node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_no_file_names_a_registry_or_a_machine() -> None:
    """The project works from any directory and with any package registry."""
    # Written in pieces, so that this file is not its own finding.
    hosts = "pypi" + r"\.org|python" + "hosted|registry" + r"\.npmjs"
    options = "--(extra-)?index" + "-url|--find" + "-links"
    places = r"(?<![\w.])/(work|tmp|root)/\w|\.\./" + "shared"
    kept_out = re.compile(f"{hosts}|{options}|{places}")
    assert findings_of(kept_out) == []


def test_no_file_holds_what_looks_like_a_key() -> None:
    """Credentials in this project are dummies that say so."""
    shapes = [
        r"AKIA[0-9A-Z]{16}",
        r"AIza[0-9A-Za-z_-]{35}",
        r"gh[pousr]_[0-9A-Za-z]{36}",
        r"\bsk-(?!.*dummy)[0-9A-Za-z_-]{20,}",
        "-----BEGIN " + r"(\w+ )?PRIVATE KEY",
    ]
    assert findings_of(re.compile("|".join(shapes))) == []


def test_version_is_said_once() -> None:
    """The version is that of the package, and an installed keyrelay reports the same."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", proxy.__version__)
    said = project()
    assert said["project"]["dynamic"] == ["version"]
    assert said["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "proxy.__version__"}
    try:
        installed = importlib.metadata.distribution("keyrelay")
    except importlib.metadata.PackageNotFoundError:
        return  # run from the checkout, where there is nothing to differ
    assert installed.version == proxy.__version__


def test_package_data_is_complete() -> None:
    """Whatever lies in the package and is not code gets into the wheel."""
    patterns = project()["tool"]["setuptools"]["package-data"]["proxy"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    left_out = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc"}
        and path not in shipped
        and "__pycache__" not in path.parts
    ]
    assert left_out == []
    assert (PACKAGE / "py.typed").is_file()


def test_pins_follow_the_declared_ranges() -> None:
    """Every declared requirement is pinned within its range, in every file that needs it."""
    said = project()
    runtime = said["project"]["dependencies"]
    groups = said["dependency-groups"]
    for file, declared in {
        "requirements.txt": runtime,
        "requirements-build.txt": groups["build"],
        "requirements-dev.txt": [*runtime, *groups["build"], *groups["dev"]],
        "requirements-clients.txt": [*runtime, *groups["clients"]],
        "requirements-docs.txt": groups["docs"],
        "requirements-charts.txt": groups["charts"],
    }.items():
        pinned = pins(file)
        for text in declared:
            if isinstance(text, str):
                wanted = Requirement(text)
                version = pinned.get(canonicalize_name(wanted.name))
                assert version is not None, f"{file} lacks {wanted.name}: make lock"
                assert wanted.specifier.contains(version), f"{file}: {wanted}, not {version}"


def test_tests_run_with_the_pins_that_ship() -> None:
    """What is tested is what is installed: the files agree on every version they share."""
    shipped = pins("requirements.txt")
    for file in ("requirements-dev.txt", "requirements-clients.txt"):
        pinned = pins(file)
        assert {name: pinned.get(name) for name in shipped} == shipped, f"{file}: make lock"


def test_requirement_files_hold_pins_and_hashes_only() -> None:
    """Each requirement has one exact version and its hashes, and no file has any other option."""
    for path in ROOT.glob("requirements*.txt"):
        entries = re.split(r"\n(?=[^\s#])", path.read_text(encoding="utf-8").strip())
        for entry in entries:
            assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+", entry), f"{path.name}: {entry[:80]}"
            assert "--hash=sha256:" in entry, f"{path.name}: {entry[:80]}"


def test_every_make_target_explains_itself() -> None:
    """`make help` lists every target that is meant for people."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.* ## \S", text, re.MULTILINE)
    assert targets == explained
    assert len(explained) == len(set(explained))


def test_image_runs_as_nobody_and_publishes_nothing() -> None:
    """The image has a fixed user that is not root, no port, and a health check without a shell."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    final = text[text.rindex("\nFROM ") :]
    assert "\nUSER 65532:65532\n" in final
    assert "\nEXPOSE" not in final
    assert 'CMD ["keyrelay", "health"]' in final
    assert 'ENTRYPOINT ["keyrelay"]' in final


def test_compose_gives_the_application_no_key() -> None:
    """The sidecar's application shares keyrelay's loopback and nothing else of it."""
    route_services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))[
        "services"
    ]
    relay, app = route_services["keyrelay"], route_services["app"]
    assert app["network_mode"] == "service:keyrelay"
    assert not app.keys() & {"environment", "env_file", "secrets", "volumes", "configs"}
    for route_service in (relay, app):
        assert "ports" not in route_service
        assert route_service["read_only"] is True
        assert route_service["cap_drop"] == ["ALL"]
        assert route_service["security_opt"] == ["no-new-privileges:true"]
