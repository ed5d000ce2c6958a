"""The forms of a secret in the YAML: names of variables, and what a command gets instead."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config.secret import AnySecret, SecretSettings

read = TypeAdapter[SecretSettings](AnySecret).validate_python


def test_a_secret_has_several_variables() -> None:
    """A list of names under ``env`` is a list of references, in order, beside other fields."""
    found = read({"env": ["ACME_API_KEY", "ACME_TOKEN"], "optional": True})
    assert found.references == ("env:ACME_API_KEY", "env:ACME_TOKEN")
    assert found.optional


@pytest.mark.parametrize(
    ("form", "placeholder"),
    [
        ("env:ACME_KEY", "unused"),
        (["env:NEW", "env:OLD"], "unused"),
        ({"env": "ACME_KEY"}, "unused"),
        ({"env": "ACME_KEY", "placeholder": "ak_unused"}, "ak_unused"),
        ({"env": "ACME_KEY", "placeholder": None}, None),
    ],
)
def test_a_secret_has_a_placeholder(form: Any, placeholder: str | None) -> None:
    """One word by default, a form of the provider's if it is given, none with null."""
    assert read(form).placeholder == placeholder


@pytest.mark.parametrize(
    "form",
    [
        {"env": []},
        {"env": ["ac-me"]},
        {"env": ["ACME", 1]},
        {"env": [["ACME"]]},
        {"file": ["/run/secrets/a", "/run/secrets/b"]},
        {"env": "ACME", "placeholder": "two\nlines"},
        {"env": "ACME", "placeholder": 1},
        {"env": "ACME", "placeholder": ""},
    ],
)
def test_other_forms_are_refused(form: Any) -> None:
    """No list of anything but variables, and no placeholder that is not one line of text."""
    with pytest.raises(ValidationError):
        read(form)
