"""Which addresses may be dialled, in every form an address can hide in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.address import Origin
from proxy.upstream.address_policy import dialled_address, may_dial

PUBLIC = Origin("https", "api.acme.test", 443)
LOCALHOST = Origin("http", "localhost", 8000)


def embedded(address: IPv4Address) -> list[str]:
    """The IPv6 forms that lead to an IPv4 address."""
    number = int(address)
    return [
        f"::ffff:{address}",
        f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}",
        f"64:ff9b::{address}",
        f"64:ff9b:1::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        str(IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF))),
    ]


METADATA = ["169.254.169.254", *embedded(IPv4Address("169.254.169.254")), "fe80::1", "fe80::1%eth0"]


@given(st.ip_addresses(v=4))
def test_embedded_addresses_are_unpacked(address: IPv4Address) -> None:
    """T30: mapped, NAT64, 6to4 and Teredo forms are judged by where their packets arrive."""
    assert dialled_address(str(address)) == address
    for form in embedded(address):
        assert dialled_address(form) == address, form


def test_an_ordinary_address_is_itself() -> None:
    """Nothing is unpacked where nothing is packed; a zone does not matter."""
    assert dialled_address("2606:4700::1") == ip_address("2606:4700::1")
    assert dialled_address("fe80::1%lo") == ip_address("fe80::1")


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "0x7f000001", "1.2.3.4:80", "[::1]"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    """Only what a resolver gives can be judged."""
    with pytest.raises(ValueError, match="does not appear to be"):
        dialled_address(text)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1", "64:ff9b::101:101"])
def test_public_addresses_may_be_dialled(address: str) -> None:
    """The usual case needs no setting."""
    assert may_dial(address, PUBLIC, allow_private=False)


@pytest.mark.parametrize(
    "address",
    [
        *METADATA,
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "::ffff:255.255.255.255",
        "::10.0.0.1",
        "4000::1",
    ],
)
def test_some_addresses_are_never_dialled(address: str) -> None:
    """T30: metadata services, multicast and reserved networks, whatever a route allows or names."""
    for origin in (PUBLIC, LOCALHOST, Origin("http", "169.254.169.254", 80)):
        for allow_private in (False, True):
            assert not may_dial(address, origin, allow_private=allow_private)


PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "fec0::1"]


@pytest.mark.parametrize("address", [*PRIVATE, *embedded(IPv4Address("10.0.0.1"))])
def test_private_addresses_need_permission(address: str) -> None:
    """T30: a public name cannot lead into the inner network, unless the route says so."""
    assert not may_dial(address, PUBLIC, allow_private=False)
    assert not may_dial(address, LOCALHOST, allow_private=False)
    assert may_dial(address, PUBLIC, allow_private=True)


def test_a_private_address_that_is_configured_may_be_dialled() -> None:
    """An address written out is permitted, and no other one."""
    named = Origin("https", "10.0.0.1", 443)
    assert may_dial("10.0.0.1", named, allow_private=False)
    assert may_dial("::ffff:10.0.0.1", named, allow_private=False)
    assert not may_dial("10.0.0.2", named, allow_private=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_for_loopback_origins(address: str) -> None:
    """T30: a public name that points at this machine is refused; localhost is not."""
    assert not may_dial(address, PUBLIC, allow_private=False)
    assert not may_dial(address, Origin("https", "10.0.0.1", 443), allow_private=False)
    assert may_dial(address, PUBLIC, allow_private=True)
    for origin in (LOCALHOST, Origin("http", "127.0.0.1", 80), Origin("http", "::1", 80)):
        assert may_dial(address, origin, allow_private=False)


@given(st.ip_addresses())
def test_an_ipv4_address_fares_alike_in_every_form(address: IPv4Address | IPv6Address) -> None:
    """T30: no way of writing an address gets more through than another."""
    if isinstance(address, IPv4Address):
        for allow_private in (False, True):
            plain = may_dial(str(address), PUBLIC, allow_private=allow_private)
            for form in embedded(address):
                assert may_dial(form, PUBLIC, allow_private=allow_private) is plain, form
    else:
        reached = dialled_address(str(address))
        assert may_dial(str(address), PUBLIC, allow_private=False) <= reached.is_global
