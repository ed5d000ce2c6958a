"""Redact a credential in responses of the provider: each of its bytes becomes ``*``.

An error page that repeats the request, a debug endpoint, a ``Location`` with the query in it: each
would disclose the credential to the client. Redaction protects against careless providers. It
cannot protect against a hostile one, which can encode a secret in any way.

A byte is redacted if and only if it belongs to an occurrence of a form of a value; occurrences may
overlap. The result therefore does not depend on how a text is divided into chunks.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn, final
from urllib.parse import quote_from_bytes

# Bytes. A shorter value would redact ordinary words and numbers, so it is ignored.
SHORTEST: Final = 6

_HEAD = 4  # bytes by which the beginnings of forms are found; shorter than every form
_ANCHOR = 32  # maximum bytes of an anchor: a longer one is no rarer and slower to search for
_PLAIN = re.compile(rb"[A-Za-z0-9._-]+")  # unchanged by every encoding of text
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
# Unquoted characters besides letters, digits and _.-~ : none (query values), slash (Python),
# encodeURIComponent, forms, and all that RFC 3986 section 3.3 allows in a path, in one segment of
# a path, and in a segment as Go writes it.
_UNQUOTED = ("", "/", "!'()*", "*", "/:@!$&'()*+,;=", ":@!$&'()*+,;=", ":@$&+=")
# Optional escapes of JSON encoders: none, PHP, Go and Rails, Gson, .NET.
_JSON: tuple[dict[int, str], ...] = (
    {},
    {ord("/"): "\\/"},
    {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"},
    {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&='"},
    {ord(sign): f"\\u{ord(sign):04X}" for sign in "<>&+'`"},
)
# Character references of HTML encoders: these characters always, in one of three styles …
_HTML_ALWAYS: tuple[dict[str, str], ...] = (
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"},
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"},
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#x27;"},
)
# … and of +, / and = none, some or all: Go, mustache, Handlebars, encoders of every sign.
_HTML_SIGNS = "+/="
_HTML_REFERENCES = (
    _HTML_SIGNS,
    ("&#43;", "/", "="),
    ("+", "&#47;", "="),
    ("+", "/", "&#61;"),
    ("&#43;", "/", "&#61;"),
    ("&#43;", "&#47;", "&#61;"),
    ("&#43;", "&#x2F;", "&#61;"),
    ("&#x2B;", "/", "="),
    ("+", "&#x2F;", "="),
    ("+", "/", "&#x3D;"),
    ("+", "&#x2F;", "&#x3D;"),
    ("&#x2B;", "&#x2F;", "&#x3D;"),
    ("&#x2b;", "&#x2f;", "&#x3d;"),
    ("&plus;", "&sol;", "&equals;"),
)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # RFC 4648 section 5


@final
class Redactor:
    """Redacts the values of one credential in every form of encoding. Falsy without values.

    Forms of a value: unchanged, base64 and base64url at any alignment (so also inside the base64
    of ``user:VALUE``), each of these percent-encoded, JSON-escaped or with character references
    of HTML; hex; and every character as an escape of JSON. A base64 digit that the value shares
    with its neighbour is not redacted. A Basic credential is redacted whole if it is passed as a
    value itself. Construction is slow: once per credential, not per response.

    ``longest`` is the length of the longest form in bytes, 0 if there is none.
    """

    __slots__ = ("__groups", "__heads", "__starts", "longest")

    def __init__(self, values: Iterable[bytes]) -> None:
        groups: dict[bytes, set[bytes]] = {}
        for value in values:
            if len(value) >= SHORTEST:
                for core, forms in _families(value):
                    # Empty for some binary values, which only makes the search slower.
                    anchor = max(_PLAIN.findall(core), key=len, default=b"")[-_ANCHOR:]
                    groups.setdefault(anchor, set()).update(forms)
        every = set().union(*groups.values())
        heads: dict[bytes, list[bytes]] = {}
        for form in every:
            heads.setdefault(form[:_HEAD], []).append(form)
        # Each form of a group contains its anchor, so most texts need only a few ``in`` tests.
        self.__groups = tuple((anchor, tuple(forms)) for anchor, forms in groups.items())
        self.__heads = tuple((head, tuple(forms)) for head, forms in heads.items())
        self.__starts = frozenset(head[:length] for head in heads for length in range(1, _HEAD))
        self.longest = max(map(len, every), default=0)

    def __bool__(self) -> bool:
        return bool(self.__groups)

    def __repr__(self) -> str:
        return f"<redactor of {sum(len(forms) for _, forms in self.__groups)} forms>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("redactors hold secrets and are not pickled or copied")

    def redact(self, data: bytes) -> bytes:
        """Return ``data`` with every occurrence redacted, of the same length; itself if none."""
        spans = self.spans(data)
        return _redacted(data, spans) if spans else data

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return the (start, end) of every occurrence, unordered; they may overlap."""
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
        """Return where the longest suffix of ``data`` starts that may begin an occurrence.

        ``len(data)`` if there is no such suffix: then subsequent data cannot change the result.
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
class StreamRedactor:
    """Redacts a text that arrives in chunks as if it were one.

    Holds back at most ``redactor.longest - 1`` bytes, and only a suffix that may begin an
    occurrence; a server-sent event is therefore complete with its last chunk.
    """

    __slots__ = ("__covered", "__kept", "__redactor")

    def __init__(self, redactor: Redactor) -> None:
        self.__redactor = redactor
        self.__kept = b""
        self.__covered = 0  # leading bytes of ``__kept`` that an earlier occurrence covers

    def __repr__(self) -> str:
        return f"<stream redactor holding {len(self.__kept)} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("redactors hold secrets and are not pickled or copied")

    def feed(self, data: bytes) -> bytes:
        """Return the redacted bytes that are final; empty while all may begin an occurrence."""
        text = self.__kept + data if self.__kept else data
        return self.__release(text, self.__redactor.pending(text))

    def finish(self) -> bytes:
        """Return the remaining bytes at the end of the text. Another text may follow."""
        return self.__release(self.__kept, len(self.__kept))

    def __release(self, text: bytes, end: int) -> bytes:
        spans = self.__redactor.spans(text)
        if self.__covered:
            spans.append((0, self.__covered))
        self.__kept = text[end:]
        self.__covered = max(0, max((stop for _, stop in spans), default=0) - end)
        return (_redacted(text, spans) if spans else text)[:end]


def _redacted(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    redacted = bytearray(data)
    for start, end in spans:
        redacted[start:end] = b"*" * (end - start)
    return bytes(redacted)


def _families(value: bytes) -> Iterator[tuple[bytes, set[bytes]]]:
    """Yield all forms in sets; each form of a set contains the plain parts of the set's core."""
    yield value, _text_encodings(value)
    for shape in (value.hex().encode(), value.hex().upper().encode(), *_all_escaped(value)):
        yield shape, {shape}
    for before in range(3):
        digits = base64.b64encode(bytes(before) + value)
        bare = digits.rstrip(b"=")
        # A digit is six bits: the first and the last digit that depend on the value alone.
        first, last = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        core = digits[first:last]
        forms: set[bytes] = set()
        for shape in {core, bare[first:], digits[first:]}:
            forms |= _text_encodings(shape) | _text_encodings(shape.translate(_URL_SAFE))
        yield core, forms


