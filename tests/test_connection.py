from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from tests.example_commands import (
    Buy,
    CountDown,
    Echo,
    Log,
    Repeat,
    Text,
    Wait,
    example_router,
)
from tests.gate import Gate
from tests.peers import (
    HOST,
    LogCapture,
    joined,
    port_of,
    raw_client_of,
    raw_server_of,
    settled,
    until,
)
from typed_amp import (
    AmpError,
    CallTimeoutError,
    Command,
    Connection,
    ConnectionLostError,
    EncodeError,
    Large,
    Limits,
    ProtocolViolationError,
    RemoteAmpError,
    Router,
    SwitchProtocol,
    TooLongError,
    UnknownRemoteError,
    connect,
    encode_box,
    serve,
)

REPEAT = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"}
REPEATED = {b"_answer": b"1", b"text": b"ab"}


# -- Calls -------------------------------------------------------------------------------------


async def test_a_thousand_calls_in_flight_answered_backwards() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        calls = [asyncio.create_task(client.call(Wait(key=key))) for key in range(1000)]
        await gate.holds(1000)
        for key in reversed(range(1000)):
            gate.waiting[key].set_result(f"answer {key}")
        answers = await asyncio.gather(*calls)
        assert [answer.text for answer in answers] == [f"answer {key}" for key in range(1000)]


async def test_both_sides_call_at_once() -> None:
    async with joined(example_router(), example_router()) as (client, server):
        calls = [
            side.call(Repeat(text=f"{number} ", times=2))
            for number in range(100)
            for side in (client, server)
        ]
        answers = [answer.text for answer in await asyncio.gather(*calls)]
        assert answers == [f"{number} {number} " for number in range(100) for _ in range(2)]


def counting_router() -> Router:
    router = Router()

    @router.responder(CountDown)
    async def count(command: CountDown, connection: Connection) -> Text:
        if command.start == 0:
            return Text(text="0")
        rest = await connection.call(CountDown(start=command.start - 1))
        return Text(text=f"{command.start} {rest.text}")

    return router


async def test_recursion_back_and_forth() -> None:
    router = counting_router()
    async with joined(router, router) as (client, _):
        answer = await client.call(CountDown(start=100))
        assert answer.text.split() == [str(number) for number in range(100, -1, -1)]


async def test_router_shared_by_servers_and_clients() -> None:
    router = counting_router()
    async with (
        serve(router, HOST, 0) as first,
        serve(router, HOST, 0) as second,
        connect(HOST, port_of(first), router=router) as client,
        connect(HOST, port_of(second), router=router) as other,
    ):
        answers = await asyncio.gather(*(c.call(CountDown(start=3)) for c in (client, other)))
        assert [answer.text for answer in answers] == ["3 2 1 0"] * 2


async def test_value_that_can_not_be_written_is_not_sent() -> None:
    async with raw_server_of() as (connection, peer):
        with pytest.raises(TooLongError, match=r"Echo\.data is 65,536 bytes long; .*Large\(\)"):
            await connection.call(Echo(data=bytes(65_536)))
        with pytest.raises(EncodeError, match=r"Repeat\.text"):
            await connection.call(Repeat(text="\ud800"))
        call = asyncio.create_task(connection.call(Echo(data=b"small")))
        assert (await peer.receive())[b"data"] == b"small"  # the first that arrives
        connection.close()
        with pytest.raises(ConnectionLostError):
            await call


class Document(BaseModel):
    data: Annotated[bytes, Large()]


class Copy(Command[Document]):
    data: Annotated[bytes, Large()]
    times: int = 1


class Keep(Command, requires_answer=False):
    data: Annotated[bytes, Large()]


