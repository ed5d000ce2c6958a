from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import document as documents
from proxy.config.document import NODE_LIMIT, display_key, read_yaml


def said(text: str) -> str:
    return "\n".join(map(str, read_yaml(text, "f").findings))


def test_every_key_and_value_has_its_place() -> None:
    """Places count from 1 and are those of the key and of the value."""
    document = read_yaml("a:\n  - b: 1\n    c: [x, yy]\n", "f")
    assert document.data == {"a": [{"b": 1, "c": ["x", "yy"]}]}
    assert document.position(("a",), key=True) == (1, 1)
    assert document.position(("a", 0)) == (2, 5)
    assert document.position(("a", 0, "c"), key=True) == (3, 5)
    assert document.position(("a", 0, "c", 1)) == (3, 12)
    assert document.position(("a", 0, "c", 7, "z")) == (3, 8)
    assert document.findings == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1:1: the file is empty"),
        ("# nothing\n", "f:1:1: the file is empty"),
        ("a: 1\nb: 2\na: 3\n", 'f:3:1: duplicate key "a"'),
        ("a: [1, 2", "f:1:4: invalid YAML: a brace or bracket is not closed"),
        ("a: b: c", "f:1:5: invalid YAML: a second colon in the line"),
        ("a: 1\n---\nb: 2\n", "f:2:1: invalid YAML: --- begins a second document"),
        ("a: !!python/object:os.system {}", "f:1:4: tags are not allowed"),
        ("!x a: 1", "f:1:1: tags are not allowed"),
        ("a: !!str 5", "f:1:4: tags are not allowed"),
        ("1: a", "f:1:1: a key must be a string"),
        ("? [a]\n: b", "f:1:3: a key must be a string"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "f:3:3: merge keys"),
        ("a: \x07", "f:1:4: invalid control character"),
        ("a\nb: \x00", "f:2:4: invalid control character"),
        ('a: "\\Uffffffff"', "the escape is no valid character"),
        ('a: "\\ud800"', "f:1:4: the escape is half a surrogate pair"),
        ("a: 0b_", "f:1:4: invalid number"),
        ("a: " + "9" * 5000, "f:1:4: invalid number"),
        ("[" * 100_000, "f:1:33: the file is nested"),
        ("- " * 100, "f:1:65: the file is nested"),
        ("a: &a [*a]", "f:1:4: with its aliases expanded"),
        ("a: *nothing-secret", "undefined alias"),
    ],
)
def test_what_cannot_be_read_is_a_finding_with_its_place(text: str, expected: str) -> None:
    """Each thing that is not allowed in a configuration is said where it stands."""
    assert expected in said(text)
    assert "secret" not in said(text)


def test_aliases_cannot_blow_up_memory() -> None:
    """Nine aliases of nine each, nine deep, end at the limit and not at the end of memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert f"more than {NODE_LIMIT} keys" in said("\n".join(lines))


@pytest.mark.parametrize("line", ["a: b\n", "- !x y\n", "- z\n"])
def test_a_file_with_too_much_in_it_is_refused(line: str) -> None:
    """A file that repeats itself without end costs no more than the limit."""
    document = read_yaml(line * NODE_LIMIT, "f")
    assert document.data is None
    assert f"more than {NODE_LIMIT} keys and values" in str(document.findings[-1])


def test_a_plain_alias_is_read() -> None:
    """Small repetitions may be written with an alias."""
    document = read_yaml("a: &x [1]\nb: *x\n", "f")
    assert (document.data, document.findings) == ({"a": [1], "b": [1]}, [])


def test_reading_goes_on_after_a_finding() -> None:
    """What can be read is there although something else could not."""
    document = read_yaml("a: 1\na: 2\nb: !x y\nc: 3\n", "f")
    assert document.data == {"a": 1, "b": "y", "c": 3}
    assert len(document.findings) == 2


@pytest.mark.parametrize("key", ["sk-dummy1234", "api_key:dummy", "a b", "", "x" * 40, 5, None])
def test_what_may_be_a_secret_is_not_shown(key: object) -> None:
    """Only what looks like a key of ours, a word without digits, is repeated in a message."""
    assert display_key(key) == "this key"
    assert display_key("lisen") == '"lisen"'


@given(st.text(st.sampled_from("ab:{}[]-,#&*!|>'\"%@` \n\t?<=1.0~\\Uu\x00é\ud800")))
def test_no_text_makes_reading_fail(text: str) -> None:
    """Whatever a file holds, reading ends with data or with findings."""
    document = read_yaml(text, "f")
    assert document.data is not None or document.findings or yaml.safe_load(text) is None
    for finding in document.findings:
        assert finding.line >= 1
        assert finding.column >= 1


_PARTS = st.sampled_from(
    [
        *" \t\n:-?,[]{}#&*!|>'\"%@`~ab1.\\\x85\u2028\ufeffé=<",
        *(": ", "- ", "\n  ", "\n- ", "a: ", "b: {", "c: [", "---\n", "<<: ", "? ", "|\n", "&a "),
        *("*a", "!!str ", "{a: b:c}", "[a:: ]", "'a''b'", '"a\\\n b"', "GET /v1?a=1", "https://a"),
        *("# note\n", "key: value\n", "list:\n  - one\n", "{env: NAME}\n", "a: 1\na: 2\n", "null"),
    ]
)


@given(st.lists(_PARTS, max_size=14).map("".join))
def test_both_parsers_read_the_same(text: str) -> None:
    """Data, positions and findings do not depend on whether libyaml is there."""
    assert read_yaml(text, "f") == documents.read_slowly(text, "f")


@pytest.mark.parametrize("path", sorted(Path("proxy/providers").glob("*.yaml")), ids=str)
def test_shipped_files_are_read_by_libyaml_and_alike(path: Path) -> None:
    """A preset is read by the fast parser where it is there, with the same positions."""
    text = path.read_text(encoding="utf-8")
    assert documents.is_plain(text)
    assert read_yaml(text, str(path)) == documents.read_slowly(text, str(path))
