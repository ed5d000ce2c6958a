"""Why a Redis server cannot be used, in words of keyrelay."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any

PUBLIC = "Redis has a public address, to which nothing is sent without TLS"
"""The reason for a connection that is closed before anything is sent."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the server cannot be used, and what to do about it, "" if it is only to be waited for."""

    reason: str
    advice: str = ""


def explain(error: Exception, errors: Any, *, password: bool) -> Trouble:
    """Return what went wrong, without the server's words.

    errors    the module with the exceptions of the library
    password  whether a password was sent
    """
    match error:
        case errors.AuthenticationError() if not password:
            return Trouble("Redis requires a password", "Set tokens.password.")
        case errors.AuthenticationError():
            return Trouble(
                "Redis refuses the password",
                "Check tokens.password, and the user name in tokens.share.",
            )
        case errors.NoPermissionError():
            return Trouble(
                "Redis denies the user a command",
                "Permit EVAL, GET, SET, DEL, EXISTS, PTTL, PEXPIRE and TIME, for the keys of "
                "tokens.prefix.",
            )
        case errors.TimeoutError():
            return Trouble("Redis does not respond in time")
        case errors.ConnectionError() if error.args == (PUBLIC,):
            return Trouble(PUBLIC, "Write rediss:// in tokens.share.")
        case errors.BusyLoadingError():
            return Trouble("Redis loads its data")
        case errors.ReadOnlyError():
            return Trouble("Redis is a read-only replica", "Write the primary in tokens.share.")
        case errors.OutOfMemoryError():
            return Trouble("Redis has no memory left", "Raise maxmemory of the server.")
        case errors.MovedError() | errors.ClusterDownError():
            return Trouble(
                "Redis is one node of a cluster", "Write a server of its own in tokens.share."
            )
        case errors.ResponseError() | errors.InvalidResponse():
            word = re.match(r"[A-Z]{2,20}\b", str(error))
            return Trouble(f"Redis responds with an error{f' ({word[0]})' if word else ''}")
    match error.__context__:
        case ssl.SSLCertVerificationError():
            return Trouble(
                "the certificate of Redis is not valid", "Check ca_file, and the host name."
            )
        case ssl.SSLError():
            return Trouble("the TLS handshake with Redis failed")
        case socket.gaierror():
            return Trouble("the host name of Redis cannot be resolved")
    if not isinstance(error, errors.RedisError | OSError):
        return Trouble(f"a call of Redis failed inside keyrelay ({type(error).__name__})")
    return Trouble("Redis cannot be reached")
