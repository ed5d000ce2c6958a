"""Sockets that one process opens and others accept from."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from proxy.errors import KeyrelayError
from proxy.origins import ListenAddress
from proxy.sharing import GivenPlaces, Offer, Offered, OpenPlaces

TEXT = "127.0.0.1:0"


def offer(stack: ExitStack, text: str, owner: str | None) -> tuple[Offer, int]:
    """A listening socket as it arrives: its descriptor is the taker's."""
    sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = ListenAddress("127.0.0.1", sock.getsockname()[1], None)
    return Offer(text, owner, address), os.dup(sock.fileno())


def put(offered: Offered, *offers: tuple[Offer, int]) -> None:
    offered.put([one for one, _ in offers], [descriptor for _, descriptor in offers])


def test_a_socket_is_taken_for_its_place_once() -> None:
    """By what is written and whose it is; where two are written alike, each gets another."""
    with ExitStack() as stack:
        offers = [offer(stack, TEXT, owner) for owner in (None, "acme", None)]
        offered = Offered()
        put(offered, *offers)
        taken = [offered.take(TEXT, owner, set()) for owner in ("acme", None, None)]
        assert [one.address for one in taken] == [offers[at][0].address for at in (1, 0, 2)]
        for one in taken:
            assert one.sock.getsockname()[1] == one.address.port
            one.sock.close()
        with pytest.raises(KeyrelayError, match="no socket at"):
            offered.take(TEXT, None, set())


def test_a_socket_in_use_is_not_taken_again() -> None:
    """All sockets are offered with every configuration; those that serve already stay aside."""
    with ExitStack() as stack:
        offers = [offer(stack, TEXT, None) for _ in range(2)]
        offered = Offered()
        put(offered, *offers)
        taken = offered.take(TEXT, None, {offers[0][0].address})
        assert taken.address == offers[1][0].address
        taken.sock.close()
        offered.close()


def test_what_is_not_taken_is_closed() -> None:
    """Also by the next configuration."""
    with ExitStack() as stack:
        first, second = (offer(stack, TEXT, None) for _ in range(2))
        offered = Offered()
        put(offered, first)
        put(offered, second)
        offered.close()
        for _, descriptor in (first, second):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)


def test_both_kinds_are_places() -> None:
    """What they do with real connections is in test_workers."""
    assert OpenPlaces.prepare is GivenPlaces.prepare
