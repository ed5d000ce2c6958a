"""Blotting a credential out of what a provider sends back: ``*`` for each of its bytes.

An error page that repeats the request, a debug endpoint, a ``Location`` with the query in it: each
would hand the client what it is not meant to have. This is for the careless provider. One that
wants to tell the client a secret has all the codings of the world to do it in.

A byte is masked if and only if it belongs to an occurrence of a form of a value; occurrences may
overlap. So the outcome does not depend on how a text is cut into chunks.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn, final
from urllib.parse import quote_from_bytes

# Bytes. A shorter value would blot out ordinary words and numbers, so it is left alone.
SHORTEST: Final = 6

_HEAD = 4  # bytes by which the beginnings of forms are looked up; less than any form has
_ANCHOR = 32  # bytes of an anchor at most: longer ones are no rarer and take longer to look for
_PLAIN = re.compile(rb"[A-Za-z0-9._-]+")  # no coding of text touches these
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
# What is left as it is besides letters, digits and _.-~ : nothing (query values), slashes (Python),
# encodeURIComponent, forms, and all that RFC 3986 section 3.3 allows in a path.
_UNQUOTED = ("", "/", "!'()*", "*", "/:@!$&'()*+,;=")
# What writers of JSON escape although they need not: nothing, PHP, Go and Rails, Gson, .NET.
_JSON: tuple[dict[int, str], ...] = (
    {},
    {ord("/"): "\\/"},
    {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"},
    {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&='"},
    {ord(sign): f"\\u{ord(sign):04X}" for sign in "<>&+'`"},
)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # RFC 4648 section 5


@final
class Redactor:
    """The forms in which the values of one credential may come back. Falsy if there are none.

    Of each value: as it is, base64 and base64url at any alignment (so also inside the base64 of
    ``user:VALUE``), each of these percent-encoded or as JSON writes it; and hex. A digit of base64
    that the value shares with its neighbour stays. The whole of a Basic credential is masked if it
    is given as a value of its own. Made once per credential, not per answer: that takes a while.

    ``longest`` is the length of the longest form in bytes, 0 if there is none.
    """

    __slots__ = ("__groups", "__heads", "__starts", "longest")

    def __init__(self, values: Iterable[bytes]) -> None:
        groups: dict[bytes, set[bytes]] = {}
        for value in values:
            if len(value) >= SHORTEST:
                for core, forms in _families(value):
                    # Of binary values it may be empty: they take longer, that is all.
                    anchor = max(_PLAIN.findall(core), key=len, default=b"")[-_ANCHOR:]
                    groups.setdefault(anchor, set()).update(forms)
        every = set().union(*groups.values())
        heads: dict[bytes, list[bytes]] = {}
        for form in every:
            heads.setdefault(form[:_HEAD], []).append(form)
        # An anchor is in each form of its group, so most texts are done with after a few ``in``.
        self.__groups = tuple((anchor, tuple(forms)) for anchor, forms in groups.items())
        self.__heads = tuple((head, tuple(forms)) for head, forms in heads.items())
        self.__starts = frozenset(head[:length] for head in heads for length in range(1, _HEAD))
        self.longest = max(map(len, every), default=0)

    def __bool__(self) -> bool:
        return bool(self.__groups)

    def __repr__(self) -> str:
        return f"<masker of {sum(len(forms) for _, forms in self.__groups)} forms>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("maskers hold secrets and are not pickled or copied")

    def mask(self, data: bytes) -> bytes:
        """``data`` with every occurrence masked, as long as before; itself if there is none."""
        spans = self.spans(data)
        return _blotted(data, spans) if spans else data

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Start and end of every occurrence, in no order; they may overlap."""
        found = []
        for anchor, forms in self.__groups:
            if anchor in data:
                for form in forms:
                    at = data.find(form)
                    while at >= 0:
                        found.append((at, at + len(form)))
                        at = data.find(form, at + 1)
        return found

    def pending(self, data: bytes) -> int:
        """Where the longest end of ``data`` begins that an occurrence may begin with.

        ``len(data)`` if no end of it does: then nothing that follows can change it.
        """
        first = size = len(data)
        for head, forms in self.__heads:
            at = data.find(head, max(0, size - self.longest + 1))
            while 0 <= at < first:
                end = data[at:]
                if any(len(form) > len(end) and form.startswith(end) for form in forms):
                    first = at
                else:
                    at = data.find(head, at + 1)
        last = range(max(0, size - _HEAD + 1), first)
        return next((at for at in last if data[at:] in self.__starts), first)


@final
class StreamMasker:
    """A text that comes in chunks, masked as if it were one.

    Of what came, at most ``masker.longest - 1`` bytes are kept back, and only an end that may turn
    out to be the beginning of an occurrence; so an event leaves with its last chunk.
    """

    __slots__ = ("__covered", "__kept", "__masker")

    def __init__(self, redactor: Redactor) -> None:
        self.__masker = redactor
        self.__kept = b""
        self.__covered = 0  # bytes of what is kept that an earlier occurrence reaches into

    def __repr__(self) -> str:
        return f"<stream masker keeping {len(self.__kept)} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("maskers hold secrets and are not pickled or copied")

    def feed(self, data: bytes) -> bytes:
        """What can go out now; empty if all of it may have to be masked."""
        text = self.__kept + data if self.__kept else data
        return self.__release(text, self.__masker.pending(text))

    def finish(self) -> bytes:
        """The rest, when nothing follows. Afterwards another text may begin."""
        return self.__release(self.__kept, len(self.__kept))

    def __release(self, text: bytes, end: int) -> bytes:
        spans = self.__masker.spans(text)
        if self.__covered:
            spans.append((0, self.__covered))
        self.__kept = text[end:]
        self.__covered = max(0, max((stop for _, stop in spans), default=0) - end)
        return (_blotted(text, spans) if spans else text)[:end]


def _blotted(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    blotted = bytearray(data)
    for start, end in spans:
        blotted[start:end] = b"*" * (end - start)
    return bytes(blotted)


def _families(value: bytes) -> Iterator[tuple[bytes, set[bytes]]]:
    """All forms, in sets of which each form has the plain parts of the set's core."""
    yield value, _written(value)
    for shape in (value.hex().encode(), value.hex().upper().encode()):
        yield shape, {shape}
    for before in range(3):
        digits = base64.b64encode(bytes(before) + value)
        bare = digits.rstrip(b"=")
        # A digit is six bits: here are the first and the last that depend on nothing but the value.
        first, last = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        core = digits[first:last]
        forms: set[bytes] = set()
        for shape in {core, bare[first:], digits[first:]}:
            forms |= _written(shape) | _written(shape.translate(_URL_SAFE))
        yield core, forms


def _written(text: bytes) -> set[bytes]:
    """``text`` as it is, in URLs and in JSON."""
    forms = {text}
    if _PLAIN.fullmatch(text):
        return forms
    for unquoted in _UNQUOTED:
        quoted = quote_from_bytes(text, unquoted)
        for one in (quoted, quoted.replace("%20", "+")):
            for escaped in (one, one.replace("~", "%7E")):
                forms.add(escaped.encode())
                forms.add(_ESCAPE.sub(lambda found: found[0].lower(), escaped).encode())
    for characters in {text.decode("utf-8", "replace"), text.decode("latin-1")}:
        for ascii_only in (True, False):
            plain = json.dumps(characters, ensure_ascii=ascii_only)[1:-1]
            forms.update(plain.translate(table).encode() for table in _JSON)
    return forms
