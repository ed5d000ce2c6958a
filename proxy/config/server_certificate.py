"""The certificate of the TLS listeners: from files, or issued by the local authority."""

from __future__ import annotations

from pathlib import Path

from proxy.config.settings import Settings
from proxy.config.validation import listen_places, served_hosts
from proxy.errors import ConfigValueError, KeyrelayError
from proxy.http.address import parse_listen
from proxy.secrets.file import read_file
from proxy.secrets.key_pair import KeyPair
from proxy.secrets.source import SourceError
from proxy.upstream.authorities import read_authorities

# Validity of certificates by the local authority. Short, because nothing revokes them.
_LEAF_DAYS = 7.0


def has_tls(settings: Settings) -> bool:
    """Whether a listener has TLS."""
    return any(parse_listen(text).tls for text, _ in listen_places(settings))


def read_key_pair(settings: Settings, now: float) -> KeyPair | None:
    """The certificate of the TLS listeners, None without one. Blocking.

    From the files of ``tls``; without, issued by the local authority for every name of this
    keyrelay below localhost. ``now`` is in seconds since the epoch. Raises KeyrelayError.
    """
    if not has_tls(settings):
        return None
    if settings.tls is not None:
        try:
            # Without a key that the file may hold as well.
            certificate = read_authorities(Path(settings.tls.certificate)).encode("ascii")
            return KeyPair(certificate, read_file(settings.tls.key))
        except SourceError as error:
            raise KeyrelayError(f"tls.key: {error}") from None
        except ConfigValueError as error:
            raise KeyrelayError(f"tls.certificate: {error}") from None
    from proxy.secrets import local_authority

    authority = local_authority.load()
    if authority.expires <= now:
        raise KeyrelayError("the local authority has expired; run keyrelay ca --renew")
    return authority.issue(certified_hosts(settings), now, _LEAF_DAYS)


def certified_hosts(settings: Settings) -> list[str]:
    """The names and loopback addresses of this keyrelay that the local authority can certify."""
    routes = {f"{name}.localhost" for name in settings.routes}
    hosts = {one.strip("[]") for one in served_hosts(settings)} | routes
    return sorted(
        one
        for one in hosts
        if one == "localhost"
        or one.endswith(".localhost")
        or one == "::1"
        or one.startswith("127.")
    )
