"""Read YAML as plain data, with the line and column of every key and value.

Safe by construction: constructs only mappings, lists and scalars; refuses tags, merge keys and
duplicate keys; bounds depth and size. A file can neither run code nor exhaust memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.resolver import Resolver

from proxy.config import yaml_mistakes
from proxy.errors import Finding

if yaml.__with_libyaml__:
    from yaml._yaml import CParser

NODE_LIMIT = 20_000
"""Maximum keys and values after alias expansion: some hundred times a real file."""

DEPTH_LIMIT = 32
"""Maximum nesting of mappings and lists; the settings need nine levels."""

Path: TypeAlias = tuple[str | int, ...]
Position: TypeAlias = tuple[int, int]

_TAG = "tag:yaml.org,2002:"
_COMMENT_LINE = re.compile(r"^ *#.*$", re.MULTILINE)
# Where libyaml accepts what PyYAML refuses, or has another position for it.
_PARSED_OTHERWISE = re.compile(
    r"[^\n -~]|[!%|>]|---|:\s+[],}#]|\.\.\.|:\S*:(?:\s|$)|(?:^|\s)\?|\?(?:\s|$)"
)
_FLOW_CHARACTERS = frozenset("[]{}")
# Keys that messages may quote. Without digits: API keys contain digits.
_DISPLAYABLE = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")


def display_key(key: object) -> str:
    """Return a key for a message; "this key" if it may be a misplaced secret."""
    return f'"{key}"' if isinstance(key, str) and _DISPLAYABLE.fullmatch(key) else "this key"


@dataclass(slots=True)
class Document:
    """The data of a file, the positions of its keys and values, and the findings.

    ``data`` holds all that could be read; it is None, with ``findings``, if nothing could be.
    """

    file: str
    data: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    _added: set[Finding] = field(default_factory=set)

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Return line and column of the value at ``path`` or of its key, else of its parent."""
        while path not in self.values:
            if not path:
                return 1, 1
            path = path[:-1]
        return self.keys.get(path, self.values[path]) if key else self.values[path]

    def add(self, position: Position, message: str, advice: str = "") -> None:
        """Add a finding once: aliases can reach the same position several times."""
        finding = Finding(self.file, *position, message, advice)
        if finding not in self._added:
            self._added.add(finding)
            self.findings.append(finding)


class _Unreadable(Exception):
    """The rest of the file cannot be read; the finding has been added."""


def read_yaml(text: str, file: str) -> Document:
    """Read one YAML document. Never raises for any ``text``: see ``Document.findings``."""
    if yaml.__with_libyaml__ and is_plain(text):
        document = Document(file)
        # Only a fault is worth the other parser, whose messages have an explanation.
        with suppress(YAMLError, ValueError, OverflowError, _Unreadable):
            node = _FastLoader(text, document).get_single_node()
            if node is not None:
                document.data = _Reader(document).read(node, ())
                if not document.findings:
                    return document
    return read_slowly(text, file)


def is_plain(text: str) -> bool:
    """Whether both parsers read ``text`` alike: they differ in tabs, ?, block scalars and such."""
    rest = _COMMENT_LINE.sub("", text)
    if not text.replace("\n", "").isprintable() or _PARSED_OTHERWISE.search(rest):
        return False
    # A ? is an ordinary character outside brackets.
    return "?" not in rest or not any(
        line.count("[") != line.count("]")
        or line.count("{") != line.count("}")
        or ("?" in line and not _FLOW_CHARACTERS.isdisjoint(line))
        for line in rest.splitlines()
    )


def read_slowly(text: str, file: str) -> Document:
    """Read one YAML document with PyYAML's own parser."""
    document = Document(file)
    loader: _Loader | None = None
    try:
        loader = _Loader(text, document)
        node = loader.get_single_node()
        if node is None:
            document.add((1, 1), "the file is empty", "write routes: and a route below it")
        else:
            document.data = _Reader(document).read(node, ())
    except _Unreadable:
        document.data = None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        document.add((line, column), "invalid control character", "remove it")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or ""
        message, advice = yaml_mistakes.of_problem(problem) or (
            _without_values(problem),
            "check the indentation, the space after each colon, and quotes",
        )
        if "not closed" in message and error.context_mark is not None:
            mark = error.context_mark  # where it was opened
        document.add(_position(mark) if mark else (1, 1), f"invalid YAML: {message}", advice)
    except (ValueError, OverflowError):
        # PyYAML passes on the error of chr() for an escape such as "\Uffffffff".
        position = _position(loader.get_mark()) if loader else (1, 1)
        document.add(position, "the escape is no valid character", "remove the backslash")
    return document


