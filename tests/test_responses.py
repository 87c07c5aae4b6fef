"""Each row of the table of errors, on the wire and at the caller; and that nothing else breaks."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.example_commands import (
    Buy,
    Echo,
    Log,
    Make,
    OutOfStock,
    Repeat,
    ShopClosedError,
    Text,
    Wait,
    example_router,
)
from tests.gate import Gate
from tests.peers import LogCapture, joined, raw_client_of, raw_server_of, settled
from typed_amp import (
    Box,
    Command,
    CommandError,
    Connection,
    ConnectionLostError,
    DecodeError,
    InvalidArgumentsError,
    RemoteAmpError,
    Router,
    UnhandledCommandError,
    UnknownRemoteError,
)

REPEAT: Box = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab", b"times": b"2"}
BUY: Box = {b"_ask": b"1", b"_command": b"Buy", b"sku": b"A1"}
UNKNOWN: Box = {
    b"_error": b"1",
    b"_error_code": b"UNKNOWN",
    b"_error_description": b"Unknown Error",
}


def shop(failure: BaseException) -> Router:
    """Make a router whose Buy fails so, and whose Repeat works."""
    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise failure

    return router


def unchecked(**fields: Any) -> Text:
    """Make an answer that its model would have refused."""
    return Text.model_construct(**fields)


def shop_that_returns(answer: Any) -> Router:
    """Make a router whose Buy returns what it shouldn't."""
    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        return answer  # type: ignore[no-any-return]

    return router


async def answer_to(router: Router, box: Box) -> Box:
    """Give what a raw peer gets for a box, having seen that the connection lives on."""
    async with raw_client_of(router) as (peer, _):
        answer = await peer.ask(box)
        assert await peer.ask(REPEAT) == {b"_answer": b"1", b"text": b"abab"}
        return answer


async def error_of(router: Router, command: Command[Any]) -> Exception:
    """Give what our caller gets for a command, having seen that the connection lives on."""
    async with joined(router) as (client, _):
        with pytest.raises(Exception) as caught:
            await client.call(command)
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        return caught.value


# -- The table, row by row ---------------------------------------------------------------------


class Nobody(Command):
    """Has no responder."""


async def test_answer() -> None:
    assert await answer_to(example_router(), REPEAT) == {b"_answer": b"1", b"text": b"abab"}


async def test_no_responder(log: LogCapture) -> None:
    box: Box = {b"_ask": b"1", b"_command": b"Nobody"}
    assert await answer_to(example_router(), box) == {
        b"_error": b"1",
        b"_error_code": b"UNHANDLED",
        b"_error_description": b"Unhandled Command: 'Nobody'",
    }
    error = await error_of(example_router(), Nobody())
    assert type(error) is UnhandledCommandError
    assert str(error) == "UNHANDLED: Unhandled Command: 'Nobody'"
    assert any("Nobody is answered with UNHANDLED" in line for line in log.lines(logging.DEBUG))


async def test_refusal_that_the_caller_is_not_told_is_in_the_log(log: LogCapture) -> None:
    router = example_router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        pytest.fail("it was carried out")

    async with raw_client_of(router) as (peer, _):
        await peer.send({b"_command": b"Log"}, {b"_command": b"Log"})
        await peer.send({b"_command": b"No\n" + b"o" * 5_000}, REPEAT)
        assert await peer.receive() == {b"_answer": b"1", b"text": b"abab"}
    assert log.only_line().endswith(
        ": refused Log, whose caller is told nothing: line: Field required (others: level DEBUG)"
    )
    refused = [line for line in log.lines(logging.DEBUG) if "is refused with" in line]
    assert len(refused) == 3

    async with raw_client_of(router) as (peer, _):  # once for each connection
        await peer.send({b"_command": b"No\n" + b"o" * 5_000}, REPEAT)
        await peer.receive()
    line = log.lines()[1]
    assert r"refused No\noooo" in line
    assert "told nothing: Unhandled Command: 'No" in line
    assert len(line) < 1_000


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        ({b"times": b"2"}, b"text: Field required"),
        ({b"text": b"secret", b"times": b"1_0"}, b"times: "),
        ({b"text": b"\xff\xfe"}, b"text: not UTF-8"),
        ({b"text": b"secret", b"times": b"-1"}, b"times: Input should be greater than or equal"),
    ],
    ids=["missing", "undecodable", "no text", "refused by the model"],
)
async def test_invalid_arguments(arguments: Box, description: bytes) -> None:
    box = {b"_ask": b"1", b"_command": b"Repeat", **arguments}
    answer = await answer_to(example_router(), box)
    assert answer.keys() == UNKNOWN.keys()
    assert answer[b"_error_code"] == b"INVALID_ARGUMENTS"
    assert answer[b"_error_description"].startswith(description)
    assert b"secret" not in answer[b"_error_description"]


