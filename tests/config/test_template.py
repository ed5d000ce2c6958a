from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.template import parse_template


def test_names_are_replaced_by_values() -> None:
    """Literal text stays, each name becomes its value, doubled braces become single ones."""
    template = parse_template("Bearer {api_key}-{{{region}}}")
    assert template.names == {"api_key", "region"}
    values = {"api_key": b"dummy-{region}", "region": b"eu"}
    assert template.render(values) == b"Bearer dummy-{region}-{eu}"


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "{a}}", "{{a}", "{}", "{A}", "{a.}", "{.b}", "{a..b}", "{a!r}"]
)
def test_braces_without_a_name_are_refused(text: str) -> None:
    """A template that a person mistyped is an error, not a literal that leaks."""
    with pytest.raises(ValueError, match="brace"):
        parse_template(text)


@pytest.mark.parametrize("text", ["a\nb", "a\r", "é", "\x00", "\t"])
def test_what_cannot_stand_in_a_header_is_refused(text: str) -> None:
    """No template can end a header and begin another."""
    with pytest.raises(ValueError, match="printable ASCII"):
        parse_template(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_escaped_text_comes_back(text: str) -> None:
    """Any printable text with its braces doubled renders as itself."""
    template = parse_template(text.replace("{", "{{").replace("}", "}}"))
    assert template.render({}) == text.encode()


def test_a_missing_value_is_a_key_error() -> None:
    """Rendering never sends a template with a hole in it."""
    with pytest.raises(KeyError):
        parse_template("{key}").render({})


def test_a_field_of_a_json_secret_is_named_with_a_dot() -> None:
    """A file of several values, as a service account's, is one secret of which a field is used."""
    template = parse_template("{account.client.email}")
    assert template.names == {"account"}
    assert (
        template.render({"account": b'{"client": {"email": "dummy@example"}}'}) == b"dummy@example"
    )


@pytest.mark.parametrize("value", [b"dummy", b"{}", b'{"key": 1}', b"[]", b'{"key": {"a": "b"}}'])
def test_a_field_that_is_not_there_is_an_error_without_the_value(value: bytes) -> None:
    """A secret that is not the JSON that was meant is named, and never shown."""
    with pytest.raises(ValueError, match="account is not JSON with a string key") as caught:
        parse_template("{account.key}").render({"account": value})
    assert "dummy" not in str(caught.value)
