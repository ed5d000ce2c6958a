"""Taking a changed configuration while requests go on: the whole of it, or nothing and why not.

Files are looked at once a second. Nobody is told by the kernel about a mount that is swapped in a
container, an editor's rename or a network disk in one and the same way; looking is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from proxy.app.app import App
from proxy.app.status import Reload
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.errors import ConfigError, KeyrelayError
from proxy.secrets import resolver

_LOOK_SECONDS = 1.0

# What tells that a file is another one, or has another content; None for one that is not there.
Signature = tuple[int, int, int, int, int] | None


class Reloader:
    """Keeps an app on the configuration that its files say.

    load   reads the settings anew: blocking, raises KeyrelayError
    files  what ``load`` read to come to some settings, directories included
    say    gets a line about each reload

    ``look_seconds`` is how often ``watch`` looks. What changes after a Reloader has been made is
    seen, so it is made before the app reads anything. Making it looks at the files: blocking.
    """

    def __init__(
        self,
        app: App,
        load: Callable[[], Settings],
        files: Callable[[Settings], Iterable[Path]],
        say: Callable[[str], object],
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._app = app
        self._load = load
        self._files = files
        self._say = say
        self._look_seconds = look_seconds
        self._lock = asyncio.Lock()
        # What was not taken: its files are looked at too, since they may be what will be mended.
        self._refused: Settings | None = None
        self._faulty: frozenset[Path] = frozenset()
        self._asked: dict[str, float] = {}
        self._seen: Mapping[Path, Signature] = self._look()

    async def reload(self) -> Reload:
        """Read everything again and serve by it. Cancelling leaves the old or the new in force.

        For whoever asks for it: the first values of secrets are tried again as well.
        """
        report = await self._reload()
        if not report.findings:
            self._app.reset()
        return report

    async def _reload(self) -> Reload:
        async with self._lock:
            # What changes from here on is seen by ``watch``.
            self._seen = await asyncio.to_thread(self._look)
            self._asked = {}
            report = await self._take(time.time())
            self._app.reloads.note(report)
            self._seen = {**await asyncio.to_thread(self._look), **self._seen}
        for finding in report.findings:
            self._say(finding)
        if report.findings:
            self._say("The configuration was not taken; the old one goes on serving.")
        elif report.changed:
            self._say(f"Reloaded: {'; '.join(report.changed)}.")
        return report

    async def _take(self, at: float) -> Reload:
        """Load and serve by it; ``at`` is when. What went wrong is in the report."""
        self._refused, self._faulty = None, frozenset()
        try:
            self._refused = await asyncio.to_thread(self._load)
            # Before its secrets are read: so is what only now belongs to it.
            self._seen = {**await asyncio.to_thread(self._look), **self._seen}
            changed = await self._app.adopt(self._refused)
        except ConfigError as error:
            self._faulty = frozenset(Path(one.file) for one in error.findings)
            return Reload(at, findings=tuple(map(str, error.findings)))
        except KeyrelayError as error:
            return Reload(at, findings=tuple(str(error).splitlines()))
        except Exception as error:  # noqa: BLE001  whatever went wrong, the old one goes on serving
            # Nobody foresaw it, so nobody knows whether its text holds a secret.
            return Reload(at, findings=(f"a fault inside keyrelay ({type(error).__name__})",))
        self._refused = None
        return Reload(at, changed=changed)

    async def watch(self) -> None:
        """Reload whenever a file has changed or a secret's time is over, until cancelled."""
        pending = self._seen
        while True:
            await asyncio.sleep(self._look_seconds)
            found = await asyncio.to_thread(self._look)
            # Whoever writes a file in pieces gets the time to finish it.
            settled, pending = found == pending, found
            changed = any(self._seen.get(file) != now for file, now in found.items())
            if (settled and changed) or self._due():
                await self._reload()

    def _look(self) -> dict[Path, Signature]:
        files = set(self._faulty)
        for settings in filter(None, (self._app.settings, self._refused)):
            files |= _found(partial(self._files, settings))
            for secret in _secrets(settings):
                files |= _found(partial(resolver.watched_files, secret))
        return {file: _signature(file) for file in files}

    def _due(self) -> bool:
        """Whether a secret is to be asked for again although no file has changed."""
        now = time.monotonic()
        due = False
        for secret in _secrets(self._app.settings):
            seconds = resolver.ttl(secret)
            if seconds is not None:
                key = repr(secret.references)
                due = due or now - self._asked.setdefault(key, now) >= seconds
        return due


def _secrets(settings: Settings) -> Iterable[SecretSettings]:
    for route in settings.routes.values():
        yield from route.secrets.values()
    if settings.inbound_token is not None:
        yield settings.inbound_token


def _found(find: Callable[[], Iterable[Path]]) -> set[Path]:
    """The files that ``find`` names; none in a directory that nobody here may look into now."""
    try:
        return set(find())
    except OSError:
        return set()


def _signature(path: Path) -> Signature:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_ino, status.st_dev, status.st_mode, status.st_size, status.st_mtime_ns)
