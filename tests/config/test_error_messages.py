"""Errors of the models as findings with a position; whole files: tests.config.test_loader."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config.document import read_yaml
from proxy.config.error_messages import collect_errors
from proxy.config.settings import Settings


def test_every_error_is_found_at_its_place() -> None:
    """By line and column, with advice, and without any value; the invalid fields are returned."""
    text = "listen: 127.0.0.1:1\nroutes: {}\ndrain_seconds: dummy-value\ndrain: 5\n"
    document = read_yaml(text, "r.yaml")
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(document.data)
    broken = collect_errors(document, caught.value, Settings, ())
    assert broken == {"drain_seconds", "drain"}
    assert [str(one) for one in document.findings] == [
        (
            "r.yaml:3:16: expected a number, got a string\n"
            "    write seconds as a bare number, such as 10 or 0.5"
        ),
        'r.yaml:4:1: unknown key "drain"\n    did you mean "drain_seconds"?',
    ]
