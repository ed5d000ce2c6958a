"""Hot reload: put a changed configuration in force during operation, completely or not at all.

Files are polled once a second. The kernel has no uniform notification for a swapped mount in a
container, an editor's rename and a network disk; polling covers them all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from proxy.app.app import App
from proxy.app.status import Reload
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.errors import ConfigError, KeyrelayError
from proxy.secrets import resolver

_POLL_SECONDS = 1.0

# Identifies a file, its content, and whether no directory contains it any more; None for one that
# does not exist.
Signature = tuple[int, int, int, int, int, bool] | None


class Reloader:
    """Keeps an app on the configuration in its files.

    load          reads the settings anew: blocking, raises KeyrelayError
    files         the files that ``load`` reads for given settings, directories included
    say           receives a line about each reload
    taken         is called after each configuration that is put in force
    poll_seconds  interval of ``watch``

    A Reloader detects changes since its construction, so it is constructed before the app reads
    anything. Its construction reads the files' status: blocking.
    """

    def __init__(
        self,
        app: App,
        load: Callable[[], Settings],
        files: Callable[[Settings], Iterable[Path]],
        say: Callable[[str], object],
        *,
        taken: Callable[[], object] = lambda: None,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._app = app
        self._load = load
        self._files = files
        self._say = say
        self._taken = taken
        self._poll_seconds = poll_seconds
        self._lock = asyncio.Lock()
        # A rejected configuration: its files are polled too, since the fix may be made in them.
        self._refused: Settings | None = None
        self._faulty: frozenset[Path] = frozenset()
        self._asked: dict[str, float] = {}
        self._seen: Mapping[Path, Signature] = self._poll()

    async def reload(self) -> Reload:
        """Read everything again and put it in force, on request of the operator.

        The first values of secrets are used again as well. Cancelling leaves either the old or the
        new configuration in force.
        """
        report = await self._reload()
        if not report.findings:
            self._app.reset()
        return report

    async def _reload(self) -> Reload:
        async with self._lock:
            # ``watch`` detects later changes.
            self._seen = await asyncio.to_thread(self._poll)
            self._asked = {}
            report = await self._take(time.time())
            report = replace(report, warnings=_detached(self._seen))
            self._app.reloads.note(report)
            self._seen = {**await asyncio.to_thread(self._poll), **self._seen}
        if not report.findings:
            self._taken()
        for finding in (*report.warnings, *report.findings):
            self._say(finding)
        if report.findings:
            self._say("The configuration was not taken; the old one goes on serving.")
        elif report.changed:
            self._say(f"Reloaded: {'; '.join(report.changed)}.")
        return report

    async def _take(self, at: float) -> Reload:
        """Load the configuration and put it in force. The report has the time ``at`` and errors."""
        self._refused, self._faulty = None, frozenset()
        try:
            self._refused = await asyncio.to_thread(self._load)
            # Before its secrets are read, so that changes of files that are new in it are detected.
            self._seen = {**await asyncio.to_thread(self._poll), **self._seen}
            changed = await self._app.adopt(self._refused)
        except ConfigError as error:
            self._faulty = frozenset(Path(one.file) for one in error.findings)
            return Reload(at, findings=tuple(map(str, error.findings)))
        except KeyrelayError as error:
            return Reload(at, findings=tuple(str(error).splitlines()))
        except Exception as error:  # noqa: BLE001  after any fault the old one stays in force
            # The text of an unexpected error may hold a secret.
            return Reload(at, findings=(f"a fault inside keyrelay ({type(error).__name__})",))
        self._refused = None
        return Reload(at, changed=changed)

    async def watch(self) -> None:
        """Reload whenever a file has changed or a secret's ttl has passed, until cancelled."""
        pending = self._seen
        while True:
            await asyncio.sleep(self._poll_seconds)
            found = await asyncio.to_thread(self._poll)
            # A file that is written in pieces must be complete: two equal polls are required.
            settled, pending = found == pending, found
            changed = any(self._seen.get(file) != now for file, now in found.items())
            if (settled and changed) or self._due():
                await self._reload()

    def _poll(self) -> dict[Path, Signature]:
        files = set(self._faulty)
        for settings in filter(None, (self._app.settings, self._refused)):
            files |= _found(partial(self._files, settings))
            for secret in _secrets(settings):
                files |= _found(partial(resolver.watched_files, secret))
        return {file: _signature(file) for file in files}

    def _due(self) -> bool:
        """Whether a secret is to be resolved again although no file has changed."""
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
        yield from route.every_secret
    if settings.inbound_token is not None:
        yield settings.inbound_token


def _found(find: Callable[[], Iterable[Path]]) -> set[Path]:
    """Return the files that ``find`` names; none if a directory is not readable now."""
    try:
        return set(find())
    except OSError:
        return set()


def _signature(path: Path) -> Signature:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (
        status.st_ino,
        status.st_dev,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_nlink == 0,
    )


def _detached(files: Mapping[Path, Signature]) -> tuple[str, ...]:
    """A warning for each file that no directory contains any more and that is still readable.

    That is a mount of this single file, as in containers: a file that replaces it in its directory
    is never visible.
    """
    return tuple(
        f"{path}: this file is gone from its directory, and what replaced it there is not visible; "
        "mount the directory instead of the file, and restart keyrelay"
        for path, signature in sorted(files.items())
        if signature is not None and signature[-1]
    )
