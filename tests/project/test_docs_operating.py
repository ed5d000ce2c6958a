"""What docs/operating.md says of names is true: metrics, fields of the log, signals, ids."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from proxy.http.request_id import request_id
from proxy.observability.exchange_log import AccessLog, ExchangeRecord, json_line
from proxy.observability.metrics import exposition
from tests.support.metrics import standing, tally_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operating.md").read_text()


def section(title: str) -> str:
    """What stands under a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def labels_in_use() -> dict[str, set[str]]:
    """Of each metric the labels of its samples, where something of every kind has happened."""
    token = {"name": "token", "credential": {"fetches": 1, "failures": 1, "age_seconds": 3.0}}
    happened = [
        ExchangeRecord("api", "GET", "/", status=200),
        ExchangeRecord("api", "GET", "/", status=200, outcome="client-left"),
        ExchangeRecord("api", "GET", "/", status=502, outcome="connection_refused"),
        ExchangeRecord("api", "GET", "/", websocket=True, status=101),
    ]
    for one in happened:
        one.first_byte = one.duration = 0.1
        one.sent = one.received = 1
    said = standing(tally_of(*happened), strategies=[token], in_flight=1)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition(said).decode()):
        assert family.samples, family.name
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = set().union(*(one.labels for one in family.samples)) - {"le"}
    return found


def test_the_table_of_metrics_is_what_is_exposed() -> None:
    """Each metric with the labels that it has, and none that is not."""
    documented = {
        name: set(filter(None, labels.split(", ")))
        for names, labels, _ in rows("Metrics")
        for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == labels_in_use()


def test_histograms_are_called_so() -> None:
    """And nothing else is."""
    said = exposition(standing(tally_of())).decode()
    types = {one.name: one.type for one in text_string_to_metric_families(said)}
    documented = {
        name
        for names, _, text in rows("Metrics")
        for name in re.findall(r"`(\w+)`", names)
        if "(histogram)" in text
    }
    assert documented == {name for name, kind in types.items() if kind == "histogram"}


def test_the_fields_of_a_line_are_those_of_the_table() -> None:
    """In their order."""
    written: list[str] = []
    AccessLog(written.append, json_line)([ExchangeRecord("api", "GET", "/")])
    documented = [name for names, _ in rows("Logs") for name in re.findall(r"`(\w+)`", names)]
    assert documented == list(json.loads(written[0]))


def test_the_characters_of_a_request_id_are_those_that_count() -> None:
    """Every one that is named, and no other printable one."""
    [line] = [one for one in section("Request ids").split("\n- ") if "counts if it is" in one]
    named = set(re.findall(r"`(.)`", line)) | set(string.ascii_letters + string.digits)
    assert named == {one for one in string.printable if request_id(one) == one}
    [least, most] = map(int, re.findall(r"\b(\d+) to (\d+) letters", line)[0])
    assert [len(request_id("a" * count)) == count for count in (least, most)] == [True, True]
    assert request_id("a" * (most + 1)) != "a" * (most + 1)


def test_links_lead_somewhere() -> None:
    """To a page that there is, and a heading in it."""
    for page, anchor in re.findall(r"\]\(([\w.-]*)#?([\w-]*)\)", PAGE):
        text = (Path(__file__).parents[2] / "docs" / (page or "operating.md")).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
        assert not anchor or anchor in anchors, (page, anchor)
