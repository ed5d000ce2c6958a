"""The parts of the benchmarks that only compute: what they say of a run is what was measured."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import accounting, configs, measures, provider, report, revisions, sending
from benchmarks.__main__ import arguments, chosen
from benchmarks.calling import AnswerReader, FrameReader, LoadError
from benchmarks.configs import Job
from benchmarks.distance import Lane
from benchmarks.figures import FIGURES, Column, Figure
from benchmarks.measures import Scale
from benchmarks.peers import PEERS, checkout
from benchmarks.report import Results
from proxy.config import loader

ROOT = Path(__file__).resolve().parents[2]
JOB = Job(Path("/nowhere"), 8000, 8001, 8002, 8003, Path("/nowhere/authority.pem"))
COST = Column("cost", "a cost", "CPU µs")


def costs(figures: dict[str, list[float]]) -> Results:
    results = Results()
    for name, values in figures.items():
        for turn, value in enumerate(values):
            results.add(name, turn, {"cost": value})
    return results


def figure(*columns: Column) -> Figure:
    return Figure("figure", columns, measures.get)


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which everything was slow does not change the ratio."""
    results = costs({"nginx": [10, 20, 40], "keyrelay": [20, 40, 80]})
    assert results.ratios(COST, "keyrelay") == [2, 2, 2]


def test_a_round_without_nginx_has_no_ratio() -> None:
    """Nothing is compared with a measurement that failed, or that is not above nothing."""
    results = costs({"nginx": [10, -1], "keyrelay": [15, 15, 15]})
    assert results.ratios(COST, "keyrelay") == [1.5]
    assert costs({"keyrelay": [15]}).ratios(COST, "keyrelay") == []


def test_values_are_shown_in_the_unit_of_their_column() -> None:
    """What is recorded in seconds is shown in milliseconds if the column says so."""
    column = Column("cost", "a wait", "ms", 1e3)
    assert costs({"nginx": [0.25]}).of(column, "nginx") == {0: 250}


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], "-"),
        ([3.14159], "3.14"),
        ([1, 2, 30], "2.00 (1.00-30.0)"),
        ([99.5, 100, 1234.4], "100 (99.5-1234)"),
    ],
)
def test_spread_shows_median_and_range(values: list[float], shown: str) -> None:
    """Three digits, the median first, then the lowest and the highest."""
    assert report.spread(values) == shown


def test_tables_show_every_proxy_and_what_failed() -> None:
    """Ratios for all but nginx, values for all, dashes where nothing was measured, failures."""
    results = costs({"nginx": [10, 10], "keyrelay": [15, 25]})
    results.failures.append("caddy, figure, round 1: no answer")
    shown = report.tables(results, [figure(COST)], ["nginx", "keyrelay", "caddy"])
    lines = shown.splitlines()
    assert "|        | keyrelay         | caddy |" in lines
    assert "| a cost | 2.00 (1.50-2.50) | -     |" in lines
    assert "| a cost | CPU µs | 10.0 (10.0-10.0) | 20.0 (15.0-25.0) | -     |" in lines
    assert "- caddy, figure, round 1: no answer" in lines
    assert len({len(line) for line in lines if line.startswith("| a cost | 2")}) == 1


def test_another_checkout_is_compared_in_the_same_round() -> None:
    """Each round's ratio is to the other checkout in that round, with nginx or without it."""
    results = costs({"keyrelay": [10, 30], "checkout": [20, 20]})
    lines = report.tables(results, [figure(COST)], ["keyrelay", "checkout"]).splitlines()
    assert "|        | keyrelay to checkout |" in lines
    assert "| a cost | 1.00 (0.50-1.50)     |" in lines


def test_a_checkout_needs_an_environment_of_its_own(tmp_path: Path) -> None:
    """A folder without keyrelay, or without .venv, has no version; this checkout's code has one."""
    peer = checkout(tmp_path)
    assert peer.version() is None
    (tmp_path / "proxy").symlink_to(ROOT / "proxy")
    assert peer.version() is None
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert f"Python {sys.version.split()[0]}" in str(peer.version())


