"""Opens what shares tokens with other keyrelays, from its settings and secrets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.auth.strategy import AuthContext
from proxy.config.settings import Settings
from proxy.routing.route_secrets import variables_in
from proxy.secrets import resolver
from proxy.secrets.secret import Secret
from proxy.upstream.authorities import read_authorities
from proxy.upstream.tls import tls_context

if TYPE_CHECKING:
    from proxy.auth.shared.tokens import SharedTokens


async def open_shared_tokens(settings: Settings, context: AuthContext) -> SharedTokens | None:
    """Return what ``tokens:`` asks for, None without it. To be closed by the caller.

    Does not connect: a server that is down hinders no start. Raises KeyrelayError if a secret of
    ``tokens:`` is missing, or the extra is not installed.
    """
    sharing = settings.tokens
    if sharing is None:
        return None
    # cryptography and redis are loaded by those that share tokens only.
    from proxy.auth.shared.tokens import KEY, PASSWORD, SharedTokens

    hidden = variables_in(settings)

    def reader(name: str) -> Callable[[], Secret] | None:
        source = sharing.password if name == PASSWORD else sharing.key
        if source is None:
            return None
        others = hidden - resolver.variables_of([source])
        return partial(resolver.resolve, name, source, hidden=others)

    read_password, read_key = reader(PASSWORD), reader(KEY)
    password = None if read_password is None else await resolver.in_thread(read_password)
    key = None if read_key is None else await resolver.in_thread(read_key)
    tls = None
    if sharing.address.scheme == "rediss":
        file = settings.ca_file
        tls = tls_context("" if file is None else read_authorities(Path(file)))
        tls.set_alpn_protocols([])  # Redis has none
    return SharedTokens(
        sharing,
        context.clock,
        context.spawn,
        tls=tls,
        password=password,
        reread=read_password,
        key=key,
        warn=context.warn,
    )