async def test_invalid_arguments_at_the_caller() -> None:
    class LaxRepeat(Command[Text], name="Repeat"):
        text: str
        times: int

    error = await error_of(example_router(), LaxRepeat(text="ab", times=1001))
    assert type(error) is InvalidArgumentsError
    assert isinstance(error, ValueError)
    assert error.code == "INVALID_ARGUMENTS"
    assert error.description.startswith("times: Input should be less than or equal to 1000")


async def test_declared_error(log: LogCapture) -> None:
    router = shop(ValueError("A1 is no good"))
    assert await answer_to(router, BUY) == {
        b"_error": b"1",
        b"_error_code": b"BAD_VALUE",
        b"_error_description": b"A1 is no good",
    }
    error = await error_of(router, Buy())
    assert type(error) is ValueError
    assert str(error) == "A1 is no good"
    assert not log.lines()


async def test_declared_error_stands_for_its_subclasses() -> None:
    error = await error_of(shop(UnicodeError("ä")), Buy())
    assert type(error) is ValueError
    assert str(error) == "ä"


class BuyMany(Buy, errors={OverflowError: "TOO_MANY"}):
    """Fails in the ways of Buy, and in one of its own."""


@pytest.mark.parametrize("failure", [ValueError("no good"), OverflowError("ten at the most")])
async def test_declared_errors_are_inherited(failure: Exception) -> None:
    router = example_router()

    @router.responder(BuyMany)
    async def buy_many(command: BuyMany) -> Text:
        raise failure

    error = await error_of(router, BuyMany())
    assert type(error) is type(failure)
    assert str(error) == str(failure)


async def test_declared_error_with_fields() -> None:
    router = shop(OutOfStock(sku="A1", left=3))
    assert await answer_to(router, BUY) == {
        b"_error": b"1",
        b"_error_code": b"OUT_OF_STOCK",
        b"_error_description": b"sku='A1', left=3",
        b"sku": b"A1",
        b"left": b"3",
    }
    error = await error_of(router, Buy())
    assert isinstance(error, OutOfStock)
    assert (error.sku, error.left) == ("A1", 3)


async def test_declared_error_of_a_peer_that_knows_no_fields() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Buy()))
        tag = (await peer.receive())[b"_ask"]
        await peer.send(
            {b"_error": tag, b"_error_code": b"OUT_OF_STOCK", b"_error_description": b"none"}
        )
        with pytest.raises(RemoteAmpError) as caught:
            await call
        assert type(caught.value) is RemoteAmpError
        assert (caught.value.code, caught.value.description) == ("OUT_OF_STOCK", "none")
        assert isinstance(caught.value.__cause__, DecodeError)


async def test_fatal_error(log: LogCapture) -> None:
    router = shop(ShopClosedError("come back tomorrow"))
    async with raw_client_of(router) as (peer, connection):
        assert await peer.ask(BUY) == {
            b"_error": b"1",
            b"_error_code": b"SHOP_CLOSED",
            b"_error_description": b"come back tomorrow",
        }
        assert await peer.is_at_end()
        await connection.wait_closed()
        with pytest.raises(ConnectionLostError, match="come back tomorrow") as caught:
            await connection.call(Echo(data=b""))
        assert isinstance(caught.value.__cause__, ShopClosedError)
    async with joined(router) as (client, _):
        with pytest.raises(ShopClosedError, match="come back tomorrow"):
            await client.call(Buy())
        await client.wait_closed()
        with pytest.raises(ConnectionLostError):
            await client.call(Repeat(text="ab"))
    assert not log.lines()


