"""Access control of the admin listener: the checks of ``server.guard``, with other rules.

The listener serves one page and the requests of that page. Any page may link to it, since it holds
no data; every other request of a foreign page fails the check of ``Sec-Fetch-Site`` or ``Origin``,
a rebound DNS name the check of ``Host``, another user or program of this machine the check of the
token. No response ever allows another origin.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from proxy.errors import Refusal
from proxy.http.address import LOOPBACK_NAMES, ListenAddress, bracketed

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(.*)", re.DOTALL)


class AdminGuard:
    """The guard of one admin listener.

    address  its address, with the actual port
    token    required of requests for data; None on a unix socket, which its file mode protects
    """

    def __init__(self, address: ListenAddress, token: str | None) -> None:
        self._hosts: frozenset[str] | None = None
        if address.host is not None:
            names = LOOPBACK_NAMES | {bracketed(address.host)}
            self._hosts = frozenset(f"{name}:{address.port}" for name in names)
            if address.port == 80:
                self._hosts |= names  # browsers leave the default port out
        self._digest = None if token is None else hashlib.sha256(token.encode()).digest()

    def admit(self, headers: Mapping[str, Sequence[str]], *, data: bool) -> None:
        """Raise Refusal if the request is not permitted.

        headers  all values by lower-case name
        data     whether it requests more than the page's own files, which hold no data
        """
        self._check_host(headers.get("host", ()))
        if data or not _opens_a_tab(headers):
            self._check_page(headers)
        if data and self._digest is not None:
            self._check_token(self._digest, headers.get("authorization", ()))

    def _check_host(self, values: Sequence[str]) -> None:
        """Check Host against DNS rebinding. Browsers cannot reach a unix socket: no check there."""
        if self._hosts is None:
            return
        if len(values) != 1 or values[0].lower() not in self._hosts:
            raise Refusal(
                421,
                "host-not-allowed",
                "The admin listener does not answer under this host name.",
                "Open the address that keyrelay status --page prints.",
            )

    def _check_page(self, headers: Mapping[str, Sequence[str]]) -> None:
        """Permit the listener's own page, a typed address, and clients other than browsers."""
        origins, sites = headers.get("origin", ()), headers.get("sec-fetch-site", ())
        hosts = headers.get("host", ())
        own = [f"http://{host.lower()}" for host in hosts[:1]]
        if (origins and [*origins] != own) or any(
            site not in {"none", "same-origin"} for site in sites
        ):
            raise Refusal(
                403,
                "browser-not-allowed",
                "Only the inspector's own page may ask the admin listener.",
                "Open the address that keyrelay status --page prints in a tab of its own.",
                headers=(("Vary", "Origin, Sec-Fetch-Site"),),
            )

    def _check_token(self, digest: bytes, values: Sequence[str]) -> None:
        """Compare digests: timing reveals nothing, and text of any length can be compared."""
        brought = [found[1] if (found := _BEARER.fullmatch(one)) else "" for one in values]
        text = brought[0] if len(brought) == 1 else ""
        seen = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(seen, digest):
            raise Refusal(
                401,
                "admin-token-needed",
                "The admin listener wants its token, and the request does not bring the right one.",
                "It is new at every start: open the address that keyrelay status --page prints, or "
                "send the token as Authorization: Bearer.",
                headers=(("WWW-Authenticate", "Bearer"),),
            )


def _opens_a_tab(headers: Mapping[str, Sequence[str]]) -> bool:
    """Whether a browser navigates a tab of its own, as after a click on a link of another page.

    Excludes frames, objects and every request of a script (Fetch Metadata, sections 2.1 and 2.2).
    A form that posts has an ``Origin``.
    """
    return (
        not headers.get("origin")
        and [*headers.get("sec-fetch-mode", ())] == ["navigate"]
        and [*headers.get("sec-fetch-dest", ())] == ["document"]
    )
