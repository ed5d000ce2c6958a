"""Exceptions and findings. Imports no other module of the package.

KeyrelayError
├── ConfigError         the configuration cannot be used; carries every finding
├── SecretUnavailable   a secret's source gave no usable value
├── Refusal             a response of keyrelay's own, with that HTTP status
└── UpstreamFailure     the provider could not be reached or broke off

An error carries data; the sentence is made from the data. None of them ever holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass


class KeyrelayError(Exception):
    """Base of everything keyrelay raises on purpose."""


class ConfigValueError(ValueError):
    """Invalid value of a setting. Contains no part of the value, which may be a secret.

    message  what is wrong, such as "invalid route name"
    hint     what to write instead, "" for none
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}: {hint}" if hint else message)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with the configuration, and where.

    ``line`` and ``column`` count from 1; 0 means that the finding has no place in the file.
    """

    file: str
    line: int
    column: int
    message: str
    advice: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = f"{place}: {self.message}"
        return f"{text}\n    {self.advice}" if self.advice else text


class ConfigError(KeyrelayError):
    """The configuration cannot be used. ``findings`` has all of them, in the file's order."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(
            sorted(findings, key=lambda one: (one.file, one.line, one.column, one.message))
        )
        super().__init__("\n".join(map(str, self.findings)))


class SecretUnavailable(KeyrelayError):
    """A source gave no usable value.

    ``name`` is the secret's name in the configuration, ``remedy`` is what to do, in a text that
    may be public (``set HUME_API_KEY``); never a value.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        self.remedy = remedy
        super().__init__(f"secret {name}: {remedy}")


class Refusal(KeyrelayError):
    """A response of keyrelay's own; the provider is not involved, or failed.

    status        HTTP status of the response
    kind          short name of the problem, stable, for programs (``host-not-allowed``)
    detail        one sentence for the reader of the response: constant text and names from
                  the configuration only, never anything from the request
    advice        what to do about it
    proxy_error   error type of RFC 9209 section 2.3
    headers       further header fields of the response
    log_detail    what only the log may hold (the offending value, escaped and truncated)
    notice        one sentence for the operator's terminal, "" for none
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        advice: str = "",
        *,
        proxy_error: str = "http_request_denied",
        headers: tuple[tuple[str, str], ...] = (),
        log_detail: str = "",
        notice: str = "",
    ) -> None:
        self.status = status
        self.kind = kind
        self.detail = detail
        self.advice = advice
        self.proxy_error = proxy_error
        self.headers = headers
        self.log_detail = log_detail
        self.notice = notice
        super().__init__(f"{status} {kind}: {detail}")


class UpstreamFailure(KeyrelayError):
    """The provider's side failed.

    ``proxy_error`` is an error type of RFC 9209 section 2.3; ``timed_out`` selects 504 over 502.
    The text is keyrelay's: a library's message may hold a URL with a credential in it. ``advice``
    takes the place of the one for all failures of this type.
    """

    def __init__(
        self, proxy_error: str, detail: str, *, timed_out: bool = False, advice: str = ""
    ) -> None:
        self.proxy_error = proxy_error
        self.detail = detail
        self.timed_out = timed_out
        self.advice = advice
        super().__init__(detail)
