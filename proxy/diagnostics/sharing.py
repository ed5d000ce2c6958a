"""Whether tokens can be shared with other keyrelays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.app.token_sharing import open_shared_tokens
from proxy.auth.strategy import AuthContext
from proxy.config.settings import Settings
from proxy.diagnostics.diagnosis import Mark
from proxy.errors import KeyrelayError, SecretUnavailable

if TYPE_CHECKING:
    from proxy.auth.shared.tokens import SharedTokens


async def open_checked(
    settings: Settings, context: AuthContext
) -> tuple[SharedTokens | None, tuple[Mark, str, str]]:
    """Return what shares tokens by ``tokens:``, and mark, finding and advice of a check of it.

    None if it cannot be opened. To be closed by the caller.
    """
    loop = asyncio.get_running_loop()
    try:
        shared = await open_shared_tokens(settings, context)
    except SecretUnavailable as error:
        return None, ("fail", error.remedy, "")
    except KeyrelayError as error:
        return None, ("fail", str(error), "")
    assert shared is not None, "there is tokens: in the settings"
    began = loop.time()
    state = await shared.check()
    where = shared.settings.address
    if not state.usable:
        return shared, ("fail", f"{where}: {state.reason}", state.advice)
    return shared, ("ok", f"{where} in {(loop.time() - began) * 1000:.0f} ms", "")
