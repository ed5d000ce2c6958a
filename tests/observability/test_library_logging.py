"""What of libraries' words is passed on."""

from __future__ import annotations

import logging

import pytest
from aiohttp.http_exceptions import BadStatusLine

from proxy.observability.library_logging import take_over, types_only

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


def test_all_of_a_library_is_taken_over(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of its loggers is used; the latest receiver gets the line, and no other."""
    early: list[str] = []
    lines: list[str] = []
    take_over("dummy_library", "trouble", early.append)
    take_over("dummy_library", "trouble", lines.append)
    logger = logging.getLogger("dummy_library.part")
    logger.info(CANARY)
    logger.error("answered %s", CANARY)
    assert (early, lines, caplog.records) == ([], ["trouble (error)"], [])
    assert "".join(capfd.readouterr()) == ""
