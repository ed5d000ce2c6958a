"""Reseal the sealed values of a routes file to another key, and change nothing else.

Edits the YAML as text at the positions of the parsed values: comments, quotes, line ends and order
are preserved. All values or none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.config import loader
from proxy.config.files import read_text
from proxy.config.settings import Settings
from proxy.errors import ConfigError, Finding, KeyrelayError
from proxy.secrets import private_file
from proxy.secrets.envelope import SealBinding, parse_envelope, seal_binding
from proxy.secrets.sealing import Keys, PublicKey, UnsealError

_SCHEME = "sealed:"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Resealed:
    """The number of resealed values, and of those that had the key already."""

    changed: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A sealed value of the file: its text, its node, and its route and secret name."""

    text: str
    node: ScalarNode
    route: str
    slot: str
    prefix: str  # part of the text that is not in the node: ``sealed:`` if that is the key

    @property
    def written(self) -> str:
        """The part of the text that is in the file."""
        return self.text.removeprefix(self.prefix)


def reseal(path: Path, keys: Keys, to: PublicKey) -> Resealed:
    """Open every sealed value of a routes file and seal it to ``to``, in place. Blocking.

    Raises ConfigError with a finding for each value that does not open and each error of the file;
    nothing is written then. Raises KeyrelayError if the file cannot be written. The replacement is
    atomic and keeps mode and owner; a symbolic link to the file stays a link.
    """
    text = read_text(path)
    settings = loader.load_text(text, str(path), path.parent)
    edits: dict[int, tuple[int, str]] = {}
    findings: list[Finding] = []
    kept = set()
    for found in _sealed(text):
        try:
            offset = _offset(found, text)
            resealed = _resealed(found, settings, keys, to)
        except UnsealError as error:
            mark = found.node.start_mark
            findings.append(
                Finding(
                    str(path),
                    mark.line + 1,
                    mark.column + 1,
                    f'the secret "{found.slot}" of "{found.route}" cannot be resealed',
                    str(error),
                )
            )
            continue
        if resealed is None:
            kept.add(offset)
        else:
            edits[offset] = (len(found.written), resealed.removeprefix(found.prefix))
    if findings:
        raise ConfigError(findings)
    if edits:
        _replace(path, _edited(text, edits))
    return Resealed(len(edits), len(kept))


def _offset(found: _Found, text: str) -> int:
    """Return the offset of the text in the file. Raises UnsealError for folded or escaped text."""
    offset = text.find(found.written, found.node.start_mark.index, found.node.end_mark.index)
    if offset < 0:
        raise UnsealError("write the sealed value in one line, without escapes")
    return offset


def _resealed(found: _Found, settings: Settings, keys: Keys, to: PublicKey) -> str | None:
    """Return the resealed value; None if it has that key already. Raises UnsealError."""
    route = settings.routes.get(found.route)
    if route is None or route.upstream is None:
        raise UnsealError("use another source here: only secrets of routes can be sealed")
    binding: SealBinding = seal_binding(found.route, route.upstream)
    envelope = parse_envelope(found.text)
    value = keys.open(envelope, binding, found.slot)
    return None if envelope.key_id == to.key_id else str(to.seal(value, binding, found.slot))


def _edited(text: str, edits: dict[int, tuple[int, str]]) -> str:
    pieces, position = [], 0
    for offset, (length, replacement) in sorted(edits.items()):
        pieces += [text[position:offset], replacement]
        position = offset + length
    return "".join([*pieces, text[position:]])


def _sealed(text: str) -> Iterator[_Found]:
    """Yield every sealed value of a text that the loader has accepted."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in _items(root):
        if key == "inbound_token":
            yield from _sealed_in(value, "", key)
        elif key == "routes":
            for route, settings in _items(value):
                for name, held in _items(settings):
                    if name == "secrets":
                        for slot, secret in _items(held):
                            yield from _sealed_in(secret, route, slot)


def _sealed_in(node: Node, route: str, slot: str, prefix: str = "") -> Iterator[_Found]:
    """Yield the sealed values among the references of one secret, in any of its forms."""
    if isinstance(node, ScalarNode):
        text = prefix + node.value
        if text.startswith(_SCHEME):
            yield _Found(text, node, route, slot, prefix)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _sealed_in(item, route, slot)
    else:
        for key, value in _items(node):
            if key in {"sealed", "references"}:
                yield from _sealed_in(value, route, slot, _SCHEME if key == "sealed" else "")


def _items(node: Node | None) -> Iterator[tuple[str, Node]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key.value, value


def _replace(path: Path, text: str) -> None:
    """Replace the content of a file atomically. Raises KeyrelayError."""
    target = path.resolve()
    try:
        with target.open("rb") as old:
            marked = old.read(len(_BOM)) == _BOM
            status = os.fstat(old.fileno())
        data = (_BOM if marked else b"") + text.encode("utf-8")
        private_file.replace(target, data, like=status)
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None