async def test_box_beyond_the_limit_costs_its_own_call_alone(log: LogCapture) -> None:
    router: Router = Router()

    @router.responder(Copy)
    async def copy(command: Copy) -> Document:
        return Document(data=command.data * command.times)

    limits = Limits(max_box_bytes=200_000)
    async with joined(router, limits=limits) as (client, _):
        copied = await client.call(Copy(data=b"x" * 190_000))
        assert len(copied.data) == 190_000
        commands: list[Command[Any]] = [Copy(data=b"x" * 200_000), Keep(data=b"x" * 200_000)]
        for command in commands:
            with pytest.raises(TooLongError, match=r"allows at most 200,000 in one box") as caught:
                await client.call(command)
            assert caught.value.what == type(command).__name__
        with pytest.raises(UnknownRemoteError):
            await client.call(Copy(data=b"x" * 100_000, times=2))
        assert "the answer to Copy is 200,0" in log.only_line()
        assert (await client.call(Copy(data=b"x"))).data == b"x"


async def test_boxes_of_one_turn_go_out_in_one_piece() -> None:
    async with raw_server_of() as (connection, peer):
        calls = [asyncio.create_task(connection.call(Repeat(text="ab"))) for _ in range(10)]
        await settled()
        data = peer.socket.recv(65_536)
        assert data.count(b"_command") == 10
        connection.close()
        await asyncio.wait(calls)
        assert all(isinstance(call.exception(), ConnectionLostError) for call in calls)


async def test_no_answer_command() -> None:
    gate = Gate()
    gate.note_gate.set()
    async with joined(gate.router) as (client, _):
        for number in range(3):
            assert await client.call(Log(line=b"%d" % number)) is None  # type: ignore[func-returns-value]
        await until(lambda: len(gate.notes) == 3)
        assert gate.notes == [b"0", b"1", b"2"]


async def test_box_of_a_no_answer_command_has_no_ask() -> None:
    async with raw_server_of() as (connection, peer):
        await connection.call(Log(line=b"x"))
        assert await peer.receive() == {b"_command": b"Log", b"line": b"x"}


# -- Timeouts ----------------------------------------------------------------------------------


async def test_timeout() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        with pytest.raises(CallTimeoutError) as caught:
            await client.call(Wait(), timeout=0.01)
        error = caught.value
        assert (error.command, error.timeout) == ("Wait", 0.01)
        peer = "{}:{}".format(*client.remote_address or ())
        assert str(error) == f"Wait: no answer from {peer} within 0.01 seconds"
        assert isinstance(error, TimeoutError)
        # The late answer is ignored, and the connection usable.
        await until(lambda: client._link.dialogue.late == 1)
        assert await client.call(Repeat(text="ab"), timeout=60) == Text(text="ab")
        assert client._link.dialogue.pending == 0


async def test_timeout_of_asyncio_works_as_well() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.call(Wait())
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_timeouts_of_many_calls_leave_one_timer_at_each_end_and_none_behind() -> None:
    loop = asyncio.get_running_loop()

    def timers() -> int:
        scheduled = loop._scheduled  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        left = [handle for handle in scheduled if not handle.cancelled()]
        return sum(handle.when() > loop.time() + 60 for handle in left)

    async with joined(example_router()) as (client, _):
        await asyncio.gather(
            *(client.call(Repeat(text="ab"), timeout=3600 + number) for number in range(200))
        )
        assert timers() <= 2
    assert timers() == 0


async def test_what_a_caller_does_with_an_answer_or_an_error_is_his_own_business() -> None:
    async def careless(text: str) -> None:
        await client.call(Repeat(text=text))
        raise ZeroDivisionError

    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise KeyError

    async with joined(router) as (client, _):
        failing = [careless("ab"), client.call(Buy())]
        outcomes = await asyncio.gather(*failing, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, KeyError]
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


# -- Errors of the connection ------------------------------------------------------------------


async def test_call_after_close() -> None:
    async with joined(example_router()) as (client, _):
        pass
    assert client.is_closed
    with pytest.raises(ConnectionLostError, match=rf"Repeat: the connection to {HOST}:\d+ is clos"):
        await client.call(Repeat(text="ab"))
    with pytest.raises(ConnectionLostError, match="Log: ") as caught:
        await client.call(Log(line=b""))
    assert not caught.value.was_sent


async def test_calls_that_wait_when_this_side_closes() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        call = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        client.close()
        assert client.is_closed
        with pytest.raises(ConnectionLostError, match=r"Wait: .* is closed") as caught:
            await call
        assert caught.value.__cause__ is None


