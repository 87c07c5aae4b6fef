from __future__ import annotations

import sys
from typing import Any

import pytest
from typing_extensions import Unpack

from typed_amp import Connection, ConnectionOptions, Limits, Router, connect, connect_process, serve
from typed_amp.testing import connection_pair

HOST = "127.0.0.1"


async def connected(port: int, **options: Unpack[ConnectionOptions]) -> Connection:
    """As somebody writes it who makes connections in a way of his own."""
    return await connect(HOST, port, **options)


async def test_options_can_be_passed_on() -> None:
    options: ConnectionOptions = {"drain_timeout": 0, "limits": Limits(max_box_bytes=100)}
    async with (
        serve(Router(), HOST, 0, **options) as server,
        await connected(server.addresses[0][1], **options) as connection,
    ):
        assert not connection.is_closed


@pytest.mark.parametrize("name", ["keepalive", "call_timeout", "drain_timeout"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_seconds_that_are_none_are_refused_where_they_are_written(
    name: str, seconds: float
) -> None:
    wrong: Any = {name: seconds}
    with pytest.raises(ValueError, match=f"{name} must"):
        await serve(Router(), HOST, 0, **wrong)
    with pytest.raises(ValueError, match=f"{name} must"):
        await connect(HOST, 1, **wrong)
    with pytest.raises(ValueError, match=f"{name} must"):
        await connect_process(sys.executable, **wrong)


async def test_option_that_does_not_exist_is_refused_where_it_is_written() -> None:
    wrong: Any = {"drain": 3}
    with pytest.raises(TypeError, match=r"no such option: drain\. There are limits, drain_timeout"):
        await serve(Router(), HOST, 0, **wrong)
    with pytest.raises(TypeError, match="drain"):
        await connect(HOST, 1, **wrong)
    with pytest.raises(TypeError, match="drain"):
        async with connection_pair(Router(), **wrong):
            raise AssertionError
