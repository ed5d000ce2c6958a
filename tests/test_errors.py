"""Texts of errors, for clients and operators, and their order."""

from __future__ import annotations

import pytest

from proxy.errors import (
    ConfigError,
    Finding,
    KeyrelayError,
    Refusal,
    SecretUnavailable,
    UpstreamFailure,
)


def test_a_finding_is_a_line_that_editors_understand() -> None:
    """``file:line:column: message``, the advice indented below."""
    finding = Finding("routes.yaml", 3, 7, "unknown key", "write upstream")
    assert str(finding) == "routes.yaml:3:7: unknown key\n    write upstream"


def test_a_finding_without_place_or_advice_is_one_short_line() -> None:
    """A file that is not there has no line, and not everything has a remedy."""
    assert str(Finding("routes.yaml", 0, 0, "no such file")) == ("routes.yaml: no such file")


def test_all_findings_come_at_once_and_in_order() -> None:
    """They are sorted by file, line and column as numbers, however they were found."""
    findings = [
        Finding("b.yaml", 1, 1, "e"),
        Finding("a.yaml", 10, 1, "d"),
        Finding("a.yaml", 9, 20, "c"),
        Finding("a.yaml", 9, 3, "b"),
        Finding("a.yaml", 9, 3, "a"),
    ]
    error = ConfigError(findings)
    assert [one.message for one in error.findings] == ["a", "b", "c", "d", "e"]
    assert str(error).splitlines()[0] == "a.yaml:9:3: a"
    assert len(str(error).splitlines()) == 5


def test_a_missing_secret_names_itself_and_its_remedy() -> None:
    """The text is public: a name and what to do."""
    error = SecretUnavailable("api_key", "set HUME_API_KEY")
    assert str(error) == "secret api_key: set HUME_API_KEY"


def test_the_offending_value_is_for_the_log_alone() -> None:
    """What a refusal prints holds constant text, never what came from the request."""
    refusal = Refusal(421, "host-not-allowed", "No.", log_detail="'evil.test'")
    assert "evil" not in str(refusal)
    assert (refusal.proxy_error, refusal.headers) == ("http_request_denied", ())


def test_a_provider_s_failure_says_whether_it_was_time() -> None:
    """504 and 502 are told apart by the error itself."""
    assert UpstreamFailure("connection_timeout", "Too slow.", timed_out=True).timed_out
    assert not UpstreamFailure("connection_refused", "Nobody there.").timed_out


@pytest.mark.parametrize(
    "error",
    [
        ConfigError([]),
        SecretUnavailable("a", "b"),
        Refusal(400, "a", "b"),
        UpstreamFailure("a", "b"),
    ],
)
def test_one_base_catches_all(error: Exception) -> None:
    """Callers of keyrelay's code need one exception."""
    assert isinstance(error, KeyrelayError)