async def test_calls_that_wait_when_the_peer_closes() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        calls = [asyncio.create_task(client.call(Wait(key=key))) for key in range(3)]
        await gate.holds(3)
        server._link.transport.abort()
        for call in calls:
            with pytest.raises(ConnectionLostError, match=r"Wait: .* lost: the peer closed it"):
                await call
        assert client.is_closed


async def test_peer_that_ends_within_a_box() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Wait()))
        await peer.receive()
        await peer.write(b"\0\7_answer\0\1")
        peer.socket.close()
        with pytest.raises(ConnectionLostError, match="ended the stream 11 bytes into a box"):
            await call


async def test_peer_that_resets() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Wait()))
        await peer.receive()
        peer.reset()
        with pytest.raises(ConnectionLostError, match="reset") as caught:
            await call
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(ConnectionLostError, match="reset"):
            await connection.call(Wait())


async def test_waiting_for_the_loss_is_over_before_waiting_for_the_end() -> None:
    router = example_router()
    parting = asyncio.Event()

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        await parting.wait()

    async with raw_server_of(router) as (connection, peer):
        lost = [asyncio.create_task(connection.wait_lost()) for _ in range(2)]
        closed = asyncio.create_task(connection.wait_closed())
        await settled()
        lost[0].cancel()  # which is nothing to the others
        assert not connection.is_closed
        peer.reset()
        error = await lost[1]
        assert connection.is_closed
        assert isinstance(error, ConnectionLostError)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert str(error).startswith(f"the connection to {HOST}:")
        assert not closed.done()
        parting.set()
        await closed
        assert "was lost" in str(await connection.wait_lost())


async def test_calls_fail_from_a_violation_on_though_responders_finish() -> None:
    gate = Gate()
    async with raw_server_of(gate.router, drain_timeout=60) as (connection, peer):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await gate.holds(1)
        await peer.write(b"HTTP/1.1 400")
        error = await connection.wait_lost()
        assert isinstance(error.__cause__, ProtocolViolationError)
        assert connection.is_closed
        gate.waiting[0].set_result("in time")
        assert (await peer.receive())[b"text"] == b"in time"
        peer.socket.close()


async def test_peer_that_breaks_the_protocol(log: LogCapture) -> None:
    async with raw_server_of() as (connection, peer):
        calls = [asyncio.create_task(connection.call(Wait(key=key))) for key in range(2)]
        tag = (await peer.receive())[b"_ask"]
        await peer.write(encode_box({b"_answer": tag, b"text": b"in time"}) + b"HTTP/1.1 400")
        assert await calls[0] == Text(text="in time")
        with pytest.raises(ConnectionLostError) as caught:
            await calls[1]
        assert isinstance(caught.value.__cause__, ProtocolViolationError)
        assert "closing, since the peer broke the protocol" in log.only_line()
        peer.socket.close()
        await connection.wait_closed()


async def test_call_after_a_violation_fails_at_once() -> None:
    gate = Gate()
    outcomes: list[BaseException] = []

    @gate.router.responder(CountDown)
    async def ask_back(command: CountDown, connection: Connection) -> Text:
        await gate.note_gate.wait()
        try:
            await connection.call(Repeat(text="no answer can come to this"))
        except AmpError as error:
            outcomes.append(error)
        return Text(text="answered")

    async with raw_client_of(gate.router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"CountDown", b"start": b"1"})
        await peer.write(b"GET / HTTP/1.1\r\n")
        await until(lambda: connection._link.is_violated)
        gate.note_gate.set()
        assert {b"_answer": b"1", b"text": b"answered"} in await peer.receive_all()
        assert isinstance(outcomes[0], ConnectionLostError)


async def test_errors_have_a_traceback_of_their_own() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, _):
        calls = [asyncio.create_task(client.call(Wait(key=key))) for key in range(2)]
        await gate.holds(2)
        client.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert errors[0] is not errors[1]


# -- Closing and draining ----------------------------------------------------------------------


async def test_closing_twice_and_again_afterwards() -> None:
    async with joined(example_router()) as (client, server):
        client.close()
        client.close()
        await client.wait_closed()
        client.close(drain_timeout=0)
        client.close()
        await client.wait_closed()
        await server.wait_closed()


