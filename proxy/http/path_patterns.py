"""Patterns for methods and paths: ``POST /v1/speech``, ``GET /v1/**``, ``/voices/*``.

``*`` stands for any characters of one segment, ``**`` for any number of segments, also none. The
path is what follows the route's prefix, percent-encoded as it came. Two questions are asked of it,
and they lean to opposite sides:

matches   for ``allow`` and for the paths of a strategy. Each segment is decoded once and compared
          exactly; an encoded slash never parts segments. A path with dot segments matches nothing.
catches   for ``deny``. Every reading that some server might make of the path is tried: encoded
          once or many times, in other case, with doubled slashes, backslashes, path parameters.

Each set is one regular expression whose time is bounded by the square of the path's length:
segments are atomic, because a segment can only end where its slash is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote_to_bytes

from proxy.errors import ConfigValueError

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
# Outside latin-1, so that no decoded byte can be mistaken for it.
_INNER_SLASH = "\u2215"
_LENGTH_LIMIT = 1024  # characters; no route of a real API comes near it
# Nobody encodes this often in earnest; what does is caught rather than read on.
_DEPTH_LIMIT = 6
_END = r"(?=/|\Z)"
_HEX = frozenset("0123456789abcdefABCDEF")
# A path that has one reading only, so that the usual request costs one match.
_ORDINARY = re.compile(r"(?:/[A-Za-z0-9_~:@-][A-Za-z0-9_.~:@-]*)+/?")

_Piece = Callable[[str], str]


def check_pattern(text: str) -> None:
    """Raise ValueError if ``text`` is no pattern; line two of the message says what to write."""
    _split(text)


class PatternSet:
    """Compiled patterns. Falsy if there are none; then nothing matches and nothing is caught."""

    __slots__ = ("_catching", "_matching", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        parsed = [_split(text) for text in self.texts]
        self._matching = _compile(parsed, _decoded_piece)
        self._catching = _compile(
            [(method, path.rstrip("/") or "/") for method, path in parsed], _plain_piece
        )

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __repr__(self) -> str:
        return f"PatternSet({self.texts!r})"

    def matches(self, method: str, path: str) -> bool:
        """Whether a pattern allows the request."""
        return self.find_match(method, path) is not None

    def catches(self, method: str, path: str) -> bool:
        """Whether a pattern forbids the request in any reading of its path."""
        return self.find_catch(method, path) is not None

    def find_match(self, method: str, path: str) -> str | None:
        """The pattern that allows the request, as it was written; None if there is none."""
        if not self.texts or _has_dots(path):
            return None
        found = self._matching.fullmatch(f"{method} {_decoded(path or '/')}")
        return self.texts[found.lastindex - 1] if found and found.lastindex else None

    def find_catch(self, method: str, path: str) -> str | None:
        """The pattern that forbids the request, as it was written; None if there is none."""
        if not self.texts:
            return None
        for reading in _readings(path or "/"):
            if reading is None:
                return self.texts[0]
            found = self._catching.fullmatch(f"{method.upper()} {reading}")
            if found and found.lastindex:
                return self.texts[found.lastindex - 1]
        return None


def _split(text: str) -> tuple[str, str]:
    """Method (empty: any) and path of a pattern."""
    method, blank, path = text.partition(" ")
    if not blank:
        method, path = "", text
    if not path.startswith("/"):
        raise ConfigValueError(
            "a pattern is a path, or a method and a path",
            "write for example /v1/** or GET /v1/voices",
        )
    if method and not _METHOD.fullmatch(method):
        raise ConfigValueError(
            "the method is written in capitals", "write for example POST /v1/speech"
        )
    if len(text) > _LENGTH_LIMIT:
        raise ConfigValueError(f"a pattern has at most {_LENGTH_LIMIT} characters", "use * or **")
    if re.search(r"[?#\\\s]", path) or not path.isprintable():
        raise ConfigValueError(
            "a pattern has neither blanks nor query nor backslash",
            "write the path alone; percent-encode such characters",
        )
    segments = path.split("/")[1:]
    if any("**" in segment and segment != "**" for segment in segments):
        raise ConfigValueError("** is a whole segment", "write /v1/** for everything below /v1")
    if _has_dots(path):
        raise ConfigValueError("a pattern has no dot segments", "write the path it leads to")
    return method, path


def _latin(text: str) -> str:
    """One character per byte, as percent-decoding gives them too."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def _unquote(text: str) -> str:
    """Percent-decoded once; ``text`` has one character per byte."""
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1")


