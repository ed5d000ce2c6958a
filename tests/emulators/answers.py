"""What an emulator recorded, and what it answers."""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote_plus

Outcome = Literal["running", "complete", "client left", "cut", "stopped", "failed"]


@dataclass(slots=True)
class Recorded:
    """One request as it reached the emulator.

    target        the raw request target, byte for byte
    headers       raw and in order
    body          its first 64 KiB; ``body_length`` and ``body_sha256`` tell of all of it and grow
                  as it arrives
    messages      WebSocket messages that the client sent
    status        of the answer, as soon as it is begun; 0 before
    close_code    how the WebSocket was closed by the client, and why
    outcome       how the exchange ended
    """

    index: int
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    websocket: bool
    body: bytes = b""
    body_length: int = 0
    body_sha256: str = ""
    messages: list[str | bytes] = field(default_factory=list)
    status: int = 0
    close_code: int | None = None
    close_reason: str = ""
    outcome: Outcome = "running"

    @property
    def path(self) -> str:
        """The target without its query, raw."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The raw query, without its question mark."""
        return self.target.partition("?")[2]

    def values(self, name: str) -> list[str]:
        """All values of a header, case of the name apart."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def value(self, name: str) -> str:
        """All values of a header as one list, as RFC 9110 section 5.3 joins them."""
        return ", ".join(self.values(name))

    def form(self) -> dict[str, str]:
        """The body as a form; a repeated name is an error, none of the providers has one."""
        pairs = [part.partition("=") for part in self.body.decode().split("&") if part]
        form = {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}
        if len(form) != len(pairs):
            raise ValueError("a name is in the form twice")
        return form

    def json(self) -> object:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. ``early``: sent before the request's body has been read."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    early: bool = False

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """The same answer with further header fields."""
        return dataclasses.replace(self, headers=(*self.headers, *headers))

    def gzipped(self) -> Answer:
        """The same answer, compressed and saying so."""
        smaller = dataclasses.replace(self, body=gzip.compress(self.body, mtime=0))
        return smaller.with_headers(("Content-Encoding", "gzip"))


def json_answer(status: int, content: object, *headers: tuple[str, str]) -> Answer:
    """An answer in JSON."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return Answer(status, body, (("Content-Type", "application/json"), *headers))


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An answer in plain text."""
    return Answer(status, text.encode(), (("Content-Type", "text/plain; charset=utf-8"), *headers))


def redirect(location: str, status: int = 302) -> Answer:
    """A redirect; ``location`` exactly as given."""
    return Answer(status, b"", (("Location", location),))


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is refused, for the test, and how, for the client."""

    reason: str
    answer: Answer
