"""What fails over NATS is told in the same words as over a connection."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.nats_servers import NatsServer
from tests.nats_services import Buy, Nowhere, Service, joined_by_nats
from tests.peers import LogCapture, joined
from typed_amp import (
    AmpError,
    Command,
    Connection,
    InvalidArgumentsError,
    NatsClient,
    UnknownRemoteError,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


class AnyRepeat(Command, name="Repeat"):
    text: str
    times: int


async def told(caller: Connection | NatsClient, command: Command[Any]) -> Exception:
    with pytest.raises((AmpError, KeyError)) as error:
        await caller.call(command)
    return error.value


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Buy(sku="teapot"), None),
        (Buy(sku="spoon"), None),
        (Buy(sku=""), None),
        (AnyRepeat(text="ab", times=-1), None),
        (Nowhere(), ZeroDivisionError("secret")),
        (Nowhere(), asyncio.CancelledError()),
    ],
    ids=lambda value: repr(value),
)
async def test_errors_are_told_in_the_same_words(
    nats: NatsServer, log: LogCapture, command: Command[Any], error: BaseException | None
) -> None:
    router = Service().router
    if error is not None:

        @router.responder(Nowhere)
        async def fail(command: Nowhere) -> Any:
            raise error

    async with joined_by_nats(router, nats.url) as (client, _), joined(router) as (connection, _):
        over_connection = await told(connection, command)
        over_nats = await told(client, command)
        assert repr(over_nats) == repr(over_connection)
        assert "secret" not in str(over_nats)
        if isinstance(over_nats, InvalidArgumentsError):
            assert over_nats.errors[0]["loc"] == ("times",)
        failures = [
            record.getMessage().partition(": ")[2]
            for record in log.records
            if record.levelno >= logging.WARNING
        ]
        assert failures[: len(failures) // 2] == failures[len(failures) // 2 :]
        assert bool(failures) == isinstance(over_nats, UnknownRemoteError)
