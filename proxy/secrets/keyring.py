"""Secret source ``keyring:service/user``: the system keyring (macOS Keychain, GNOME Keyring).

Read by the package ``keyring``, an optional extra because servers have no keyring.
"""

from __future__ import annotations

from proxy.secrets.source import SourceError, call_with_timeout

INSTALL = "pip install --editable '.[keyring]'"


def read_keyring(rest: str, timeout_seconds: float) -> bytes:
    """Return the password of ``service/user``; the service may contain slashes. Blocking.

    The keyring may prompt its owner to unlock it; the call waits ``timeout_seconds`` at most.

    Raises SourceError if the keyring is locked, absent or slow, or has no such entry.
    """
    service, _, user = rest.rpartition("/")
    value = call_with_timeout(lambda: _get(service, user), "the keyring", timeout_seconds)
    if value is None:
        raise SourceError(
            f"add it with: keyring set {service} {user} (the keyring has no such entry)"
        )
    if not value:
        raise SourceError(f"add it with: keyring set {service} {user} (the entry is empty)")
    assert isinstance(value, str)
    return value.encode("utf-8", "surrogateescape")


def _get(service: str, user: str) -> str | None:
    # Import in the thread: choosing the backend may call the desktop's services.
    try:
        import keyring
        from keyring.errors import KeyringLocked, NoKeyringError
    except ImportError:
        raise SourceError(f"run {INSTALL}: the package keyring is not installed") from None
    try:
        return keyring.get_password(service, user)
    except KeyringLocked:
        raise SourceError("unlock the keyring: it is locked") from None
    except NoKeyringError:
        raise SourceError("start a keyring, or use another source: this system has none") from None
    except Exception as error:  # noqa: BLE001  third-party backends raise any exception
        raise SourceError(f"check the keyring: it failed ({type(error).__name__})") from None