def _without_values(problem: str) -> str:
    """Remove what PyYAML's message quotes from the file; its own terms are in <>."""
    return re.sub(r"'[^']{2,}'", lambda m: m[0] if m[0].startswith("'<") else "…", problem)


def _position(mark: Mark) -> Position:
    return mark.line + 1, mark.column + 1


class _Composer(Composer):
    """Composes nodes; refuses tags, excessive depth and size before construction."""

    _document: Document
    _depth = 0
    _count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[attr-defined]
        position = _position(event.start_mark)
        if getattr(event, "tag", None) is not None:
            self._document.add(
                position, "tags are not allowed here", "remove the word that begins with !"
            )
        self._count += 1
        if self._count > NODE_LIMIT:
            self._document.add(
                position,
                f"the file has more than {NODE_LIMIT} keys and values",
                "check that this is the right file",
            )
            raise _Unreadable
        if self._depth >= DEPTH_LIMIT:
            self._document.add(
                position,
                f"the file is nested more than {DEPTH_LIMIT} levels deep",
                "no setting needs that; check for an extra bracket",
            )
            raise _Unreadable
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Loader(_Composer, yaml.SafeLoader):
    """PyYAML's own parser, with the messages that ``yaml_mistakes`` explains."""

    def __init__(self, text: str, document: Document) -> None:
        yaml.SafeLoader.__init__(self, text)
        self._document = document


if yaml.__with_libyaml__:

    class _FastLoader(_Composer, CParser, Resolver):
        """The same with libyaml's parser, several times as fast."""

        def __init__(self, text: str, document: Document) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)
            self._document = document


class _Reader:
    """Constructs plain data from nodes."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._scalars = SafeConstructor()

    def read(self, node: Node, path: Path) -> Any:
        position = _position(node.start_mark)
        self._count_one(position, path)
        self._document.values[path] = position
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(node)

    def _count_one(self, position: Position, path: Path) -> None:
        """Bound the number of nodes, keys included, and the depth: an alias can be recursive."""
        self._count += 1
        if self._count > NODE_LIMIT or len(path) > DEPTH_LIMIT:
            self._document.add(
                position,
                f"with its aliases expanded the file has more than {NODE_LIMIT} keys and values "
                f"or {DEPTH_LIMIT} levels",
                "write the values out instead of using & and *",
            )
            raise _Unreadable

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node.start_mark)
            self._count_one(position, path)
            key = self._key(key_node, position)
            if key is None:
                continue
            if key in data:
                line = self._document.keys[*path, key][0]
                self._document.add(
                    position,
                    f"duplicate key {display_key(key)}",
                    f"the first is in line {line}",
                )
                continue
            self._document.keys[*path, key] = position
            data[key] = self.read(value_node, (*path, key))
        return data

    def _key(self, node: Node, position: Position) -> str | None:
        if isinstance(node, ScalarNode) and node.tag == _TAG + "merge":
            self._document.add(
                position, "merge keys (<<) are not allowed here", "write the values out"
            )
            return None
        # Timestamps and = are read as strings; only numbers, booleans and null are refused.
        key = self._scalar(node) if isinstance(node, ScalarNode) else None
        if not isinstance(key, str):
            self._document.add(position, "a key must be a string", "put it in quotes")
            return None
        return key

    def _scalar(self, node: ScalarNode) -> Any:
        text: str = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._document.add(
                _position(node.start_mark), "the escape is half a surrogate pair", "remove it"
            )
            return ""
        makers: dict[str, Callable[[ScalarNode], Any]] = {
            _TAG + "null": lambda _: None,
            _TAG + "bool": self._scalars.construct_yaml_bool,
            _TAG + "int": self._scalars.construct_yaml_int,
            _TAG + "float": self._scalars.construct_yaml_float,
        }
        make = makers.get(node.tag)
        if make is None:
            return text
        try:
            return make(node)
        except (ValueError, OverflowError, KeyError, IndexError):
            self._document.add(_position(node.start_mark), "invalid number", "put it in quotes")
            return text