async def test_undeclared_exception_tells_the_peer_nothing(log: LogCapture) -> None:
    router = shop(ZeroDivisionError("a secret"))
    assert await answer_to(router, BUY) == UNKNOWN
    line = log.only_line()
    assert "the responder of Buy failed" in line
    assert "Traceback" in line
    assert "ZeroDivisionError: a secret" in line
    error = await error_of(router, Buy())
    assert type(error) is UnknownRemoteError
    assert str(error) == "UNKNOWN: Unknown Error"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "a Text, but its responder returned a NoneType"),
        ("abab", "a Text, but its responder returned a str"),
        ({"text": "abab"}, "a Text, but its responder returned a dict"),
        (unchecked(), "Text.text: there is no value"),
        (unchecked(text=5), "Text.text: "),
        (Text(text="\ud800"), "Text.text: a text with surrogates"),
        (Text(text="x" * 65_536), "Text.text is 65,536 bytes long"),
    ],
    ids=["None", "a str", "a dict", "no field", "a wrong field", "a surrogate", "too long"],
)
async def test_answer_that_is_not_what_the_command_declares(
    answer: Any, reason: str, log: LogCapture
) -> None:
    # Buy declares ValueError, and what is wrong with the answer is a ValueError too.
    router = shop_that_returns(answer)
    assert await answer_to(router, BUY) == UNKNOWN
    assert reason in log.only_line()
    assert type(await error_of(router, Buy())) is UnknownRemoteError


async def test_answer_to_a_command_without_one(log: LogCapture) -> None:
    router = example_router()

    @router.responder(Nobody)
    async def rubbish(command: Nobody) -> Any:
        return 5

    assert await answer_to(router, {b"_ask": b"1", b"_command": b"Nobody"}) == UNKNOWN
    assert "Nobody has no answer, but its responder returned a int" in log.only_line()


async def test_code_that_the_caller_does_not_know() -> None:
    class BuyAsTheShopKnowsIt(Command[Text], name="Buy", errors={OverflowError: "TOO_MANY"}):
        sku: str

    router = example_router()

    @router.responder(BuyAsTheShopKnowsIt)
    async def buy(command: BuyAsTheShopKnowsIt) -> Text:
        raise OverflowError("ten at the most")

    error = await error_of(router, Buy())
    assert type(error) is RemoteAmpError
    assert (error.code, error.description) == ("TOO_MANY", "ten at the most")


async def test_connection_goes_while_a_call_waits() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="ab")))
        await peer.receive()
        peer.socket.close()
        with pytest.raises(ConnectionLostError, match=r"Repeat: .* the peer closed it") as caught:
            await call
        assert isinstance(caught.value.__cause__, EOFError)


# -- Errors that are hard to write -------------------------------------------------------------


async def test_description_too_long_to_travel_is_cut(log: LogCapture) -> None:
    answer = await answer_to(shop(ValueError("ä" * 40_000)), BUY)
    assert answer[b"_error_code"] == b"BAD_VALUE"
    assert answer[b"_error_description"] == "ä".encode() * 32_767
    assert not log.lines()


async def test_description_with_surrogates_is_escaped() -> None:
    answer = await answer_to(shop(ValueError("\ud800")), BUY)
    assert answer[b"_error_description"] == rb"\ud800"


async def test_error_without_a_text() -> None:
    assert (await answer_to(shop(ValueError()), BUY))[b"_error_description"] == b""
    error = await error_of(shop(ValueError()), Buy())
    assert type(error) is ValueError


class UnspeakableError(ValueError):
    def __str__(self) -> str:
        raise ZeroDivisionError("no text either")


async def test_error_whose_text_fails(log: LogCapture) -> None:
    assert await answer_to(shop(UnspeakableError()), BUY) == UNKNOWN
    assert "ZeroDivisionError: no text either" in log.only_line()


async def test_error_whose_fields_can_not_be_written(log: LogCapture) -> None:
    assert await answer_to(shop(OutOfStock(sku="x" * 65_536)), BUY) == UNKNOWN
    assert "OutOfStock.sku is 65,536 bytes long" in log.only_line()
    assert "Mark the field with Large()" in log.only_line()


class UnspeakableClosedError(ShopClosedError):
    def __str__(self) -> str:
        raise ZeroDivisionError


async def test_fatal_error_whose_text_fails_is_fatal_nonetheless() -> None:
    async with raw_client_of(shop(UnspeakableClosedError())) as (peer, _):
        assert await peer.ask(BUY) == UNKNOWN
        assert await peer.is_at_end()


class Refused(CommandError):
    reason: str


class Open(Command[Text], fatal_errors={Refused: "REFUSED"}):
    """Fails fatally, with a field."""