def _all_escaped(value: bytes) -> set[bytes]:
    """Return ``value`` with each character as an escape of JSON (RFC 8259 section 7)."""
    forms = set()
    for characters in {value.decode("utf-8", "replace"), value.decode("latin-1")}:
        units = characters.encode("utf-16-be").hex(" ", 2).split()
        forms |= {"".join(f"\\u{one}" for one in units).encode()}
        forms |= {"".join(f"\\u{one.upper()}" for one in units).encode()}
    return forms


def _text_encodings(text: bytes) -> set[bytes]:
    """Return ``text`` unchanged, percent-encoded, JSON-escaped and with references of HTML."""
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
        forms.update(markup.encode() for markup in _html_encodings(characters))
    return forms


def _html_encodings(text: str) -> Iterator[str]:
    """Yield ``text`` as HTML encoders write it."""
    present = [at for at, sign in enumerate(_HTML_SIGNS) if sign in text]
    chosen = {tuple(references[at] for at in present) for references in _HTML_REFERENCES}
    signs = [_HTML_SIGNS[at] for at in present]
    quoted = not _HTML_ALWAYS[-1].keys().isdisjoint(text)
    for always in _HTML_ALWAYS if quoted else ({},):
        for references in chosen:
            table = {ord(sign): reference for sign, reference in always.items()}
            table.update(zip(map(ord, signs), references, strict=True))
            yield text.translate(table)
