"""Patterns for methods and paths: ``POST /v1/speech``, ``GET /v1/**``, ``/voices/*``.

``*`` matches any characters within one segment, ``**`` any number of segments, also none. The path
is the part after the route's prefix, percent-encoded as received. Two tests err on opposite sides:

matches   for ``allow`` and for the paths of a strategy. Each segment is decoded once and compared
          exactly; an encoded slash is no separator. A path with dot segments matches nothing.
catches   for ``deny``. Every interpretation that a server might make of the path is tried: encoded
          once or many times, in other case, with doubled slashes, backslashes, path parameters.

Each set is one regular expression whose time is bounded by the square of the path's length:
segments are atomic, because a segment can end at its slash only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote_to_bytes

from proxy.errors import ConfigValueError
from proxy.http.abnf import METHOD

# Outside latin-1, so that no decoded byte can equal it.
_INNER_SLASH = "\u2215"
_LENGTH_LIMIT = 1024  # characters; no route of a real API comes near it
# No legitimate client encodes a path more often; deeper encoding is caught without decoding it.
_DEPTH_LIMIT = 6
_END = r"(?=/|\Z)"
_HEX = frozenset("0123456789abcdefABCDEF")
# A path with a single interpretation, so that the usual request costs one match.
_ORDINARY = re.compile(r"(?:/[A-Za-z0-9_~:@-][A-Za-z0-9_.~:@-]*)+/?")

_Piece = Callable[[str], str]


def check_pattern(text: str) -> None:
    """Raise ValueError if ``text`` is no pattern; line two of the message is the correction."""
    _split(text)


class PatternSet:
    """Compiled patterns. An empty set is falsy; it matches nothing and catches nothing."""

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
        """Whether a pattern forbids the request under any interpretation of its path."""
        return self.find_catch(method, path) is not None

    def find_match(self, method: str, path: str) -> str | None:
        """The pattern that allows the request, as configured; None if there is none."""
        if not self.texts or _has_dots(path):
            return None
        found = self._matching.fullmatch(f"{method} {_decoded(path or '/')}")
        return self.texts[found.lastindex - 1] if found and found.lastindex else None

    def find_catch(self, method: str, path: str) -> str | None:
        """The pattern that forbids the request, as configured; None if there is none."""
        if not self.texts:
            return None
        for interpretation in _interpretations(path or "/"):
            if interpretation is None:
                return self.texts[0]
            found = self._catching.fullmatch(f"{method.upper()} {interpretation}")
            if found and found.lastindex:
                return self.texts[found.lastindex - 1]
        return None


def _split(text: str) -> tuple[str, str]:
    """Method (empty: any) and path of a pattern. Raises ValueError."""
    method, space, path = text.partition(" ")
    if not space:
        method, path = "", text
    if not path.startswith("/"):
        raise ConfigValueError(
            "a pattern is a path, or a method and a path",
            "write for example /v1/** or GET /v1/voices",
        )
    if method and not METHOD.fullmatch(method):
        raise ConfigValueError(
            "the method is written in capitals", "write for example POST /v1/speech"
        )
    if len(text) > _LENGTH_LIMIT:
        raise ConfigValueError(f"a pattern has at most {_LENGTH_LIMIT} characters", "use * or **")
    if re.search(r"[?#\\\s]", path) or not path.isprintable():
        raise ConfigValueError(
            "a pattern has neither spaces nor query nor backslash",
            "write the path alone; percent-encode such characters",
        )
    segments = path.split("/")[1:]
    if any("**" in segment and segment != "**" for segment in segments):
        raise ConfigValueError("** is a whole segment", "write /v1/** for everything below /v1")
    if _has_dots(path):
        raise ConfigValueError("a pattern has no dot segments", "write the path it leads to")
    return method, path


def _latin(text: str) -> str:
    """One character per byte, as percent-decoding produces."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def _unquote(text: str) -> str:
    """Percent-decode once; ``text`` has one character per byte."""
    return unquote_to_bytes(text.encode("latin-1")).decode("latin-1")


def _fully_decoded(text: str) -> str:
    """Percent-decode until no escape is left, in one pass: an escape is decoded once complete."""
    if "%" not in text:
        return text
    done: list[str] = []
    for character in text:
        done.append(character)
        while len(done) > 2 and done[-3] == "%" and {done[-2], done[-1]} <= _HEX:
            done[-3:] = [chr(int(done[-2] + done[-1], 16))]
    return "".join(done)


def _decoded_piece(text: str) -> str:
    """A segment, or a part of one, in the form that ``matches`` compares."""
    return _unquote(_latin(text)).replace("/", _INNER_SLASH)


def _plain_piece(text: str) -> str:
    """A segment, or a part of one, in the form that ``catches`` compares."""
    return _fully_decoded(_latin(text)).replace("/", _INNER_SLASH).lower()


def _decoded(path: str) -> str:
    """Decode each segment once; a decoded slash is no separator."""
    if "%" not in path and path.isascii():
        return path
    return "/".join(map(_decoded_piece, path.split("/")))


def _interpretations(path: str) -> Iterator[str | None]:
    """Every path that a server could derive. None: encoded more often than _DEPTH_LIMIT.

    A server decodes a path zero, one or several times before it splits at slashes, so escapes are
    decoded layer by layer; the segments of each layer are decoded fully. For each layer,
    backslashes, doubled slashes, dot segments and parameters are tried both ways.
    """
    if _ORDINARY.fullmatch(path):
        yield path.rstrip("/").lower()
        return
    layer = _latin(path)
    for _ in range(_DEPTH_LIMIT):
        for variant in dict.fromkeys((layer, layer.replace("\\", "/"))):
            plain = [_plain_piece(segment) for segment in variant.split("/")]
            # A decoded delimiter may end the path for a server that parses the target twice.
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
    """The path without empty segments and dot segments."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept)


def _has_dots(path: str) -> bool:
    """Whether any decoding of the path has a dot segment."""
    if "." not in path and "%" not in path:
        return False
    parts = re.split(r"[/\\;]", _fully_decoded(_latin(path)))
    return "." in parts or ".." in parts


def _compile(patterns: Iterable[tuple[str, str]], piece: _Piece) -> re.Pattern[str]:
    """One regular expression with a group per pattern, over ``METHOD /path``."""
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
    # The earliest match of a middle run leaves most to the rest, so no other is tried.
    middles = "".join(f"(?>(?:/[^/]*)*?{run})" for run in middle if run)
    return first + middles + (f"(?:/[^/]*)*{last}" if last else "(?:/.*)?")


def _segment_part(segment: str, piece: _Piece) -> str:
    """Split at ``*`` before decoding: an encoded star is a literal star, not a wildcard."""
    first, *others = (re.escape(piece(part)) for part in segment.split("*"))
    if others:
        *middle, last = others
        first += "".join(f"(?>[^/]*?{part})" for part in middle if part) + f"[^/]*{last}"
    return f"(?>{first}{_END})"
