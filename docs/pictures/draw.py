"""Draws the diagrams of the documentation as SVG: `python docs/pictures/draw.py`.

Each file carries both themes: its style follows `prefers-color-scheme`, and its background is part
of the picture, so that it is legible on any page. The output depends on this file alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent

STYLE = """\
  <style>
    .page { fill: #ffffff; } .box { fill: #f3f6f9; stroke: #8796a5; }
    .key { fill: #fff3d6; stroke: #b7791f; } .group { fill: none; stroke: #8796a5; }
    .line { stroke: #51606e; fill: none; } .tip { fill: #51606e; }
    .good { fill: #dcf3e4; stroke: #2f855a; } .bad { fill: #fde3e1; stroke: #c0392b; }
    text { fill: #1b2733; font: 14px system-ui, sans-serif; }
    .small { font-size: 12px; fill: #51606e; } .title { font-weight: 600; }
    .code { font-family: ui-monospace, monospace; font-size: 12px; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #10161d; } .box { fill: #1d2733; stroke: #6b7d8f; }
      .key { fill: #3b2f12; stroke: #d9a441; } .group { stroke: #6b7d8f; }
      .line { stroke: #a9b8c6; } .tip { fill: #a9b8c6; }
      .good { fill: #16382a; stroke: #5fbf8c; } .bad { fill: #43201d; stroke: #ef8379; }
      text { fill: #e6edf3; } .small { fill: #a9b8c6; }
    }
  </style>
"""


class Drawing:
    """One picture: shapes in the order in which they are added; lengths are pixels."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="t d">\n'
            f'  <title id="t">{escape(title)}</title>\n'
            f'  <desc id="d">{escape(description)}</desc>\n'
        )
        self._parts = [f'<rect class="page" width="{width}" height="{height}" rx="8"/>']

    def box(
        self, left: int, top: int, width: int, height: int, lines: Sequence[str], kind: str = "box"
    ) -> None:
        """A rectangle with centred lines of text; the first is its title."""
        self._parts.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>'
        )
        first = top + height // 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            style = "title" if number == 0 else "small"
            self.text(left + width // 2, first + 18 * number, line, style, "middle")

    def group(self, left: int, top: int, width: int, height: int, label: str) -> None:
        """A dashed frame with a label at its upper edge."""
        self._parts.append(
            f'<rect class="group" x="{left}" y="{top}" width="{width}" height="{height}" rx="10" '
            'stroke-dasharray="5 4"/>'
        )
        self.text(left + 12, top + 20, label, "small", "start")

    def text(self, left: int, top: int, words: str, kind: str, anchor: str = "start") -> None:
        """One line of text; `top` is its base line."""
        self._parts.append(
            f'<text class="{kind}" x="{left}" y="{top}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def arrow(self, points: Iterable[tuple[int, int]], *, dashed: bool = False) -> None:
        """A line through points, with a head at the last one. The last piece is axis-aligned."""
        path = list(points)
        (before_left, before_top), (left, top) = path[-2:]
        across = (left > before_left) - (left < before_left)
        down = (top > before_top) - (top < before_top)
        joined = " ".join(f"{x},{y}" for x, y in path)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline class="line" stroke-width="1.5" points="{joined}"{dash}/>')
        wing = [
            (left - 9 * across - 5 * down, top - 9 * down - 5 * across),
            (left, top),
            (left - 9 * across + 5 * down, top - 9 * down + 5 * across),
        ]
        self._parts.append(
            f'<polygon class="tip" points="{" ".join(f"{x},{y}" for x, y in wing)}"/>'
        )

    def svg(self) -> str:
        """The file's content."""
        body = "".join(f"  {part}\n" for part in self._parts)
        return f"{self._head}{STYLE}{body}</svg>\n"


def request() -> Drawing:
    """The way of a request and of its response."""
    made = Drawing(
        960,
        276,
        "The way of a request",
        "A client sends a request without credential. Keyrelay checks it, finds the route, removes "
        "the client's credential, adds the route's, and sends it to the provider over TLS. The "
        "response is redacted where needed and streamed back.",
    )
    made.box(20, 110, 120, 70, ["client", "no API key"])
    made.group(180, 30, 590, 226, "keyrelay, 127.0.0.1:8080")
    stages = [
        ("guard", "Host, Origin,", "inbound token"),
        ("route", "allow, deny,", "rate, size"),
        ("credential", "strip the client's,", "add the route's"),
        ("forward", "pooled and", "prewarmed TLS"),
    ]
    for number, lines in enumerate(stages):
        left = 200 + 142 * number
        made.box(left, 70, 124, 76, lines, "key" if number == 2 else "box")
        if number:
            made.arrow([(left - 18, 108), (left, 108)])
    made.box(820, 110, 120, 70, ["provider", "TLS verified"])
    made.arrow([(140, 130), (170, 130), (170, 108), (200, 108)])
    made.arrow([(750, 108), (795, 108), (795, 130), (820, 130)])
    made.box(200, 180, 266, 56, ["stream", "bytes as they arrive, both directions"])
    made.box(484, 180, 266, 56, ["redact", "an echoed credential, in errors"])
    made.arrow([(820, 162), (795, 162), (795, 208), (750, 208)])
    made.arrow([(484, 208), (466, 208)])
    made.arrow([(200, 208), (170, 208), (170, 162), (140, 162)])
    made.text(200, 166, "refusals: no connection is made", "small")
    return made


def token() -> Drawing:
    """The life of a token: fetched, renewed ahead, replaced when refused."""
    made = Drawing(
        960,
        330,
        "The life of a token",
        "A token is fetched at the start, serves requests, and is renewed in the background when a "
        "fifth of its lifetime is left. When the provider refuses it with 401, one new token is "
        "fetched and the request is sent once more.",
    )
    made.text(20, 34, "token endpoint", "title")
    made.text(20, 128, "token in use", "title")
    made.text(20, 222, "requests", "title")
    for left, words in ((170, "fetch"), (470, "renew"), (730, "replace")):
        made.box(left, 14, 90, 34, [words], "key")
    made.box(200, 100, 330, 44, ["token 1"], "good")
    made.box(530, 100, 200, 44, ["token 2"], "good")
    made.box(800, 100, 140, 44, ["token 3"], "good")
    made.box(730, 100, 70, 44, ["refused"], "bad")
    made.arrow([(200, 48), (200, 100)])
    made.arrow([(530, 48), (530, 100)])
    made.arrow([(805, 48), (805, 100)])
    made.text(210, 78, "one call, however many requests wait", "small")
    made.text(540, 78, "background, 1/5 of the lifetime left", "small")
    for left in (250, 330, 410, 490, 580, 650):
        made.box(left, 196, 50, 40, ["200"], "good")
        made.arrow([(left + 25, 196), (left + 25, 144)], dashed=True)
    made.box(725, 196, 50, 40, ["401"], "bad")
    made.box(815, 196, 50, 40, ["200"], "good")
    made.arrow([(750, 196), (750, 144)], dashed=True)
    made.arrow([(840, 196), (840, 144)], dashed=True)
    made.arrow([(775, 216), (815, 216)])
    made.text(795, 258, "the same request, sent once more", "small", "middle")
    made.text(
        20,
        298,
        "No token available: the old one is used while it is valid; after that requests get 502 or "
        "503 with Retry-After.",
        "small",
    )
    made.text(20, 316, "A token without requests for ten minutes is not renewed.", "small")
    return made


def rotation() -> Drawing:
    """The rotation of a key: two values, changed without a failed request."""
    made = Drawing(
        960,
        250,
        "The rotation of a key",
        "With two references the first value is used. If the provider refuses it, the request is "
        "sent again with the second value. Once the new key is active at the provider, a reload "
        "returns to the first value, and the old one can be revoked and removed.",
    )
    made.text(20, 30, "secrets: {api_key: [env:NEW, env:OLD]}", "code")
    steps = [
        (("1  before", "provider accepts OLD", "NEW is refused, OLD is used"), "box"),
        (("2  activated", "provider accepts both", "reload: NEW is used"), "box"),
        (("3  seven days", "OLD is unused", "status reports it"), "box"),
        (("4  after", "revoke OLD, then", "remove its reference"), "box"),
    ]
    for number, (lines, kind) in enumerate(steps):
        left = 20 + 238 * number
        made.box(left, 50, 206, 84, lines, kind)
        if number:
            made.arrow([(left - 32, 92), (left, 92)])
    made.box(20, 168, 90, 40, ["request"])
    made.box(176, 168, 110, 40, ["with NEW"], "key")
    made.box(352, 168, 70, 40, ["401"], "bad")
    made.box(488, 168, 110, 40, ["with OLD"], "key")
    made.box(664, 168, 70, 40, ["200"], "good")
    for left, right in ((110, 176), (286, 352), (422, 488), (598, 664)):
        made.arrow([(left, 188), (right, 188)])
    made.text(752, 184, "the client receives 200;", "small")
    made.text(752, 202, "bodies up to 64 KiB", "small")
    made.text(20, 236, "The value that works stays in use until it is refused as well.", "small")
    return made


def sidecar() -> Drawing:
    """The networks of a sidecar."""
    made = Drawing(
        960,
        330,
        "Sidecar network",
        "Application and keyrelay share one network namespace and its loopback. Only keyrelay's "
        "container has the key. Other containers cannot reach port 8080. Keyrelay connects to the "
        "provider over TLS.",
    )
    made.group(20, 20, 600, 240, "pod, or network_mode: service:keyrelay  (one network namespace)")
    made.box(
        50, 70, 200, 100, ["application", "no key, no secret mount", "listens on 0.0.0.0:3000"]
    )
    made.box(
        390, 70, 200, 100, ["keyrelay", "listens on 127.0.0.1:8080", "health check by command"]
    )
    made.box(430, 200, 120, 40, ["secret file"], "key")
    made.arrow([(490, 200), (490, 170)])
    made.arrow([(250, 120), (390, 120)])
    made.text(320, 108, "http, loopback", "small", "middle")
    made.box(760, 70, 180, 100, ["provider", "https://api…", "TLS verified"])
    made.arrow([(590, 120), (760, 120)])
    made.text(690, 108, "https + key", "small", "middle")
    made.box(760, 240, 180, 60, ["other container"], "box")
    made.arrow([(760, 285), (150, 285), (150, 170)])
    made.text(640, 279, "port 3000: reachable", "small", "middle")
    made.arrow([(760, 255), (640, 255)], dashed=True)
    made.box(624, 243, 16, 24, ["x"], "bad")
    made.text(700, 234, "port 8080: not reachable", "small", "middle")
    return made


PICTURES = {"request": request, "token": token, "rotation": rotation, "sidecar": sidecar}


def drawn() -> dict[str, str]:
    """Each file's name and content."""
    return {f"{name}.svg": make().svg() for name, make in PICTURES.items()}


if __name__ == "__main__":
    for file, content in drawn().items():
        (FOLDER / file).write_text(content, encoding="utf-8")