async def test_repr() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        call = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        assert repr(server).endswith(", open>")
        server.close(drain_timeout=60)
        assert repr(server).endswith(", closing>")
        assert not server.is_closed
        gate.waiting[0].set_result("")
        await call
        await server.wait_closed()
        assert repr(server).endswith(", closed>")
        assert server.is_closed


async def test_running_responders_finish() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        calls = [asyncio.create_task(client.call(Wait(key=key))) for key in range(2)]
        await gate.holds(2)
        server.close(drain_timeout=60)
        gate.waiting[0].set_result("first")
        assert await calls[0] == Text(text="first")
        assert not server.is_closed
        gate.waiting[1].set_result("second")
        assert await calls[1] == Text(text="second")
        await client.wait_closed()
        assert not gate.cancelled


async def test_commands_that_come_while_it_closes_are_refused() -> None:
    gate = Gate()
    gate.note_gate.set()
    async with joined(gate.router) as (client, server):
        call = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        server.close(drain_timeout=60)
        await client.call(Log(line=b"dropped"))
        with pytest.raises(RemoteAmpError, match="CLOSING: this side is closing") as caught:
            await client.call(Repeat(text="ab"))
        assert caught.value.code == "CLOSING"
        gate.waiting[0].set_result("still")
        assert await call == Text(text="still")
        assert not gate.notes


async def test_responders_that_take_too_long_are_cancelled_and_answered() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        call = asyncio.create_task(client.call(Wait(key=7)))
        await gate.holds(1)
        server.close(drain_timeout=0.01)
        with pytest.raises(RemoteAmpError, match="CANCELLED"):
            await call
        await server.wait_closed()
        assert gate.cancelled == [7]


async def test_responders_that_have_not_begun_are_answered_too() -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, connection):
        await peer.send(
            {b"_ask": b"1", b"_command": b"Wait"}, {b"_ask": b"2", b"_command": b"Wait"}
        )
        await until(lambda: connection._link.responses.running)
        connection.close(drain_timeout=0)
        answers = await peer.receive_all()
        assert {(box[b"_error"], box[b"_error_code"]) for box in answers} == {
            (b"1", b"CANCELLED"),
            (b"2", b"CANCELLED"),
        }


@pytest.mark.parametrize("times", [(60, 0), (60, 0.01), (0.01, 60), (0.01, None), (60, 0, 60)])
async def test_the_shortest_time_holds(times: tuple[float | None, ...]) -> None:
    gate = Gate()
    async with joined(gate.router, drain_timeout=60) as (client, server):
        call = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        for drain_timeout in times:
            server.close(drain_timeout=drain_timeout)
        async with asyncio.timeout(10):
            with pytest.raises(RemoteAmpError, match="CANCELLED"):
                await call


async def test_responder_that_suppresses_its_cancelling_still_answers() -> None:
    gate = Gate()

    @gate.router.responder(Buy)
    async def stubborn(command: Buy) -> Text:
        try:
            await gate.note_gate.wait()
        except asyncio.CancelledError:
            return Text(text="all the same")
        return Text(text="")

    async with joined(gate.router) as (client, server):
        call = asyncio.create_task(client.call(Buy()))
        await until(lambda: server._link.responses.running)
        await settled()
        server.close(drain_timeout=0)
        assert await call == Text(text="all the same")
        await server.wait_closed()


@pytest.mark.parametrize("drain_timeout", [None, 60, 0])
async def test_responder_that_closes_its_own_connection_answers(
    drain_timeout: float | None,
) -> None:
    router = Router()

    @router.responder(Repeat)
    async def close(command: Repeat, connection: Connection) -> Text:
        connection.close(drain_timeout=drain_timeout)
        return Text(text="goodbye")

    async with joined(router) as (client, server):
        assert await client.call(Repeat(text="")) == Text(text="goodbye")
        await client.wait_closed()
        await server.wait_closed()