def _stable(text: str) -> str:
    """Decoded until nothing is left to decode, in one pass: an escape ends where it is complete."""
    if "%" not in text:
        return text
    done: list[str] = []
    for character in text:
        done.append(character)
        while len(done) > 2 and done[-3] == "%" and {done[-2], done[-1]} <= _HEX:
            done[-3:] = [chr(int(done[-2] + done[-1], 16))]
    return "".join(done)


def _decoded_piece(text: str) -> str:
    """A segment, or a part of one, as ``matches`` compares it."""
    return _unquote(_latin(text)).replace("/", _INNER_SLASH)


def _plain_piece(text: str) -> str:
    """A segment, or a part of one, as ``catches`` compares it."""
    return _stable(_latin(text)).replace("/", _INNER_SLASH).lower()


def _decoded(path: str) -> str:
    """Each segment decoded once; a slash that comes out of that is no separator."""
    if "%" not in path and path.isascii():
        return path
    return "/".join(map(_decoded_piece, path.split("/")))


def _readings(path: str) -> Iterator[str | None]:
    """Every path that a server could understand. None: encoded too often to be read in earnest.

    A server decodes none, one or several times before it looks for slashes, so the escapes are
    taken off layer by layer; within the segments of each layer everything is decoded. Whether it
    minds backslashes, doubled slashes, dot segments or parameters is asked of each layer.
    """
    if _ORDINARY.fullmatch(path):
        yield path.rstrip("/").lower()
        return
    layer = _latin(path)
    for _ in range(_DEPTH_LIMIT):
        for variant in dict.fromkeys((layer, layer.replace("\\", "/"))):
            plain = [_plain_piece(segment) for segment in variant.split("/")]
            # What an escape hid may end the path for a server that parses it a second time.
            cut = re.split(r"[?#\0]", "/".join(plain), maxsplit=1)[0].split("/")
            yield "/".join(plain).rstrip("/") or "/"
            yield _resolved(plain)
            yield _resolved([segment.partition(";")[0] for segment in cut])
        below = _unquote(layer)
        if below == layer:
            return
        layer = below
    yield None


def _resolved(segments: list[str]) -> str:
    """A path without empty segments and dot segments."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept)


def _has_dots(path: str) -> bool:
    """Whether any layer of the path has a segment that means another directory."""
    if "." not in path and "%" not in path:
        return False
    parts = re.split(r"[/\\;]", _stable(_latin(path)))
    return "." in parts or ".." in parts


def _compile(patterns: Iterable[tuple[str, str]], piece: _Piece) -> re.Pattern[str]:
    """One expression with a group per pattern, over ``METHOD /path``."""
    return re.compile(
        "|".join(
            f"({_method_part(method)} {_path_part(path, piece)})" for method, path in patterns
        ),
        re.DOTALL,
    )


def _method_part(method: str) -> str:
    if not method:
        return "[^ ]+"
    # RFC 9110 section 9.3.2: HEAD is GET without the content.
    return "(?:GET|HEAD)" if method == "GET" else re.escape(method)


def _path_part(path: str, piece: _Piece) -> str:
    runs: list[list[str]] = [[]]
    for segment in path.split("/")[1:]:
        if segment == "**":
            runs.append([])
        else:
            runs[-1].append(_segment_part(segment, piece))
    first, *others = ("".join(f"/{segment}" for segment in run) for run in runs)
    if not others:
        return first
    *middle, last = others
    # The earliest place where a middle run fits leaves most to the rest, so none other is tried.
    middles = "".join(f"(?>(?:/[^/]*)*?{run})" for run in middle if run)
    return first + middles + (f"(?:/[^/]*)*{last}" if last else "(?:/.*)?")


def _segment_part(segment: str, piece: _Piece) -> str:
    """``*`` is split off before decoding: an encoded star is a star, not a pattern."""
    first, *others = (re.escape(piece(part)) for part in segment.split("*"))
    if others:
        *middle, last = others
        first += "".join(f"(?>[^/]*?{part})" for part in middle if part) + f"[^/]*{last}"
    return f"(?>{first}{_END})"
