"""Signs that a value is not the key itself: found without false alarms, named without the value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.oddities import Usage, oddities

KEY = "dummyCANARY0123456789abcdefABCDEF"
PLAIN = Usage(placeholder="unused")
BEARER = Usage(schemes={"bearer"})


def the(value: str, usage: Usage = PLAIN) -> str:
    found = oddities(value.encode(), usage)
    assert len(found) == 1, found
    assert "CANARY" not in found[0]
    assert ": " in found[0]
    return found[0]


@pytest.mark.parametrize(
    "pair", ['""', "''", "``", "\u201c\u201d", "\u201e\u201c", "\u2018\u2019", "\u00ab\u00bb"]
)
def test_quotes(pair: str) -> None:
    """Around the key, of any kind, or at one end alone."""
    assert the(f"{pair[0]}{KEY}{pair[1]}") == "is in quotes: remove them"
    assert the(f"{pair[0]}{KEY}").startswith("has a quote at one end")
    assert the(f"{KEY}{pair[1]}").startswith("has a quote at one end")


@pytest.mark.parametrize(
    ("text", "usage", "words"),
    [
        (f"Bearer {KEY}", BEARER, 'begins with "Bearer", which keyrelay adds'),
        (f"bearer {KEY}", BEARER, 'begins with "Bearer", which keyrelay adds'),
        (f"Token {KEY}", Usage(schemes={"token"}), 'begins with "Token", which keyrelay adds'),
        (f"Basic {KEY}", Usage(schemes={"basic"}), 'begins with "Basic", which keyrelay adds'),
        (f"Bearer {KEY}", PLAIN, 'begins with "Bearer", which is not sent here'),
        (f"Token {KEY}", BEARER, 'begins with "Token", which is not sent here'),
        (f"Authorization: Bearer {KEY}", BEARER, "name of a header"),
        (f"X-Api-Key: {KEY}", PLAIN, "name of a header"),
        (f"HUME_API_KEY={KEY}", PLAIN, "name of a variable"),
        (f"export hume_key={KEY}", PLAIN, "name of a variable"),
        (f"$env:HUME_API_KEY = {KEY}", PLAIN, "name of a variable"),
        (f"HUME_API_KEY = {KEY}", PLAIN, "name of a variable"),
        (f"HUME_API_KEY: {KEY}", PLAIN, "name of a variable and a colon"),
        (f"  hume_api_key: {KEY}", PLAIN, "name of a variable and a colon"),
        (f'{{"api_key": "{KEY}"}}', PLAIN, "part of a JSON document"),
        (f"{KEY} # my key", PLAIN, "has a comment behind it"),
        (f"{KEY}\t// my key", PLAIN, "has a comment behind it"),
        (f"{KEY} ; my key", PLAIN, "has a comment behind it"),
        (f"{KEY} {KEY}", PLAIN, "contains a space"),
        (f"{KEY},", PLAIN, 'ends with ","'),
        (f"{KEY};", PLAIN, 'ends with ";"'),
        (f"{KEY}\\n", PLAIN, "written line break"),
        (f"{KEY}\u2013x", PLAIN, "characters beyond ASCII"),
        (f"{KEY}\u0430", PLAIN, "characters beyond ASCII"),
    ],
)
def test_what_surrounds_a_key(text: str, usage: Usage, words: str) -> None:
    """A scheme, a name, a comment, and what a paste brings along."""
    assert words in the(text, usage)


@pytest.mark.parametrize(
    "text",
    [
        "/run/secrets/hume_CANARY",
        "/etc/keyrelay/CANARY",
        "/home/user/CANARY.txt",
        "~/CANARY.txt",
        "./CANARY",
        "../secrets/CANARY",
        "C:\\keys\\CANARY.txt",
        "%USERPROFILE%\\CANARY.txt",
    ],
)
def test_the_path_of_a_file(text: str) -> None:
    """As variables hold it that are read by programs which open the file."""
    assert the(text).startswith("is the path of a file: ")


@pytest.mark.parametrize("text", ["https://CANARY.example/keys", "wss://CANARY.example"])
def test_an_address(text: str) -> None:
    """The base URL or the page with the keys, in place of a key."""
    assert the(text).startswith("is a URL: ")


@pytest.mark.parametrize("text", [f"/{KEY}", f"/9j/{KEY}+/=", f"~{KEY}", f".{KEY}", "C:CANARY"])
def test_keys_that_begin_as_paths_do(text: str) -> None:
    """Base64 has slashes, also at its beginning."""
    assert oddities(text.encode(), PLAIN) == []


@pytest.mark.parametrize(
    ("character", "words"),
    [
        ("\ufeff", "byte-order mark"),
        ("\u00a0", "no-break space"),
        ("\u202f", "no-break space"),
        ("\u200b", "zero-width space"),
        ("\u200d", "zero-width character"),
        ("\u2060", "zero-width character"),
        ("\u00ad", "soft hyphen"),
        ("\u200e", "text direction"),
    ],
)
@pytest.mark.parametrize("where", ["{0}{1}", "{1}{0}", "{1}{0}{1}"])
def test_invisible_characters(character: str, words: str, where: str) -> None:
    """In front, behind or within, they are named, as nobody can see them."""
    found = the(where.format(character, KEY))
    assert words in found
    assert "invisible" in found


def test_a_no_break_space_of_latin_1() -> None:
    """Files in an old encoding have it as one byte."""
    (found,) = oddities(KEY.encode() + b"\xa0", PLAIN)
    assert "no-break space" in found


@pytest.mark.parametrize(
    "text",
    [
        "${HUME_API_KEY}",
        "prefix-${HUME_API_KEY}",
        "${HUME_API_KEY:-}",
        "$HUME_API_KEY",
        "$hume_key",
        "%HUME_API_KEY%",
        "{{ hume_api_key }}",
        "${{ secrets.HUME_API_KEY }}",
        "$(cat /run/secrets/hume)",
        "{api_key}",
    ],
)
def test_variables_that_were_not_expanded(text: str) -> None:
    """Shells, Compose, CI and templates each have their own form."""
    assert "not expanded" in the(text)
    assert "not expanded" in the(f'"{text}"'.strip('"'))


@pytest.mark.parametrize(
    "text",
    [
        "<your key>",
        "<HUME_API_KEY>",
        "[YOUR KEY]",
        "your-api-key",
        "your_api_key_here",
        "YOUR_API_KEY",
        "my-secret-key",
        "insert-your-key-here",
        "paste your key here",
        "sk-your-key-here",
        "replace_me",
        "changeme",
        "change-this",
        "HUME_API_KEY",
        "xxxxxxxx",
        "XXXX",
        "********",
        "...",
        "\u2026",
        "null",
        "None",
        "undefined",
        "TODO",
    ],
)
def test_placeholders(text: str) -> None:
    """What stands in examples for a key."""
    assert the(text) == "is a placeholder from an example: set the key itself"


def test_the_placeholder_of_exec() -> None:
    """Keyrelay within the command of another one gets what that one gives for a key."""
    usage = Usage(placeholder="sk-unused")
    assert "placeholder that keyrelay exec gives" in the("sk-unused", usage)


@pytest.mark.parametrize(
    "text",
    ["sk-proj-abc...wxyz", "sk-abc\u2026wxyz", "abcd****wxyz", "abc\u2022\u2022\u2022\u2022"],
)
def test_abbreviated_keys(text: str) -> None:
    """As dashboards display a key."""
    assert "abbreviated or hidden" in the(text)


@pytest.mark.parametrize(
    "text",
    [
        "op://vault/item/field",
        "bw://item/field",
        "vault://secret/data/hume#key",
        "ref+vault://secret/hume",
        "arn:aws:secretsmanager:eu-west-1:000000000000:secret:dummy",
        "projects/dummy/secrets/hume/versions/latest",
        "@Microsoft.KeyVault(SecretUri=https://dummy.example/)",
        "ENC[AES256_GCM,data:dummy]",
    ],
)
def test_references_of_password_managers(text: str) -> None:
    """Their programs resolve these; keyrelay has exec: for that."""
    assert "password manager or vault" in the(text)


@pytest.mark.parametrize("text", ["env:HUME_API_KEY", "file:/run/secrets/hume", "exec:op read x"])
def test_references_of_keyrelay(text: str) -> None:
    """They belong into the routes file."""
    assert "reference of keyrelay" in the(text)


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        (KEY, PLAIN),
        ("sk-proj-dummy_0123-ABC", PLAIN),
        ("AKdummy/0123+abc==", PLAIN),
        ("ZHVtbXk6ZHVtbXk=", PLAIN),
        ("ABCDEF==", PLAIN),
        ("dummy:part:of:key", PLAIN),
        ("xai-dummy", PLAIN),
        ("0123456789:AAdummy-telegram", PLAIN),
        ("dummy$key%with{signs}", PLAIN),
        ("key_dummy0123", PLAIN),
        ("token-dummy-0123", PLAIN),
        ("basic-dummy", PLAIN),
        ("mydummy0123", PLAIN),
        ("thekeyring0123", PLAIN),
        (f"Bearer {KEY}", Usage(whole_field=True)),
        (f"Basic {KEY}", Usage(whole_field=True)),
        ("a pass phrase, with; $signs #1", Usage(password=True)),
        ("p\u00e4ssword", Usage(password=True)),
        ('{"client_email": "dummy", "key": "-----BEGIN"}', Usage(document=True)),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", Usage(document=True)),
        ("", PLAIN),
    ],
)
def test_plain_values(text: str, usage: Usage) -> None:
    """Keys in every form that providers issue, passwords and documents have nothing odd."""
    assert oddities(text.encode(), usage) == []


@given(st.from_regex(r"[A-Za-z0-9]{20,64}", fullmatch=True))
def test_random_keys_are_plain(text: str) -> None:
    """No alphanumeric key is taken for something else, unless it has a run of x like a mask."""
    if "xxxxxx" not in text.lower() and "changeme" not in text.lower():
        assert oddities(text.encode(), PLAIN) == []


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes_are_judged(value: bytes, password: bool, document: bool) -> None:
    """No value is too strange to be judged."""
    for text in oddities(value, Usage(password=password, document=document)):
        assert ": " in text
