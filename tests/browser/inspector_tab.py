"""The inspector in a browser's tab: what a test sees of it, and does in it."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from tests.browser.webdriver import Browser
from tests.support.keyrelay import static_route

ROUTES = {
    "api": static_route("https://api.example.com"),
    "voice": static_route("https://voice.example.com/v2"),
    "later": static_route("https://later.example.com", secrets={"key": "env:LATER_API_KEY"}),
    "demo": {"provider": "demo"},
}
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "/": 191}


# Whether the rows in sight, newest first, are those of these paths.
SHOWN = """
    JSON.stringify([...document.querySelectorAll(".row")]
        .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
        .map((row) => row.querySelector(".path").textContent)) === JSON.stringify(arguments[0])
"""


# Texts that stand out too little from what is behind them (WCAG 2.2, 1.4.3).
CONTRAST = """
    const channel = (value) =>
        (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) =>
        0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = (node) => {
        for (let one = node; one; one = one.parentElement) {
            const colour = parsed(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return parsed(getComputedStyle(document.body).backgroundColor);
    };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.checkVisibility() || node.disabled) continue;
        const [a, b] = [parsed(getComputedStyle(node).color), behind(node)].map(luminance);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${node.className || node.tagName} ${ratio.toFixed(2)}`);
    }
    return poor;
"""


class Tab:
    """The browser's tab with the inspector in it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def open(self, url: str) -> None:
        await self._browser.open(url)

    async def run(self, script: str, *arguments: object) -> Any:
        return await self._browser.run(script, *arguments)

    async def tell(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        content: dict[str, object] = {"cmd": command, "params": parameters}
        return await self._browser._command("goog/cdp/execute", content)

    async def until(self, script: str, *arguments: object) -> Any:
        """Wait until an expression is truthy in the page; its value."""
        return await self.run(
            """
            const [given, ...rest] = arguments;
            const holds = Function(`return (${given.trim()});`);
            return new Promise((resolve, reject) => {
                const until = performance.now() + 25000;
                const look = () => {
                    const value = holds(...rest);
                    if (value) resolve(value);
                    else if (performance.now() > until) reject(new Error(`never: ${given}`));
                    else setTimeout(look, 20);
                };
                look();
            });
            """,
            script,
            *arguments,
        )

    async def rows(self, count: int) -> list[list[str]]:
        """The rows in sight, newest first, once there are so many."""
        await self.until("document.querySelectorAll('.row').length === arguments[0]", count)
        found: list[list[str]] = await self.run(
            """
            const rows = [...document.querySelectorAll(".row")];
            rows.sort((a, b) => a.getAttribute("aria-rowindex") - b.getAttribute("aria-rowindex"));
            return rows.map((row) => [...row.children].map((cell) => cell.textContent));
            """
        )
        return found

    async def press(self, key: str) -> None:
        """A key that is really pressed."""
        code = KEYS.get(key, ord(key[0].upper()))
        given: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        if len(key) == 1:
            given["text"] = key
        if key == "Enter":
            given["text"] = "\r"
        await self.tell("Input.dispatchKeyEvent", type="keyDown", **given)
        await self.tell("Input.dispatchKeyEvent", type="keyUp", **given)

    async def type(self, text: str) -> None:
        await self.tell("Input.insertText", text=text)

    async def look(self, name: str) -> None:
        """A screenshot, if KEYRELAY_SCREENSHOTS is set."""
        if folder := os.environ.get("KEYRELAY_SCREENSHOTS"):
            taken = await self.tell("Page.captureScreenshot", format="png")
            picture = Path(folder, f"{name}.png")
            picture.write_bytes(base64.b64decode(taken["data"]))  # noqa: ASYNC240  for a person

    async def size(self, width: int, height: int = 800) -> None:
        await self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def theme(self, name: str) -> None:
        await self.tell(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": name}],
        )

    async def click(self, selector: str) -> None:
        """A click of a real mouse in the middle of an element."""
        x, y = await self.run(
            """
            const box = document.querySelector(arguments[0]).getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];
            """,
            selector,
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.tell(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def windows(self) -> set[str]:
        """The handles of all tabs."""
        return set(await self._browser.ask("window/handles"))

    async def new_window(self, before: set[str]) -> None:
        """Wait for another tab than these, and go on in it."""
        async with asyncio.timeout(25):
            new = set[str]()
            while not new:
                new = await self.windows() - before
        await self._browser.enter(new.pop())

    async def pixels(self) -> Picture:
        """A screenshot as colours."""
        taken = await self.tell("Page.captureScreenshot", format="png")
        return Picture(base64.b64decode(taken["data"]))


class Picture:
    """The pixels of a PNG with 8 bits per channel and no interlacing, as Chromium writes it."""

    def __init__(self, png: bytes) -> None:
        at, data, width = 8, b"", 0
        while at < len(png):
            length, kind = struct.unpack_from("!I4s", png, at)
            chunk = png[at + 8 : at + 8 + length]
            if kind == b"IHDR":
                width, _, depth, colour, _, _, interlaced = struct.unpack("!IIBBBBB", chunk)
                assert (depth, interlaced) == (8, 0)
                self._channels = {2: 3, 6: 4}[colour]
            elif kind == b"IDAT":
                data += chunk
            at += 12 + length
        self._rows = self._unfiltered(zlib.decompress(data), width * self._channels)

    def at(self, x: float, y: float) -> str:
        """The colour of a pixel, as a computed style has it."""
        begin = int(x) * self._channels
        red, green, blue = self._rows[int(y)][begin : begin + 3]
        return f"rgb({red}, {green}, {blue})"

    def _unfiltered(self, data: bytes, size: int) -> list[bytearray]:
        """Undo the filters of the rows (PNG specification, section 9)."""
        rows: list[bytearray] = []
        before = bytearray(size)
        for begin in range(0, len(data), size + 1):
            row = bytearray(data[begin + 1 : begin + 1 + size])
            for place in range(size):
                left = row[place - self._channels] if place >= self._channels else 0
                corner = before[place - self._channels] if place >= self._channels else 0
                up = before[place]
                row[place] = (row[place] + _predicted(data[begin], left, up, corner)) & 255
            rows.append(row)
            before = row
        return rows


def _predicted(filtering: int, left: int, up: int, corner: int) -> int:
    if filtering == 4:
        distances = [(abs(up - corner), left), (abs(left - corner), up)]
        distances.append((abs(left + up - 2 * corner), corner))
        return min(distances, key=lambda one: one[0])[1]
    return (0, left, up, (left + up) // 2)[filtering]
