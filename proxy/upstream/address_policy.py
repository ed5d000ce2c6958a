"""The policy for addresses that may be dialled.

Checked on the exact address of a connection, after name resolution, because a name can resolve to
any address: the cloud's metadata service, this machine, the private network.
"""

from __future__ import annotations

import functools
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from proxy.http.address import Origin

# RFC 6052 and 8215: IPv4 addresses embedded in IPv6 ones, extracted by a gateway on the path.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
# Decisions and addresses that are kept: both depend on their arguments alone, and the same few come
# with every connection. Parsing them each time takes a tenth of a WebSocket opening.
_KEPT = 256


@functools.lru_cache(maxsize=_KEPT)
def dialled_address(text: str) -> IPv4Address | IPv6Address:
    """The address that packets finally reach, extracted from mapped, NAT64, 6to4 and Teredo forms.

    Raises ValueError if ``text`` is not an address.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if any(address in network for network in _NAT64):
            return IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is not None:
            return inner
    return address


@functools.lru_cache(maxsize=_KEPT)
def may_dial(
    address: str, origin: Origin, *, allow_private: bool, allow_plaintext: bool = False
) -> bool:
    """Whether a connection to the configured ``origin`` may go to ``address``.

    Link-local (metadata services), multicast, unspecified and reserved addresses never. Private and
    loopback addresses only if the route allows them, or if the origin is such an address itself.
    Over plain http only this machine, unless the route allows more: what ``localhost`` resolves to
    is decided elsewhere.
    """
    target = dialled_address(address)
    if origin.scheme == "http" and not allow_plaintext and not _stays_here(address):
        return False
    if target.is_link_local or target.is_multicast or target.is_unspecified:
        return False
    if target.is_loopback:
        return origin.loopback or allow_private
    if target.is_reserved:
        # Not assigned; ::/96 in it was IPv4-compatible and may still be used so (RFC 4291 2.5.5.1).
        return False
    # fec0::/10 was private space before fc00::/7 (RFC 3879); ``is_global`` does not cover it.
    if target.is_global and not (isinstance(target, IPv6Address) and target.is_site_local):
        return True
    # Private and shared (100.64/10) addresses may belong to the own network.
    return allow_private or _names(origin, target)


def _stays_here(address: str) -> bool:
    """Whether packets to this address leave the machine for no gateway."""
    direct = ip_address(address.partition("%")[0])
    mapped = direct.ipv4_mapped if isinstance(direct, IPv6Address) else None
    return (mapped or direct).is_loopback


def _names(origin: Origin, target: IPv4Address | IPv6Address) -> bool:
    """Whether the configured host is the address ``target``."""
    try:
        return dialled_address(origin.host) == target
    except ValueError:  # a name, not an address
        return False
