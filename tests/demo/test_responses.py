"""How the demo provider lays out its JSON."""

from __future__ import annotations

import json

from proxy.demo.responses import JSON, json_response


def test_json_has_a_line_per_member_and_per_item() -> None:
    """The content is the JSON that was given, with a line for each item of a list."""
    content = {"a": 1, "list": ["x", "ü"], "empty": [], "map": {"b": 2}}
    response = json_response(content, 201, ("X-One", "1"))
    assert json.loads(response.content) == content
    assert '\n    "x",\n    "ü"\n' in response.content.decode()
    assert (response.status, response.content_type) == (201, JSON)
    assert response.fields == (("X-One", "1"),)
