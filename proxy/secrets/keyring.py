"""``keyring:service/user``: the system's keyring, such as macOS Keychain or GNOME's.

The package ``keyring`` finds it. It is an extra, as servers have no keyring.
"""

from __future__ import annotations

from proxy.secrets.source import SourceError, in_time

INSTALL = "pip install 'keyrelay[keyring]'"


def read_keyring(rest: str, timeout_seconds: float) -> bytes:
    """The password of ``service/user``; a service may have slashes in it. Raises SourceError.

    A keyring may ask its owner to unlock it, and waits for that: for ``timeout_seconds`` at most.
    """
    route_service, _, user = rest.rpartition("/")
    value = in_time(lambda: _ask(route_service, user), "the keyring", timeout_seconds)
    if value is None:
        raise SourceError(
            f"add it with: keyring set {route_service} {user} (the keyring has no such entry)"
        )
    if not value:
        raise SourceError(f"add it with: keyring set {route_service} {user} (the entry is empty)")
    assert isinstance(value, str)
    return value.encode("utf-8", "surrogateescape")


def _ask(route_service: str, user: str) -> str | None:
    # In the thread as well, as finding the right backend may ask the desktop.
    try:
        import keyring
        from keyring.errors import KeyringLocked, NoKeyringError
    except ImportError:
        raise SourceError(f"run {INSTALL}: the package keyring is not installed") from None
    try:
        return keyring.get_password(route_service, user)
    except KeyringLocked:
        raise SourceError("unlock the keyring: it is locked") from None
    except NoKeyringError:
        raise SourceError("start a keyring, or use another source: this system has none") from None
    except Exception as error:  # noqa: BLE001  backends are many, and so is what they raise
        raise SourceError(f"look after the keyring: it failed ({type(error).__name__})") from None
