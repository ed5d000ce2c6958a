"""The files with which keyrelay is operated fit keyrelay, and one another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.cli.main import main
from proxy.config import loader
from proxy.config.settings import Settings
from tests.support.command import ROOT, keyrelay

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
DRAIN_SECONDS = Settings.model_fields["drain_seconds"].default
IMAGE_USER = 65532


def unit(name: str) -> dict[str, list[str]]:
    """The values of a unit file's keys, in order, whichever section they are in."""
    values: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def check_command(words: list[str]) -> None:
    """A command of keyrelay's, with options that it has."""
    command = main.commands[words[0]]
    options = {one for parameter in command.params for one in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


# --- systemd ----------------------------------------------------------------------------------


def test_the_service_starts_reloads_and_ends_keyrelay_as_it_is_meant() -> None:
    """The command exists; readiness is told; stopping has the time that draining takes."""
    route_service = unit("keyrelay.service")
    [start] = route_service["ExecStart"]
    program, *words = start.split()
    assert program.endswith("/keyrelay")
    check_command(words)
    assert words[-1] == "/etc/keyrelay/routes.yaml"
    assert route_service["Type"] == ["notify"]
    assert route_service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(route_service["TimeoutStopSec"][0]) > DRAIN_SECONDS
    # 2 is a configuration that is wrong: starting again would change nothing.
    assert route_service["RestartPreventExitStatus"] == ["2"]


def test_the_service_can_do_little() -> None:
    """What a proxy needs is left to it, and nothing else."""
    route_service = unit("keyrelay.service")
    for key in (
        "DynamicUser",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectHome",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictNamespaces",
        "RestrictSUIDSGID",
    ):
        assert route_service[key] == ["yes"], key
    assert route_service["ProtectSystem"] == ["strict"]
    assert route_service["CapabilityBoundingSet"] == route_service["AmbientCapabilities"] == [""]
    assert route_service["SystemCallFilter"][0] == "@system-service"
    families = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    assert route_service["RestrictAddressFamilies"] == [families]
    assert not route_service.keys() & {"EnvironmentFile", "User"}
    assert not any("KEY" in one for one in route_service.get("Environment", ()))


def referenced(settings: Settings, source: str) -> set[str]:
    """The names behind this source in the references of all routes."""
    return {
        reference.removeprefix(source)
        for route in settings.routes.values()
        for secret in route.secrets.values()
        for reference in secret.references
        if reference.startswith(source)
    }


def test_units_and_routes_name_the_same_things() -> None:
    """Each credential of the routes is loaded; each socket's address is one of ``listen``."""
    settings = loader.load(SYSTEMD / "routes.yaml")
    asked = referenced(settings, "credential:")
    assert asked
    assert asked == {one.partition(":")[0] for one in unit("keyrelay.service")["LoadCredential"]}
    assert unit("keyrelay.socket")["ListenStream"] == list(settings.listen)
    # What is commented out there is no trap: without it systemd opens a path to everybody.
    text = (SYSTEMD / "keyrelay.socket").read_text(encoding="utf-8")
    assert "#SocketMode=0660\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """No unknown key, no value that it would ignore, and an exposure that it calls OK."""
    for name in ("keyrelay.service", "keyrelay.socket"):
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        # That keyrelay is not installed here is no fault of the unit's.
        (tmp_path / name).write_text(text.replace("/opt/keyrelay/bin/keyrelay", "/bin/true"))
    units = [str(tmp_path / name) for name in ("keyrelay.service", "keyrelay.socket")]
    done = analyze("verify", *units)
    assert (done.returncode, done.stderr) == (0, "")
    done = analyze("security", "--offline=yes", "--threshold=20", units[0])
    assert done.returncode == 0, done.stdout


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- Kubernetes -------------------------------------------------------------------------------


@pytest.fixture
def objects() -> dict[str, dict[str, Any]]:
    """The manifest's objects by kind."""
    text = (DEPLOY / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.fixture
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    deployment = objects["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    spec: dict[str, Any] = deployment["template"]["spec"]
    return spec


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from pod["initContainers"]
    yield from pod["containers"]


def test_keyrelay_is_a_native_sidecar(pod: dict[str, Any]) -> None:
    """It is there before the application and after it, and says by command how it is."""
    [sidecar] = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        [program, *words] = sidecar[probe]["exec"]["command"]
        assert program == "keyrelay"
        check_command(words)
        # More than the second that Kubernetes gives by itself: a Python has to start.
        assert sidecar[probe]["timeoutSeconds"] >= 5
    assert "preStop" not in json.dumps(pod)
    assert "ports" not in json.dumps(pod)
    assert not pod.keys() & {"hostNetwork", "hostPID", "shareProcessNamespace"}


def test_every_container_is_confined(pod: dict[str, Any]) -> None:
    """No root, no capability, no file system to write to, no token of the cluster's."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in containers(pod):
        context = one["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsUser"] > 0
        assert "memory" in one["resources"]["limits"]
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_key_is_mounted_for_keyrelay_alone(
    objects: dict[str, dict[str, Any]], pod: dict[str, Any]
) -> None:
    """The image's user can read it, the application's container does not have it."""
    [sidecar], [application] = pod["initContainers"], pod["containers"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["name"]: one for one in sidecar["volumeMounts"]}
    assert mounts.keys() == volumes.keys() == {"routes", "keys", "runtime"}
    assert all("subPath" not in one for one in mounts.values())
    assert [name for name, one in mounts.items() if not one.get("readOnly")] == ["runtime"]
    assert mounts["runtime"]["mountPath"] == image_variables()["XDG_RUNTIME_DIR"]
    assert volumes["runtime"]["emptyDir"]["medium"] == "Memory"
    assert volumes["keys"]["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == sidecar["securityContext"]["runAsUser"]
    assert sidecar["securityContext"]["runAsUser"] == IMAGE_USER
    assert volumes["routes"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert mounts["routes"]["mountPath"] == "/etc/keyrelay"
    assert not application.keys() & {"volumeMounts", "envFrom"}
    assert not any("KEY" in one["name"] for one in application["env"])
    assert "env" not in sidecar
    assert "Secret" not in objects


def test_its_routes_are_right(
    objects: dict[str, dict[str, Any]], pod: dict[str, Any], tmp_path: Path
) -> None:
    """They are read through the links of a mount; the application calls where they listen."""
    text = objects["ConfigMap"]["data"]["routes.yaml"]
    settings = loader.load_text(text, "routes.yaml")
    [reference] = settings.routes["hume"].secrets["api_key"].references
    mounted = {one["mountPath"] for one in pod["initContainers"][0]["volumeMounts"]}
    assert str(Path(reference.removeprefix("file:")).parent) in mounted
    [variable] = pod["containers"][0]["env"]
    assert variable == {"name": "HUME_BASE_URL", "value": f"http://{settings.listen[0]}/hume"}
    # The health check asks there unless it is told otherwise.
    assert settings.listen == Settings().listen
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds * 2

    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "routes.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "routes.yaml").symlink_to("..data/routes.yaml")
    assert keyrelay("check", "-c", str(tmp_path / "routes.yaml")).code == 0


# --- Compose ----------------------------------------------------------------------------------


def test_compose_hands_the_keys_to_keyrelay_alone() -> None:
    """It passes on every variable that the shipped routes ask for; the application gets none."""
    route_services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))[
        "services"
    ]
    relay, app = route_services["keyrelay"], route_services["app"]
    settings = loader.load(ROOT / "config" / "routes.yaml")
    asked = referenced(settings, "env:")
    assert set(relay["environment"]) == asked
    assert not app.keys() & {"environment", "env_file", "secrets"}
    assert not re.search(r"key|token|secret", json.dumps(app["command"]), re.IGNORECASE)
    assert app["network_mode"] == "service:keyrelay"
    assert app["depends_on"]["keyrelay"] == {"condition": "service_healthy"}
    assert int(relay["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS


def test_compose_mounts_directories() -> None:
    """Neither what is in force nor what is commented out mounts a single file: once replaced, it
    would never be seen. The runtime directory is the user's own, on a read-only file system too.
    """
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    relay = yaml.safe_load(text)["services"]["keyrelay"]
    assert "volumes" not in relay
    assert not re.search(r"^ *#? *(secrets|configs):", text, re.MULTILINE)
    [volumes] = re.findall(r"# volumes: (\[.*\])$", text, re.MULTILINE)
    targets = {one.split(":")[1] for one in json.loads(volumes)}
    assert targets == {"/etc/keyrelay", "/run/secrets/keyrelay"}
    [runtime] = [one for one in relay["tmpfs"] if one.startswith("/run/keyrelay:")]
    assert {f"uid={IMAGE_USER}", "mode=0700"} <= set(runtime.partition(":")[2].split(","))
    assert runtime.startswith(image_variables()["XDG_RUNTIME_DIR"] + ":")


# --- the image --------------------------------------------------------------------------------


def image_variables() -> dict[str, str]:
    """The environment that the Dockerfile sets in the image."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    pairs = re.findall(r"^ENV (.*)$", last, re.MULTILINE)
    return dict(one.split("=", 1) for pair in pairs for one in pair.split())


def test_the_build_has_the_files_that_it_copies() -> None:
    """What the Dockerfile copies from the checkout, and nothing else, is let into the build."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)
        if "--from=" not in line
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert [one for one in copied if not (ROOT / one).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    modules = project["tool"]["setuptools"]["py-modules"]
    assert {f"{module}.py" for module in modules} <= copied


def test_the_image_needs_no_home_and_no_address() -> None:
    """Its user has a private runtime directory, its configuration is named by a variable, and the
    health check names no port.
    """
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    variables = image_variables()
    owner = f"--mode=0700 --owner={IMAGE_USER} --group={IMAGE_USER}"
    assert f"install --directory {owner} {variables['XDG_RUNTIME_DIR']}\n" in text
    assert f"config/routes.yaml {variables['KEYRELAY_CONFIG']}\n" in text
    assert text.endswith('ENTRYPOINT ["keyrelay"]\nCMD ["run"]\n')
    assert f"USER {IMAGE_USER}:{IMAGE_USER}\n" in text
    assert re.search(r'^HEALTHCHECK .*\\\n    CMD \["keyrelay", "health"\]$', text, re.MULTILINE)


# --- the page ---------------------------------------------------------------------------------


def test_the_page_names_what_there_is() -> None:
    """Commands, options, settings, files and periods of time in docs/deployment.md are true."""
    for words in re.findall(r"`(?:HUME_API_KEY=… )?keyrelay ([a-z][^`]*)`", PAGE):
        check_command(words.split())
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE) + re.findall(r"deploy/[\w./-]+\w", PAGE):
        assert (ROOT / path.removeprefix("../")).exists(), path
    rows = dict(
        re.findall(r"^\| (systemd|Docker Compose|Kubernetes) \| .* \| (\d+) s \|$", PAGE, re.M)
    )
    route_service = unit("keyrelay.service")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    manifest = (DEPLOY / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8")
    assert rows == {
        "systemd": route_service["TimeoutStopSec"][0],
        "Docker Compose": compose["services"]["keyrelay"]["stop_grace_period"].removesuffix("s"),
        "Kubernetes": re.findall(r"terminationGracePeriodSeconds: (\d+)", manifest)[0],
    }
    assert f"`WatchdogSec={route_service['WatchdogSec'][0]}`" in PAGE
    assert f"`drain_seconds` ({DRAIN_SECONDS})" in PAGE
    assert f"`max_connections` ({Settings.model_fields['max_connections'].default})" in PAGE
