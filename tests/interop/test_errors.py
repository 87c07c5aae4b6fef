"""Calls that fail, and what becomes of the connection then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess, router
from typed_amp import (
    Connection,
    ConnectionLostError,
    NotAllowedError,
    RemoteAmpError,
    Router,
    UnhandledCommandError,
    UnknownRemoteError,
    serve,
)

TEXT = "said the peer, é"
STILL_THERE = ("EchoInteger", {"value": 1})
ANSWERED = {"answer": {"value": "0x1"}}


async def assert_lives(connection: Connection[Session]) -> None:
    assert (await connection.call(commands.EchoInteger(value=1))).value == 1


class TestWeCallTwisted:
    async def test_declared_error(self, connection: Connection[Session]) -> None:
        with pytest.raises(commands.RefusedError) as caught:
            await connection.call(commands.Fail(error="RefusedError"))
        assert caught.value.args == (TEXT,)
        await assert_lives(connection)

    async def test_declared_builtin_error(self, connection: Connection[Session]) -> None:
        with pytest.raises(KeyError, match=TEXT):
            await connection.call(commands.Fail(error="KeyError"))
        await assert_lives(connection)

    async def test_error_whose_fields_have_defaults(self, connection: Connection[Session]) -> None:
        with pytest.raises(commands.SoldOutError) as caught:
            await connection.call(commands.Fail(error="SoldOutError"))
        assert (str(caught.value), caught.value.since) == (TEXT, "always")

    async def test_error_whose_fields_twisted_does_not_send(
        self, connection: Connection[Session]
    ) -> None:
        with pytest.raises(RemoteAmpError) as caught:
            await connection.call(commands.Fail(error="OutOfStockError"))
        assert (caught.value.code, caught.value.description) == ("OUT_OF_STOCK", TEXT)
        await assert_lives(connection)

    async def test_code_that_we_do_not_know(self, connection: Connection[Session]) -> None:
        with pytest.raises(RemoteAmpError) as caught:
            await connection.call(commands.Fail(error="TwistedAloneError"))
        assert type(caught.value) is RemoteAmpError
        assert (caught.value.code, caught.value.description) == ("TWISTED_ALONE", TEXT)
        await assert_lives(connection)

    async def test_unhandled_command(self, connection: Connection[Session]) -> None:
        with pytest.raises(UnhandledCommandError, match="Unhandled Command: b'Unheard'"):
            await connection.call(commands.Unheard())
        await assert_lives(connection)

    @pytest.mark.parametrize(
        ("failing", "expected"),
        [
            pytest.param(
                commands.Fail(error="BrokenError"), commands.BrokenError, id="declared as fatal"
            ),
            pytest.param(commands.Fail(error="ValueError"), UnknownRemoteError, id="undeclared"),
            pytest.param(commands.Demanding(), UnknownRemoteError, id="missing argument"),
        ],
    )
    async def test_error_after_which_twisted_closes(
        self,
        connection: Connection[Session],
        failing: commands.Fail | commands.Demanding,
        expected: type[Exception],
    ) -> None:
        waiting, failed = await asyncio.gather(
            connection.call(commands.Wait()), connection.call(failing), return_exceptions=True
        )
        assert type(failed) is expected
        assert type(waiting) is ConnectionLostError
        await connection.wait_closed()
        with pytest.raises(ConnectionLostError):
            await connection.call(commands.EchoInteger(value=1))

    async def test_note_that_twisted_does_not_handle(self, connection: Connection[Session]) -> None:
        """Twisted has no other way to say so than to close."""
        waiting = asyncio.create_task(connection.call(commands.Wait()))
        await connection.call(commands.UnheardNote())
        with pytest.raises(ConnectionLostError):
            await waiting
        await connection.wait_closed()


class TestTwistedCallsUs:
    @pytest.mark.parametrize(
        ("error", "seen", "text"),
        [
            ("RefusedError", "RefusedError", TEXT),
            ("KeyError", "KeyError", TEXT),
            ("OutOfStockError", "OutOfStockError", "sku='A1', left=2"),
            ("SoldOutError", "SoldOutError", "since='noon'"),
            ("OursAloneError", "UnknownRemoteError", TEXT),
        ],
    )
    async def test_declared_error(
        self,
        our_server: OurServer,
        twisted_client: TwistedProcess,
        error: str,
        seen: str,
        text: str,
    ) -> None:
        failed, after = await twisted_client.call(
            our_server.where, ("Fail", {"error": error}), STILL_THERE
        )
        assert failed["error"] == seen
        assert text in failed["text"]
        assert after == ANSWERED

    async def test_refusal_of_a_guard(
        self, twisted_client: TwistedProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        guarded = Router(state=Session)
        guarded.include(router)

        @guarded.guard
        def integers_only(connection: Connection[Session], name: str) -> None:
            if name != "EchoInteger":
                raise NotAllowedError(TEXT)

        async with serve(guarded, "127.0.0.1", 0) as server:
            where = {"transport": "tcp", "port": server.addresses[0][1]}
            failed, after = await twisted_client.call(
                where, ("Fail", {"error": "RefusedError"}), STILL_THERE
            )
        assert failed["error"] == "UnknownRemoteError"
        assert TEXT in failed["text"]
        assert after == ANSWERED
        assert not caplog.records

    async def test_fatal_error(self, our_server: OurServer, twisted_client: TwistedProcess) -> None:
        waiting, failed = await twisted_client.play(
            "call_at_once",
            our_server.where,
            calls=[("Wait", {}), ("Fail", {"error": "BrokenError"})],
        )
        assert failed == {"error": "BrokenError", "text": TEXT}
        assert waiting["error"] == "ConnectionDone"

    async def test_undeclared_error(
        self,
        our_server: OurServer,
        twisted_client: TwistedProcess,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Unlike Twisted, we stay; like it, we tell nothing."""
        failed, after = await twisted_client.call(
            our_server.where, ("Fail", {"error": "ValueError"}), STILL_THERE
        )
        assert failed == {"error": "UnknownRemoteError", "text": "Code<UNKNOWN>: Unknown Error"}
        assert after == ANSWERED
        assert TEXT in caplog.text

    @pytest.mark.parametrize(
        ("call", "error", "text"),
        [
            pytest.param(
                ("Unheard", {}), "UnhandledCommand", "Unhandled Command: 'Unheard'", id="unhandled"
            ),
            pytest.param(
                ("Strict", {"value": 11}),
                "UnknownRemoteError",
                "value: Input should be less than or equal to 10",
                id="invalid arguments",
            ),
        ],
    )
    async def test_refused_call(
        self,
        our_server: OurServer,
        twisted_client: TwistedProcess,
        call: tuple[str, dict[str, Any]],
        error: str,
        text: str,
    ) -> None:
        failed, after = await twisted_client.call(our_server.where, call, STILL_THERE)
        assert failed["error"] == error
        assert text in failed["text"]
        assert after == ANSWERED

    async def test_note_that_we_do_not_handle(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        _, after = await twisted_client.call(our_server.where, ("UnheardNote", {}), STILL_THERE)
        assert after == ANSWERED
