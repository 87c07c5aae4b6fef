"""Where the servers are, when that may change.

Rule of this module: it asks, and says what it was told. What follows from it is the pool's
business.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, TypeAlias

from typed_amp.addresses import checked_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from typed_amp.addresses import OneAddress
    from typed_amp.supply import Address

__all__ = ["Finder", "found_addresses", "name_finder"]

Finder: TypeAlias = "Callable[[], Awaitable[Iterable[OneAddress]]]"
"""Says where the servers are now."""


def name_finder(host: str, port: int) -> Finder:
    """Give what looks a name up: each of its addresses is a server."""

    async def look_up() -> list[OneAddress]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [(str(name[0]), port) for *_, name in found]

    return look_up


async def found_addresses(find: Finder, timeout: float | None) -> list[Address]:
    """Ask where the servers are; each is in the answer once.

    Args:
        find: whom to ask.
        timeout: how many seconds that may take; None for any number.

    Raises:
        TimeoutError: it has taken longer.
        OSError: the name is unknown, or it has no address.
        Exception: what `find` raises.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            found = await find()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"no answer within {timeout:g} seconds") from error
    addresses = [*dict.fromkeys(checked_address(one) for one in found)]
    if not addresses:
        raise OSError("no address was found")
    return addresses
