"""The running app as the admin listener asks for it, where one process does everything."""

from __future__ import annotations

from typing import Any

from ..app import App
from ..journal import Journal
from ..observing.status import Reload
from ..observing.watching import Watchers
from ..reloading import Reloader


class Operating:
    """An ``Administered``: one app and what keeps it on its configuration."""

    def __init__(self, app: App, reloader: Reloader) -> None:
        self._app = app
        self._reloader = reloader

    @property
    def journal(self) -> Journal:
        return self._app.journal

    @property
    def watchers(self) -> Watchers:
        return self._app.watchers

    async def snapshots(self) -> list[dict[str, Any]]:
        """How every process is that serves."""
        return await self._app.snapshots()

    async def reload(self) -> Reload:
        """As ``Reloader.reload``."""
        return await self._reloader.reload()