async def test_responder_that_closes_its_own_connection_and_waits_for_that_is_cancelled() -> None:
    router = Router()

    @router.responder(Repeat)
    async def close(command: Repeat, connection: Connection) -> Text:
        connection.close(drain_timeout=0)
        await connection.wait_closed()
        return Text(text="never")

    async with joined(router) as (client, server):
        async with asyncio.timeout(10):
            with pytest.raises(RemoteAmpError, match="CANCELLED"):
                await client.call(Repeat(text=""))
            await server.wait_closed()


async def test_responder_may_call_the_peer_while_it_drains() -> None:
    gate = Gate()

    @gate.router.responder(Buy)
    async def ask_back(command: Buy, connection: Connection) -> Text:
        await gate.note_gate.wait()
        return await connection.call(Repeat(text="ask", times=2))

    async with joined(gate.router, example_router()) as (client, server):
        call = asyncio.create_task(client.call(Buy()))
        await until(lambda: server._link.responses.running)
        server.close(drain_timeout=60)
        gate.note_gate.set()
        assert await call == Text(text="askask")


async def test_responders_are_cancelled_when_the_connection_is_lost() -> None:
    gate = Gate()
    async with raw_client_of(gate.router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"key": b"3"})
        await gate.holds(1)
        peer.socket.close()
        await connection.wait_closed()
        assert gate.cancelled == [3]


async def test_responders_whose_answer_nobody_waits_for_go_on() -> None:
    gate = Gate()
    async with raw_client_of(gate.router, drain_timeout=60) as (peer, connection):
        await peer.send(
            {b"_command": b"Log", b"line": b"kept"}, {b"_command": b"Wait", b"key": b"4"}
        )
        await gate.holds(1)
        peer.socket.close()
        await until(lambda: connection.is_closed)
        await settled()
        assert not gate.cancelled
        gate.note_gate.set()
        gate.waiting[4].set_result("")
        await connection.wait_closed()
        assert gate.notes == [b"kept"]


