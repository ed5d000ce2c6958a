"""Signs that a secret's value is not the key itself: quotes, schemes, comments, placeholders.

A provider rejects such a value as any other wrong key, which does not show the cause. Findings
describe the value and never contain a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# ASCII and typographic quotes, as word processors and chats write them.
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_SCHEME = re.compile(r"(bearer|token|basic|apikey|api-key|key|dpop|bot)[ :]\s*\S", re.IGNORECASE)
_FIELD = re.compile(r"(authorization|[a-z-]*(api-?key|token|secret)|cookie):\s", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(export\s+|set\s+|\$env:)?([A-Za-z_][A-Za-z0-9_]*)\s?=\s?[^=\s]")
_NAME_AND_COLON = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)+:\s+\S")
# Base64 may begin with a slash, so only where paths of secrets are.
_PATH = re.compile(
    r"(~|\.{1,2}|/(app|config|data|etc|home|media|mnt|opt|private|root|run|secrets|srv|tmp|Users|usr"
    r"|var|Volumes))/[^\s/].*|([A-Za-z]:|%[A-Z]+%|\\\\\w+)\\\S.*"
)
_ADDRESS = re.compile(r"(https?|wss?)://\S*", re.IGNORECASE)
_JSON_MEMBER = re.compile(r"[\"'][\w.-]+[\"']\s*:")
_EXPANSION = re.compile(r"\$\{[^}]*\}|\{\{.*?\}\}|\$\([^)]*\)|\$\{\{")
_WHOLE_EXPANSION = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|%[A-Za-z_][A-Za-z0-9_]*%|\{[A-Za-z_]\w*\}")
_REFERENCE = re.compile(
    r"(op|bw|bws|lpass|keepass|keepassxc|pass|secret|vault|doppler|infisical|dashlane|akeyless"
    r"|aws-?sm|aws-?ssm|awssm|awsps|gcp-?sm|gsm|azurekv|akv|ref\+[a-z0-9]+)://"
    r"|arn:aws[a-z-]*:(secretsmanager|ssm):|projects/[^/]+/secrets/|@Microsoft\.KeyVault\("
    r"|ENC\[AES|\$ANSIBLE_VAULT|vault:[a-z]",
)
_OWN_REFERENCE = re.compile(
    r"env:[A-Za-z_]\w*\Z|file:/|credential:\w|keyring:.+/|exec:\w|sealed:v1:"
)
_PLACEHOLDER = re.compile(
    r"<[^<>]*>|\[[^\[\]]*\]|(?=.*(key|token|secret|password))(your|my|the|insert|enter|put|replace"
    r"|add|paste)[\W_].*|your(own)?(api)?(key|token|secret)(here)?"
    r"|.*\b(your|insert|replace)[ _-]?(own[ _-])?(\w+[ _-])?(api|key|token|secret)"
    r".*|.*(change|replace)[ _-]?(me|this)\b.*|x{4,}|X{4,}|\*+|\.{3,}|…+"
    r"|(null|none|nil|undefined|true|false|todo|tbd|fixme|placeholder|example)",
    re.IGNORECASE,
)
_REDACTED = re.compile(r".*(\*{3,}|•{3,}|\.{3}|…|x{6,}).*", re.IGNORECASE)
_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*_(KEY|TOKEN|SECRET|PASSWORD|PAT|SID)")
_COMMENT = re.compile(r"\S\s+(#|//|;|--\s)")
_INVISIBLE = {
    "\N{ZERO WIDTH NO-BREAK SPACE}": "a byte-order mark",
    "\N{NO-BREAK SPACE}": "a no-break space",
    "\N{NARROW NO-BREAK SPACE}": "a no-break space",
    "\N{FIGURE SPACE}": "a no-break space",
    "\N{ZERO WIDTH SPACE}": "a zero-width space",
    "\N{ZERO WIDTH NON-JOINER}": "a zero-width character",
    "\N{ZERO WIDTH JOINER}": "a zero-width character",
    "\N{WORD JOINER}": "a zero-width character",
    "\N{SOFT HYPHEN}": "a soft hyphen",
    "\N{LEFT-TO-RIGHT MARK}": "a mark of the text direction",
    "\N{RIGHT-TO-LEFT MARK}": "a mark of the text direction",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """How a value is used.

    schemes      schemes that placements write in front of it, in lower case: ``bearer``
    whole_field  whether it is the whole value of Authorization, so that it brings its scheme
    password     whether it is a user name or password, which may have any character
    document     whether it is PEM or JSON, with several lines
    placeholder  what ``keyrelay exec`` gives to programs in its place
    """

    schemes: Collection[str] = ()
    whole_field: bool = False
    password: bool = False
    document: bool = False
    placeholder: str | None = None


def oddities(value: bytes, usage: Usage) -> list[str]:
    """Describe what is odd about a value, each with what to do; empty for a plain key."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    found = list(_invisible(text))
    bare = text.strip("".join(_INVISIBLE)).strip()
    if not usage.document:
        found += _quoted(bare)
        bare = bare.strip(_QUOTES)
    found += _not_a_value(bare, usage)
    if found or usage.document:
        return found
    return list(_surrounded(bare, usage)) or list(_foreign(bare, usage))