def test_what_cannot_be_compared_has_no_ratio() -> None:
    """A column that describes the machine is among the values only."""
    column = Column("cost", "a cost", "µs", compared=False)
    results = costs({"nginx": [1.0], "keyrelay": [1.0]})
    assert "a cost" not in report.ratio_table(results, [figure(column)], ["nginx", "keyrelay"])
    assert "a cost" in report.value_table(results, [figure(column)], ["nginx", "keyrelay"])


def test_document_says_with_what_it_was_measured() -> None:
    """Date, machine, versions, command, and what was left out stand above the tables."""
    about = {
        "date": "2030-01-02",
        "machine": "a machine",
        "versions": {"nginx": "1.2", "keyrelay": "0.1"},
        "missing": ["caddy"],
        "command": "python -m benchmarks --quick",
    }
    page = report.document(about, "BODY")
    for part in ("2030-01-02", "a machine", "nginx 1.2, keyrelay 0.1", "--quick", "caddy", "BODY"):
        assert part in page


def test_columns_are_those_that_figures_record() -> None:
    """No two columns share a key, and idle sockets are counted as the columns say."""
    keys = [column.key for one in FIGURES.values() for column in one.columns]
    assert len(set(keys)) == len(keys)
    assert {f"socket_{count}" for count in Scale().sockets} <= set(keys)


def test_help_explains_every_figure() -> None:
    """The help has each name that --figures takes, and each peer."""
    text = arguments().format_help()
    for name in FIGURES:
        assert re.search(rf"^  {name}  ", text, re.MULTILINE), name
    for name in PEERS:
        assert name in text


def test_skipped_figures_exist() -> None:
    """What a peer is spared is the name of a figure."""
    assert {name for peer in PEERS.values() for name in peer.skips} <= FIGURES.keys()


def test_names_are_chosen_in_our_order(capsys: pytest.CaptureFixture[str]) -> None:
    """--peers and --figures take known names, in any order; others are refused with the list."""
    known = ["nginx", "keyrelay", "caddy"]
    assert chosen("caddy, nginx", known, "peer", arguments()) == ["nginx", "caddy"]
    assert chosen(None, known, "peer", arguments()) == known
    with pytest.raises(SystemExit):
        chosen("ngnix", known, "peer", arguments())
    assert "'ngnix'; there are nginx, keyrelay, caddy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "write", [configs.nginx, configs.haproxy, configs.caddy, configs.envoy, configs.keyrelay]
)
def test_every_proxy_gets_the_same_job(write: object) -> None:
    """Its port, all three providers, the key, and the authority where it is told in the file."""
    assert callable(write)
    text = write(JOB)
    for part in ("127.0.0.1", "8000", "8001", "8002", "8003", "X-Api-Key"):
        assert part in text
    if write is configs.keyrelay:
        assert "file:/nowhere/key" in text
        assert configs.KEY not in text
    else:
        assert configs.KEY in text
        assert "/nowhere/authority.pem" in text
        assert text.count("{") == text.count("}")


def test_envoys_configuration_is_json() -> None:
    """A route and a cluster for each provider, of which one is verified against the authority."""
    static = json.loads(configs.envoy(JOB))["static_resources"]
    assert [one["name"] for one in static["clusters"]] == list(JOB.origins)
    assert [one["name"] for one in static["clusters"] if "transport_socket" in one] == ["tls"]


def test_a_revision_is_cloned_and_installed_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A revision gets a clone at that commit with an environment of its own; a directory is taken
    as it is, and anything else is refused.
    """
    git = ("git", "-C", str(tmp_path), "-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run([*git, "init", "--quiet", "."], check=True)
    (tmp_path / "requirements.txt").write_text("# none\n")
    subprocess.run([*git, "add", "requirements.txt"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "one"], check=True)
    subprocess.run([*git, "tag", "before"], check=True)
    (tmp_path / "requirements.txt").unlink()
    subprocess.run([*git, "commit", "--quiet", "-a", "-m", "two"], check=True)

    found = revisions.directory("before", tmp_path)
    assert found.parent == tmp_path / ".bench"
    assert (found / "requirements.txt").is_file()
    assert (found / ".venv" / "bin" / "python").exists()
    assert "installing" in capfd.readouterr().err
    assert revisions.directory("before", tmp_path) == found
    assert capfd.readouterr().err == ""
    assert revisions.directory(str(found), tmp_path) == found
    with pytest.raises(revisions.NotInstalled, match="neither a directory nor a revision"):
        revisions.directory("unknown", tmp_path)


def test_a_revision_that_cannot_be_installed_leaves_nothing(tmp_path: Path) -> None:
    """Without requirements the installation fails, and its clone is removed."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=Test", "-c", "user.email=test@localhost")
    subprocess.run([*git, "init", "--quiet", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "one"], check=True)
    with pytest.raises(revisions.NotInstalled, match="could not be installed"):
        revisions.directory("HEAD", tmp_path)
    assert list((tmp_path / ".bench").iterdir()) == []