async def test_responders_that_end_without_a_connection(log: LogCapture) -> None:
    gate = Gate()

    @gate.router.responder(Buy)
    async def buy(command: Buy) -> Text:
        await gate.note_gate.wait()
        raise ZeroDivisionError("too late")

    async with raw_client_of(gate.router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_command": b"Wait", b"key": b"1"}, {b"_command": b"Buy"})
        await gate.holds(1)
        peer.socket.close()
        await until(lambda: connection.is_closed)
        gate.waiting[1].set_result("an answer")
        gate.note_gate.set()
        await connection.wait_closed()
    # What fails is told, and nothing else goes wrong.
    assert "the responder of Buy failed" in log.only_line()
    assert "ZeroDivisionError: too late" in log.only_line()


async def test_responders_that_go_on_without_a_connection_are_cancelled_by_close() -> None:
    gate = Gate()
    async with raw_client_of(gate.router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_command": b"Wait", b"key": b"5"})
        await gate.holds(1)
        peer.socket.close()
        await until(lambda: connection.is_closed)
        connection.close(drain_timeout=0)
        async with asyncio.timeout(10):
            await connection.wait_closed()
        assert gate.cancelled == [5]


async def test_responders_that_go_on_without_a_connection_have_the_drain_timeout() -> None:
    gate = Gate()
    async with raw_client_of(gate.router, drain_timeout=0.01) as (peer, connection):
        await peer.send({b"_command": b"Wait", b"key": b"6"})
        await gate.holds(1)
        peer.socket.close()
        await connection.wait_closed()
        assert gate.cancelled == [6]


async def test_peer_that_never_reads_does_not_keep_a_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("typed_amp.link._FLUSH_TIMEOUT", 0.01)
    async with raw_client_of(example_router()) as (peer, connection):
        for number in range(200):
            await peer.send({b"_ask": b"%d" % number, b"_command": b"Make", b"size": b"65000"})
            await settled(2)
            if connection._link.writer.is_full:
                break
        assert connection._link.transport.get_write_buffer_size()
        connection.close()
        await connection.wait_closed()


async def test_answers_are_not_lost_when_the_peer_has_more_to_say() -> None:
    # Closing a socket that holds unread bytes resets it, and what was on its way is lost.
    async with raw_client_of(example_router(), drain_timeout=60) as (peer, connection):
        asks = [
            encode_box({b"_ask": b"%d" % number, b"_command": b"Make", b"size": b"10000"})
            for number in range(20)
        ]
        await peer.write(b"".join(asks) + b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: connection._link.is_violated)
        peer.write_now(b"Host: localhost\r\n\r\n")
        await until(lambda: connection.is_closed)
        try:
            answers = await peer.receive_all()
        except ConnectionResetError:
            pytest.fail("answers were lost")
        assert len(answers) == 20


async def test_peer_that_has_reset_what_is_being_closed() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.ask(REPEAT)
        peer.reset()
        connection.close()  # the event loop has not noticed yet
        await connection.wait_closed()


# -- Hooks -------------------------------------------------------------------------------------


async def test_hooks_run_in_order() -> None:
    events: list[str] = []
    gate = Gate()
    router = gate.router

    @router.on_connect
    async def first(connection: Connection) -> None:
        events.append("connected first")

    @router.on_connect
    async def second(connection: Connection) -> None:
        await asyncio.sleep(0)
        events.append("connected second")

    @router.on_disconnect
    async def parted(connection: Connection) -> None:
        assert connection.is_closed
        with pytest.raises(ConnectionLostError):
            await connection.call(Repeat(text="too late"))
        events.append("parted first")

    @router.on_disconnect
    async def parted_again(connection: Connection) -> None:
        events.append("parted second")

    @router.responder(Buy)
    async def note(command: Buy) -> Text:
        events.append("asked")
        try:
            await gate.note_gate.wait()
        finally:
            await asyncio.sleep(0)
            events.append("cancelled")
        return Text(text="")

    async with raw_client_of(router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Buy"})
        await until(lambda: "asked" in events)
        peer.socket.close()
        await connection.wait_closed()
    assert events == [
        "connected first",
        "connected second",
        "asked",
        "cancelled",
        "parted second",
        "parted first",
    ]


async def test_commands_wait_for_the_hooks() -> None:
    gate = Gate()
    router = gate.router

    @router.on_connect
    async def ask(connection: Connection) -> None:
        answer = await connection.call(Repeat(text="who are you"))
        gate.notes.append(answer.text.encode())

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        gate.notes.append(b"buy")
        return Text(text="")

    async with raw_client_of(router) as (peer, _):
        await peer.send({b"_ask": b"a", b"_command": b"Buy"})
        asked = await peer.receive()
        assert asked[b"_command"] == b"Repeat"
        await settled()
        assert not gate.notes
        await peer.send({b"_answer": asked[b"_ask"], b"text": b"Ada"})
        assert await peer.receive() == {b"_answer": b"a", b"text": b""}
        assert gate.notes == [b"Ada", b"buy"]


async def test_commands_wait_for_a_hook_that_writes_more_than_the_peer_reads() -> None:
    gate = asyncio.Event()
    router = example_router()

    @router.on_connect
    async def flood(connection: Connection) -> None:
        for _ in range(200):
            await connection.call(Log(line=bytes(60_000)))
        await gate.wait()

    async with raw_client_of(router) as (peer, connection):
        await peer.send(REPEAT)
        await until(lambda: connection._link.writer.is_full)
        for _ in range(200):
            assert (await peer.receive())[b"_command"] == b"Log"
        waiting = asyncio.create_task(peer.receive())
        await settled()
        assert not waiting.done()
        gate.set()
        assert await waiting == REPEATED


async def test_commands_that_waited_for_hooks_that_failed_are_answered(log: LogCapture) -> None:
    gate = Gate()

    @gate.router.on_connect
    async def fail(connection: Connection) -> None:
        await gate.note_gate.wait()
        raise ZeroDivisionError

    async with raw_client_of(gate.router) as (peer, connection):
        await peer.send(REPEAT)
        await until(lambda: connection._link.reader.offset == len(encode_box(REPEAT)))
        gate.note_gate.set()
        (answer,) = await peer.receive_all()
        assert answer[b"_error_code"] == b"CLOSING"
        assert "an on_connect hook failed" in log.only_line()


async def test_command_that_waited_for_the_hooks_may_close_the_connection() -> None:
    gate = asyncio.Event()
    router = example_router()

    @router.on_connect
    async def wait(connection: Connection) -> None:
        await gate.wait()

    @router.responder(Buy)
    async def close(command: Buy, connection: Connection) -> Text:
        connection.close(drain_timeout=60)
        await settled()
        return Text(text="goodbye")

    async with raw_client_of(router) as (peer, connection):
        boxes = [{b"_ask": b"%d" % number, b"_command": b"Buy"} for number in range(3)]
        data = b"".join(map(encode_box, boxes))
        await peer.write(data)
        await until(lambda: connection._link.reader.offset == len(data))
        gate.set()
        answers = await peer.receive_all()
        tags = [box.get(b"_answer") or box[b"_error"] for box in answers]
        assert sorted(tags) == [b"0", b"1", b"2"]
        assert {b"_answer": b"0", b"text": b"goodbye"} in answers


async def test_hook_that_waits_is_cancelled_when_the_connection_is_lost() -> None:
    events: list[str] = []
    router = Router()
    begun = asyncio.Event()

    @router.on_connect
    async def wait(connection: Connection) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        events.append("parted")

    async with raw_client_of(router) as (peer, connection):
        await begun.wait()
        peer.socket.close()
        await connection.wait_closed()
    assert events == ["cancelled", "parted"]


async def test_failing_hook_of_on_disconnect_is_logged_and_the_others_run(log: LogCapture) -> None:
    events: list[str] = []
    router = example_router()

    async def part(connection: Connection) -> None:
        events.append("parted")

    router.on_disconnect(part)

    @router.on_disconnect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("a secret")

    router.on_disconnect(part)
    async with joined(router) as (client, server):
        client.close()
        await server.wait_closed()
    assert events == ["parted", "parted"]
    assert "an on_disconnect hook failed" in log.only_line()
    assert "ZeroDivisionError: a secret" in log.only_line()


# -- When another protocol has taken over -------------------------------------------------------


class Switch(SwitchProtocol):
    """Hands the connection over."""


class Plain(asyncio.Protocol):
    """Keeps every piece that it is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def switching_to(protocol: Plain) -> Router:
    router = example_router()

    @router.responder(Switch)
    async def switch(command: Switch) -> asyncio.Protocol:
        return protocol

    return router


async def test_protocol_is_given_no_bytes_where_none_came() -> None:
    theirs = Plain()
    async with joined(switching_to(theirs)) as (client, _):
        transport, ours = await client.switch_protocol(Switch(), Plain)
        transport.write(b"first")
        await until(lambda: theirs.pieces)
        theirs.transport.write(b"first")
        await until(lambda: ours.pieces)
        assert (theirs.pieces, ours.pieces) == ([b"first"], [b"first"])
        transport.close()
        await theirs.lost.wait()
        await ours.lost.wait()


async def test_connection_that_was_switched_is_switched_no_more() -> None:
    theirs = Plain()
    async with joined(switching_to(theirs)) as (client, server):
        transport, _ = await client.switch_protocol(Switch(), Plain)
        for connection in (client, server):
            with pytest.raises(ConnectionLostError, match="switched to another protocol"):
                await connection.switch_protocol(Switch(), Plain)
        assert not theirs.pieces
        transport.close()
        await theirs.lost.wait()


@pytest.mark.parametrize("fails", [True, False])
async def test_responder_that_ends_after_the_switch_writes_nothing(
    fails: bool, log: LogCapture
) -> None:
    theirs = Plain()
    router = switching_to(theirs)
    begun = asyncio.Event()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if fails:
                raise ZeroDivisionError("in the way") from None
        return Text(text="in the way")

    async with joined(router) as (client, server):
        waiting = asyncio.create_task(client.call(Wait()))
        await begun.wait()
        transport, ours = await client.switch_protocol(Switch(), Plain)
        with pytest.raises(ConnectionLostError, match="switched to another protocol"):
            await waiting
        await server.wait_closed()
        theirs.transport.write(b"first")
        await until(lambda: ours.pieces)
        assert ours.pieces == [b"first"]
        transport.close()
        await theirs.lost.wait()
    if fails:
        assert "ZeroDivisionError: in the way" in log.only_line()
    else:
        assert not log.lines()
