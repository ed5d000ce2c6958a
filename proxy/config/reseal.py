"""New keys for the sealed values of a routes file. Everything else of it stays as it is.

The YAML is edited as text, at the places that the parser names: comments, quotes, line ends and
order are the user's. All values or none.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.config import loader
from proxy.config.files import read_text
from proxy.config.settings import Settings
from proxy.errors import ConfigError, Finding, KeyrelayError
from proxy.secrets.envelope import SealBinding, parse_envelope, place_of
from proxy.secrets.sealing import Keys, PublicKey, UnsealError

_SCHEME = "sealed:"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many values are sealed anew, and how many had that key already."""

    changed: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A sealed value of the file: its text, where that stands, and what it is used for."""

    text: str
    node: ScalarNode
    route: str
    slot: str
    prefix: str  # what of the text does not stand there: ``sealed:`` if that is the key

    @property
    def written(self) -> str:
        """What of the text stands there."""
        return self.text.removeprefix(self.prefix)


def reseal(path: Path, keys: Keys, to: PublicKey) -> Resealed:
    """Open every sealed value of a routes file and seal it to ``to``, in place. Blocking.

    Raises ConfigError with a finding for each that does not open, or for whatever is wrong with the
    file; then nothing has been written. Raises KeyrelayError if it cannot be written. The file is
    replaced in one step and keeps its mode and owner; a link to it stays a link.
    """
    text = read_text(path)
    settings = loader.load_text(text, str(path), path.parent)
    edits: dict[int, tuple[int, str]] = {}
    findings: list[Finding] = []
    kept = set()
    for found in _sealed(text):
        try:
            offset = _offset(found, text)
            fresh = _fresh(found, settings, keys, to)
        except UnsealError as error:
            mark = found.node.start_mark
            findings.append(
                Finding(
                    str(path),
                    mark.line + 1,
                    mark.column + 1,
                    f'the secret "{found.slot}" of "{found.route}" cannot be sealed anew',
                    str(error),
                )
            )
            continue
        if fresh is None:
            kept.add(offset)
        else:
            edits[offset] = (len(found.written), fresh.removeprefix(found.prefix))
    if findings:
        raise ConfigError(findings)
    if edits:
        _replace(path, _edited(text, edits))
    return Resealed(len(edits), len(kept))


def _offset(found: _Found, text: str) -> int:
    """Where in the file the text begins. Raises UnsealError if YAML has put it together."""
    offset = text.find(found.written, found.node.start_mark.index, found.node.end_mark.index)
    if offset < 0:
        raise UnsealError("write the sealed value in one line, without escapes")
    return offset


def _fresh(found: _Found, settings: Settings, keys: Keys, to: PublicKey) -> str | None:
    """The value sealed anew; None if it has that key already. Raises UnsealError."""
    route = settings.routes.get(found.route)
    if route is None or route.upstream is None:
        raise UnsealError("use another source here: only secrets of routes can be sealed")
    place: SealBinding = place_of(found.route, route.upstream)
    envelope = parse_envelope(found.text)
    value = keys.open(envelope, place, found.slot)
    return None if envelope.key_id == to.key_id else str(to.seal(value, place, found.slot))


def _edited(text: str, edits: dict[int, tuple[int, str]]) -> str:
    pieces, position = [], 0
    for offset, (length, fresh) in sorted(edits.items()):
        pieces += [text[position:offset], fresh]
        position = offset + length
    return "".join([*pieces, text[position:]])


def _sealed(text: str) -> Iterator[_Found]:
    """Every sealed value of a text that the loader has found no fault with."""
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
    """The sealed values among the references of one secret, in any of its forms."""
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
    """Put another text in a file's place, in one step. Raises KeyrelayError."""
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with target.open("rb") as old:
            marked = old.read(len(_BOM)) == _BOM
            status = os.fstat(old.fileno())
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as new:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(new.fileno(), status.st_uid, status.st_gid)
            os.fchmod(new.fileno(), status.st_mode & 0o7777)
            new.write((_BOM if marked else b"") + text.encode("utf-8"))
            new.flush()
            os.fsync(new.fileno())
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None