async def test_fatal_error_with_fields() -> None:
    router = Router()

    @router.responder(Open)
    async def refuse(command: Open) -> Text:
        raise Refused(reason="a Sunday")

    async with joined(router) as (client, _):
        with pytest.raises(Refused) as caught:
            await client.call(Open())
        assert caught.value.reason == "a Sunday"
        await client.wait_closed()


async def test_responder_that_is_cancelled_by_itself(log: LogCapture) -> None:
    assert await answer_to(shop(asyncio.CancelledError()), BUY) == UNKNOWN
    assert log.lines(), "a call failed, and nothing says so"


# -- Tags --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [b"", b"1", b"\0", bytes(range(256)), b"x" * 65_535, b"\xff\n"])
async def test_ask_is_opaque(tag: bytes) -> None:
    async with raw_client_of(example_router()) as (peer, _):
        assert await peer.ask({**REPEAT, b"_ask": tag}) == {b"_answer": tag, b"text": b"abab"}
        unknown: Box = {b"_ask": tag, b"_command": b"Nobody"}
        assert (await peer.ask(unknown))[b"_error"] == tag


async def test_same_tag_twice_is_answered_twice() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        await peer.send(REPEAT, {**REPEAT, b"times": b"1"})
        assert await peer.receive() == {b"_answer": b"1", b"text": b"abab"}
        assert await peer.receive() == {b"_answer": b"1", b"text": b"ab"}


@pytest.mark.parametrize(
    "box",
    [
        {b"_command": b"Nobody"},
        {b"_command": b"Repeat"},
        {b"_command": b"Repeat", b"text": b"ab"},
        {b"_command": b"Buy"},
    ],
    ids=["no responder", "invalid arguments", "an answer", "an error"],
)
async def test_without_ask_there_is_no_answer(box: Box) -> None:
    async with raw_client_of(shop(ZeroDivisionError())) as (peer, _):
        await peer.send(box)
        assert await peer.ask({**REPEAT, b"_ask": b"later"}) == {
            b"_answer": b"later",
            b"text": b"abab",
        }


async def test_no_answer_command_of_a_peer_that_wants_an_answer() -> None:
    router = Router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        pass

    async with raw_client_of(router) as (peer, _):
        box: Box = {b"_ask": b"7", b"_command": b"Log", b"line": b"x"}
        assert await peer.ask(box) == {b"_answer": b"7"}


class Failing(Command, requires_answer=False, errors={ValueError: "BAD_VALUE"}):
    """Answered with an error that nobody waits for."""


async def test_error_that_nobody_is_told_is_in_the_log(log: LogCapture) -> None:
    router = example_router()

    @router.responder(Failing)
    async def fail(command: Failing) -> None:
        raise ValueError("no good")

    async with joined(router) as (client, _):
        await client.call(Failing())
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
    assert "the responder of Failing failed" in log.only_line()
    assert "ValueError: no good" in log.only_line()


async def test_rubbish_that_nobody_waits_for_is_in_the_log(log: LogCapture) -> None:
    router = example_router()

    @router.responder(Log)
    async def note(command: Log) -> Any:
        return {"line": command.line}

    async with joined(router) as (client, _):
        await client.call(Log(line=b"x"))
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
    assert "Log has no answer, but its responder returned a dict" in log.only_line()


async def test_type_of_a_box_stands_first() -> None:
    async with raw_client_of(shop(OutOfStock(sku="A1"))) as (peer, _):
        assert next(iter(await peer.ask(REPEAT))) == b"_answer"
        assert next(iter(await peer.ask(BUY))) == b"_error"
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="ab")))
        box = await peer.receive()
        assert list(box) == [b"_ask", b"_command", b"text", b"times"]
        # The answer's own keys may come in any order.
        await peer.write(b"\0\4text\0\2ok\0\7_answer\0\1%b\0\0" % box[b"_ask"])
        assert await call == Text(text="ok")


async def test_arguments_may_come_in_any_order() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        await peer.write(
            b"\0\5times\0\0012\0\4text\0\2ab\0\10_command\0\6Repeat\0\7unknown\0\0\0\4_ask\0\0011\0\0"
        )
        assert await peer.receive() == {b"_answer": b"1", b"text": b"abab"}


# -- Concurrency -------------------------------------------------------------------------------


async def test_answers_go_out_as_they_are_ready() -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, _):
        for key in (b"1", b"2", b"3"):
            await peer.send({b"_ask": b"tag " + key, b"_command": b"Wait", b"key": key})
        await gate.holds(3)
        for number in (2, 3, 1):
            gate.waiting[number].set_result("done")
            assert await peer.receive() == {b"_answer": b"tag %d" % number, b"text": b"done"}