def test_keyrelays_routes_are_valid() -> None:
    """What the benchmarks write is what keyrelay reads."""
    settings = loader.load_text(configs.keyrelay(JOB), "routes.yaml")
    assert set(settings.routes) == set(JOB.origins)


def test_shipped_routes_get_free_ports() -> None:
    """Each address of the shipped file is replaced, and nothing else of it."""
    shipped = (ROOT / "config" / "routes.yaml").read_text()
    moved = configs.on_free_ports(shipped, list(range(9001, 9010)))
    before, after = (loader.load_text(text, "routes.yaml") for text in (shipped, moved))
    assert after.listen == ("127.0.0.1:9001",)
    listening = [one for route in after.routes.values() for one in route.listen]
    assert listening == ["127.0.0.1:9002"]
    assert set(after.routes) == set(before.routes)


def test_answers_are_read_however_they_arrive() -> None:
    """An answer is whole at its last byte, in one piece or byte by byte, one after another."""
    reader = AnswerReader()
    answer = provider.answer(b"12345")
    assert reader.feed(answer)
    assert [reader.feed(bytes([one])) for one in answer].index(True) == len(answer) - 1
    assert reader.feed(answer)


@pytest.mark.parametrize(
    "wrong",
    [
        provider.answer(b"", b"502 Bad Gateway"),
        provider.answer(b"12345") + b"6",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_wrong_answers_do_not_count(wrong: bytes) -> None:
    """An error is no fast answer."""
    with pytest.raises(LoadError):
        AnswerReader().feed(wrong)


@pytest.mark.parametrize("size", [0, 100, 125, 126, 20_000, 65_535, 65_536])
def test_messages_are_frames(size: int) -> None:
    """The stub provider reads what the client writes, and the client what the provider answers."""
    sent = sending.message(size)
    assert provider.masked_frame_size(sent) == (len(sent), size)
    assert provider.masked_frame_size(sent[:1]) is None
    back = provider.frame(size)
    reader = FrameReader(len(back))
    assert not reader.feed(back[:1])
    assert reader.feed(back[1:])
    with pytest.raises(LoadError):
        reader.feed(b"\x88\x02\x03\xe8")


def test_percentiles() -> None:
    """The value below which that part of all lies, whatever their order."""
    values = [float(one) for one in reversed(range(200))]
    assert measures.percentile(values, 50) == 100
    assert measures.percentile(values, 99) == 198


def test_processes_are_accounted_with_their_children() -> None:
    """The family of a process begins with it; its time and its memory are those of this one."""
    own = os.getpid()
    assert accounting.family(own)[0] == own
    assert own in accounting.family(os.getppid())
    before = accounting.cpu_seconds([own])
    sum(range(200_000))
    assert accounting.cpu_seconds([own]) > before
    assert accounting.resident_bytes([own]) > 10_000_000
    with pytest.raises(ProcessLookupError):
        accounting.cpu_seconds([2**22 + 1])


async def test_distance_keeps_order_and_takes_its_time() -> None:
    """Bytes arrive in the order in which they were sent, none before its time, then the end."""
    loop = asyncio.get_running_loop()
    arrived: list[tuple[float, bytes]] = []
    ended = loop.create_future()

    class Sink:
        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            arrived.append((loop.time(), data))

        def close(self) -> None:
            ended.set_result(None)

    began = loop.time()
    lane = Lane(loop, 0.01)
    lane.send(b"held", earliest=began + 0.03)
    lane.send(b"behind")
    lane.send(None)
    lane.lead_to(Sink())  # type: ignore[arg-type]
    await ended
    assert [data for _, data in arrived] == [b"held", b"behind"]
    assert arrived[0][0] >= began + 0.03
