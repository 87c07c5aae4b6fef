from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from typed_amp.finding import found_addresses, name_finder


async def test_a_name_has_its_addresses() -> None:
    addresses = await found_addresses(name_finder("localhost", 8000), 10)
    assert addresses
    assert set(addresses) <= {("127.0.0.1", 8000), ("::1", 8000)}
    assert await found_addresses(name_finder("127.0.0.1", 80), None) == [("127.0.0.1", 80)]


async def test_a_name_that_is_none() -> None:
    with pytest.raises(socket.gaierror):
        await found_addresses(name_finder("nowhere.invalid", 8000), None)


async def found(addresses: Iterable[Any]) -> list[Any]:
    async def find() -> Iterable[Any]:
        return addresses

    return await found_addresses(find, 10)


async def test_each_address_once() -> None:
    assert await found([("b", 1), "/x", ("a", 1), ("b", 1)]) == [("b", 1), "/x", ("a", 1)]
    assert await found(iter([("b", 1)])) == [("b", 1)]


async def test_no_address_and_no_addresses() -> None:
    with pytest.raises(OSError, match=r"^no address was found"):
        await found([])
    with pytest.raises(ValueError, match="there is no port 0"):
        await found([("a", 0)])
    with pytest.raises(TypeError, match="an address is"):
        await found(["/x", None])


async def test_one_that_takes_too_long_and_one_that_fails_by_itself() -> None:
    async def hang() -> list[Any]:
        await asyncio.Event().wait()
        return []

    async def fail() -> list[Any]:
        raise TimeoutError("the registry's own")

    with pytest.raises(TimeoutError, match=r"^no answer within 0\.01 seconds"):
        await found_addresses(hang, 0.01)
    with pytest.raises(TimeoutError, match=r"^the registry's own"):
        await found_addresses(fail, 10)