async def test_quick_one_overtakes_a_slow_one() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        slow = asyncio.create_task(client.call(Wait(key=1)))
        await gate.holds(1)
        assert await client.call(Repeat(text="quick")) == Text(text="quick")
        assert not slow.done()
        gate.waiting[1].set_result("slow")
        assert await slow == Text(text="slow")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there, responders begin at once")
async def test_cancelled_from_outside_before_its_first_step_it_is_answered() -> None:
    router = example_router()

    @router.responder(Buy)
    async def cancel_the_next(command: Buy) -> Text:
        for task in asyncio.all_tasks():
            if task.get_name() == "Wait":
                task.cancel()
        return Text(text="")

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await asyncio.Event().wait()
        return Text(text="never")

    async with raw_client_of(router) as (peer, _):
        await peer.send(BUY, {b"_ask": b"2", b"_command": b"Wait"}, {**REPEAT, b"_ask": b"3"})
        # Not merely when the connection closes: now.
        answers = [await peer.receive() for _ in range(3)]
        assert {**UNKNOWN, b"_error": b"2"} in answers


async def test_cancelled_from_outside_while_it_runs_it_is_answered() -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, _):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await gate.holds(1)
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "Wait")
        task.cancel()
        assert await peer.receive() == UNKNOWN
        assert await peer.ask(REPEAT) == {b"_answer": b"1", b"text": b"abab"}


async def test_responders_of_all_kinds() -> None:
    class Shelf:
        async def repeat(self, command: Repeat) -> Text:
            return Text(text="method")

        async def make(self, command: Make, connection: Connection) -> Any:
            return None

    class Callable_:
        async def __call__(self, command: Wait) -> Text:
            return Text(text="object")

    router = Router()
    router.responder(Repeat)(Shelf().repeat)
    router.responder(Wait)(Callable_())
    async with joined(router) as (client, _):
        assert await client.call(Repeat(text="")) == Text(text="method")
        assert await client.call(Wait()) == Text(text="object")


async def test_router_that_grows_while_it_serves() -> None:
    router = Router()
    async with joined(router) as (client, _):
        with pytest.raises(UnhandledCommandError):
            await client.call(Repeat(text="ab"))

        @router.responder(Repeat)
        async def repeat(command: Repeat) -> Text:
            return Text(text="now")

        assert await client.call(Repeat(text="ab")) == Text(text="now")


# -- Models that refuse ------------------------------------------------------------------------


class Small(BaseModel):
    size: int = Field(lt=10)


class GetSmall(Command[Small]):
    """Answered with a Small."""


async def test_answer_is_validated_at_the_caller() -> None:
    async with raw_server_of() as (connection, peer):
        for size, reason in [(b"5", None), (b"50", "size: Input should be less"), (b"x", "size: ")]:
            call = asyncio.create_task(connection.call(GetSmall()))
            tag = (await peer.receive())[b"_ask"]
            await peer.send({b"_answer": tag, b"size": size})
            if reason is None:
                assert await call == Small(size=5)
            else:
                with pytest.raises(DecodeError, match=r"the answer to GetSmall\.size: "):
                    await call
        assert not connection.is_closed


class Strict(Command[Text], extra="forbid"):
    """Refuses keys that it doesn't know."""


async def test_unknown_keys_are_refused_where_the_model_says_so() -> None:
    router = example_router()

    @router.responder(Strict)
    async def strict(command: Strict) -> Text:
        return Text(text="fine")

    box: Box = {b"_ask": b"1", b"_command": b"Strict"}
    async with raw_client_of(router) as (peer, _):
        assert (await peer.ask(box))[b"text"] == b"fine"
        refused = await peer.ask({**box, b"col\xc3\xb6r\n": b""})
        assert refused[b"_error_code"] == b"INVALID_ARGUMENTS"
        assert refused[b"_error_description"] == rb"col\xf6r\n: no such field"


async def test_strays_are_counted_and_ignored() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.send(
            {b"_answer": b"never asked", b"text": b""},
            {b"_error": b"", b"_error_code": b"X", b"_error_description": b""},
        )
        assert await peer.ask(REPEAT) == {b"_answer": b"1", b"text": b"abab"}
        assert connection._link.dialogue.strays == 2
        await settled()
        assert not connection.is_closed