def _invisible(text: str) -> Iterator[str]:
    yield from dict.fromkeys(
        f"contains {_INVISIBLE[one]}, which is invisible: copy the key anew, or remove it"
        for one in text
        if one in _INVISIBLE
    )


def _quoted(text: str) -> Iterator[str]:
    if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        yield "is in quotes: remove them"
    elif text and (text[0] in _QUOTES or text[-1] in _QUOTES):
        yield "has a quote at one end: remove it"


def _not_a_value(text: str, usage: Usage) -> Iterator[str]:
    """What stands for a key and is none."""
    if _OWN_REFERENCE.match(text):
        yield "is a reference of keyrelay: write it in the routes file, under secrets:"
    elif _REFERENCE.match(text):
        yield (
            "is a reference of a password manager or vault, which keyrelay does not resolve: "
            "use exec: with its command"
        )
    elif _EXPANSION.search(text) if not usage.password else _EXPANSION.fullmatch(text):
        yield "contains a variable that was not expanded: set it to the key itself"
    elif _WHOLE_EXPANSION.fullmatch(text):
        yield "is the name of a variable that was not expanded: set it to the key itself"
    elif usage.placeholder and text == usage.placeholder:
        yield "is the placeholder that keyrelay exec gives to programs: set the key itself"
    elif _PLACEHOLDER.fullmatch(text) or _NAME.fullmatch(text):
        yield "is a placeholder from an example: set the key itself"
    elif not usage.password and not usage.document and _PATH.fullmatch(text):
        yield (
            "is the path of a file: if the key is in that file, write file:/absolute/path in the "
            "routes file"
        )
    elif not usage.password and not usage.document and _ADDRESS.fullmatch(text):
        yield "is a URL: set the key itself"
    elif not usage.password and not usage.document and _REDACTED.fullmatch(text):
        yield "is abbreviated or hidden, as it is displayed: copy the whole key"


def _surrounded(text: str, usage: Usage) -> Iterator[str]:
    """A key with something around it."""
    scheme = _SCHEME.match(text)
    if usage.password:
        return
    if _FIELD.match(text):
        yield "begins with the name of a header: remove it"
    elif scheme and not usage.whole_field:
        word = scheme[1].lower()
        if word in usage.schemes:
            yield f'begins with "{scheme[1].capitalize()}", which keyrelay adds: remove it'
        elif text[scheme.end(1)] == " ":
            yield f'begins with "{scheme[1].capitalize()}", which is not sent here: remove it'
    elif (assigned := _ASSIGNMENT.match(text)) and (assigned[1] or assigned[2].isupper()):
        yield "begins with the name of a variable and =: remove both"
    elif _NAME_AND_COLON.match(text):
        yield "begins with the name of a variable and a colon: remove both"
    elif _JSON_MEMBER.match(text) or text.startswith(("{", "[")):
        yield "is a part of a JSON document: use the key alone"
    elif _COMMENT.search(text):
        yield "has a comment behind it: remove it"


def _foreign(text: str, usage: Usage) -> Iterator[str]:
    """Characters that no key has."""
    if usage.password or _COMMENT.search(text):
        return
    if re.search(r"\s", text) and not (usage.whole_field or _SCHEME.match(text)):
        yield "contains a space: copy the key anew"
    if text.endswith((",", ";")):
        yield f'ends with "{text[-1]}": remove it'
    if re.search(r"\\[nrt]\Z", text):
        yield "ends with a written line break: remove it"
    if not text.isascii() and not set(text) & set("…•"):
        yield "contains characters beyond ASCII: copy the key anew"
