"""What of aiohttp's words is passed on."""

from __future__ import annotations

from aiohttp.http_exceptions import BadStatusLine

from proxy.serverlog import types_only

CANARY = "dummy-canary-0123456789"


def test_a_failure_is_told_by_its_type_alone() -> None:
    """Neither the text of the record nor that of the exception is repeated."""
    lines: list[str] = []
    logger = types_only("dummy", "it failed", lines.append)
    try:
        raise ValueError(CANARY)  # noqa: TRY301  to be caught
    except ValueError:
        logger.exception("Error handling %s", CANARY)
    logger.warning("something about %s", CANARY)
    assert lines == ["it failed (ValueError)", "it failed (warning)"]


def test_a_malformed_request_is_nobody_s_business() -> None:
    """It was answered with 400; its line may hold a token."""
    lines: list[str] = []
    logger = types_only("dummy", "it failed", lines.append)
    try:
        raise BadStatusLine(CANARY)  # noqa: TRY301  to be caught
    except BadStatusLine:
        logger.exception("Error handling request")
    assert lines == []
