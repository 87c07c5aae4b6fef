"""One ask, one answer; what of it only long or odd answers show. The rest is in `test_nats_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from tests.nats_servers import NatsServer, nats_server
from tests.nats_services import Text, joined_by_nats
from tests.peers import LogCapture
from typed_amp import Command, CommandError, Large, Router, UnknownRemoteError

pytestmark = pytest.mark.usefixtures("nothing_left")


class TooMuchError(CommandError):
    data: Annotated[bytes, Large()]


class Ask(Command[Text], errors={TooMuchError: "TOO_MUCH", ValueError: "VALUE"}):
    pass


class AskWithThatCode(Command[Text], name="Ask", errors={KeyError: "TOO_LONG"}):
    pass


async def test_answer_of_another_type_is_a_failure(nats: NatsServer, log: LogCapture) -> None:
    router = Router()

    @router.responder(Ask)
    async def answer(command: Ask) -> Text:
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    async with joined_by_nats(router, nats.url) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call(Ask())
    assert "is answered with a Text, but its responder returned a NoneType" in log.only_line()


async def test_code_of_a_command_is_never_another_error(nats: NatsServer, log: LogCapture) -> None:
    router = Router()

    @router.responder(AskWithThatCode)
    async def answer(command: AskWithThatCode) -> Text:
        return Text(text="x" * 2_000_000)

    async with joined_by_nats(router, nats.url) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call(AskWithThatCode())
    assert "max_payload" in log.only_line()


async def test_error_that_is_too_long_is_a_failure(nats: NatsServer, log: LogCapture) -> None:
    router = Router()

    @router.responder(Ask)
    async def answer(command: Ask) -> Text:
        raise TooMuchError(data=bytes(600_000))

    async with joined_by_nats(router, nats.url) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call(Ask())
    assert "an error of Ask is" in log.only_line()


async def test_long_description_is_cut_to_what_the_server_takes(tmp_path: Path) -> None:
    router = Router()

    @router.responder(Ask)
    async def answer(command: Ask) -> Text:
        raise ValueError("€" * 10_000)

    with nats_server(tmp_path, config="max_payload: 2000") as server:
        async with joined_by_nats(router, server.url) as (client, _):
            with pytest.raises(ValueError, match="€" * 250):
                await client.call(Ask())
