"""What becomes of a call whose connection goes, or whose peer refuses it for now."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.example_commands import Text
from tests.peers import HOST, RawPeer, port_of, settled, until
from tests.places import QUICK, SLOW, Place, free_port, place_of
from typed_amp import (
    Backoff,
    Box,
    CallTimeoutError,
    Client,
    ClientStatus,
    Command,
    Connection,
    ConnectionLostError,
    ConnectionPool,
    Limits,
    ProtocolViolationError,
    RemoteAmpError,
    Router,
    UnknownRemoteError,
    connect_pool,
    serve,
)
from typed_amp.opening import Opening


class Once(Command[Text]):
    """May not be carried out twice."""

    key: int = 0


class Again(Command[Text], idempotent=True):
    """May be."""

    key: int = 0


class Note(Command, requires_answer=False, idempotent=True):
    key: int = 0


class RefusedError(Exception):
    """What the server's side of these commands calls BUSY."""


class ServedOnce(Command[Text], name="Once", errors={RefusedError: "BUSY"}):
    key: int = 0


class ServedAgain(Command[Text], name="Again", errors={RefusedError: "BUSY"}):
    key: int = 0


class Serving:
    """A router whose responders do as a test says, and the count of what they carried out."""

    def __init__(self) -> None:
        self.router = Router()
        self.carried_out: Counter[int] = Counter()
        self.busy = 0
        """How many calls are refused from now on."""
        self.holds = True
        """Whether calls go on until they are released."""
        self.notes: list[int] = []
        self._running: list[asyncio.Future[None]] = []
        self.router.responder(ServedOnce)(self.respond)
        self.router.responder(ServedAgain)(self.respond)
        self.router.responder(Note)(self.note)

    async def respond(self, command: ServedOnce | ServedAgain) -> Text:
        if self.busy:
            self.busy -= 1
            raise RefusedError("not now")
        self.carried_out[command.key] += 1
        if self.holds:
            running = asyncio.get_running_loop().create_future()
            self._running.append(running)
            await running
        return Text(text=f"{command.key}")

    async def note(self, command: Note) -> None:
        self.notes.append(command.key)

    def release(self) -> None:
        """Let all calls be answered, those that run and those that come."""
        self.holds = False
        for running in self._running:
            if not running.done():
                running.set_result(None)
        self._running.clear()


@contextlib.asynccontextmanager
async def client_of(serving: Serving, **options: Any) -> AsyncIterator[tuple[Client[None], Place]]:
    async with (
        place_of(serving.router) as place,
        Client(HOST, place.port, backoff=QUICK, **options) as client,
    ):
        yield client, place


async def test_calls_in_flight_when_the_connection_is_lost() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        once = [asyncio.create_task(client.call(Once(key=key))) for key in range(3)]
        again = [asyncio.create_task(client.call(Again(key=key))) for key in range(10, 13)]
        await until(lambda: serving.carried_out.total() == 6)
        await place.vanish()  # what fails at once doesn't wait for the next connection
        for call in once:
            with pytest.raises(ConnectionLostError, match=r"^Once: the connection to .* was lost"):
                await call
        serving.release()
        await place.open()
        assert [answer.text for answer in await asyncio.gather(*again)] == ["10", "11", "12"]
    assert serving.carried_out == {key: 1 if key < 10 else 2 for key in (0, 1, 2, 10, 11, 12)}


async def test_what_a_closing_peer_refuses_goes_elsewhere() -> None:
    leaving, staying = Serving(), Serving()
    staying.release()
    async with (
        place_of(leaving.router) as a,
        place_of(staying.router) as b,
        Client([a.address, b.address], backoff=QUICK) as client,
    ):
        begun = asyncio.create_task(client.call(Once(key=1)))
        await until(lambda: leaving.carried_out)
        await a.drain()
        refused = [client.call(Once(key=key)) for key in range(2, 20)]
        assert len(await asyncio.gather(*refused)) == 18
        leaving.release()
        assert await begun == Text(text="1")
    assert leaving.carried_out == {1: 1}
    assert staying.carried_out == dict.fromkeys(range(2, 20), 1)


@pytest.mark.parametrize("kind", ["client", "pool"])
async def test_a_closing_that_a_proxy_passes_on_is_for_the_caller(kind: str) -> None:
    proxy = Router()
    asked = 0

    @proxy.fallback
    async def forward(box: Box) -> Box:
        nonlocal asked
        asked += 1
        raise RemoteAmpError("CLOSING", "the one behind the proxy")

    async with place_of(proxy) as place:
        opening: Client | Opening[ConnectionPool]
        opening = Client(*place.address) if kind == "client" else connect_pool([place.address])
        async with opening as client:
            for call in (client.call(Again()), client.call_box("Again", idempotent=True)):
                with pytest.raises(RemoteAmpError, match="CLOSING: the one behind the proxy"):
                    await call
            assert asked == 2
            assert client.counters.connections == 1
            assert client.state.status is ClientStatus.CONNECTED


@pytest.mark.parametrize("is_hard", [True, False], ids=["hard", "violated"])
async def test_what_waited_at_a_peer_that_ends_at_once_goes_elsewhere(is_hard: bool) -> None:
    """Its refusals come on a connection that is about to end, and are its own all the same."""
    leaving, staying = Serving(), Serving()
    staying.release()
    async with (
        serve(leaving.router, HOST, 0, limits=Limits(max_requests=1)) as server,
        place_of(staying.router) as b,
        Client([(HOST, port_of(server)), b.address], backoff=QUICK) as client,
    ):
        begun = asyncio.create_task(client.call(Again(key=1)))
        waiting = [asyncio.create_task(client.call(Once(key=key))) for key in (2, 3)]
        await until(lambda: leaving.carried_out)
        [connection] = server.connections
        assert connection._link.responses.is_behind
        if is_hard:
            connection.close(drain_timeout=0)
            with pytest.raises(RemoteAmpError, match="CANCELLED"):
                await begun
        else:
            connection._link.violated(ProtocolViolationError("a test's"))
            leaving.release()
            await begun
        assert [answer.text for answer in await asyncio.gather(*waiting)] == ["2", "3"]
    assert leaving.carried_out == {1: 1}
    assert staying.carried_out == {2: 1, 3: 1}


@pytest.mark.parametrize("command", [Once, Again])
async def test_a_busy_peer_is_asked_again_later(command: Any) -> None:
    serving = Serving()
    serving.holds, serving.busy = False, 4
    async with client_of(serving) as (client, _):
        before = client.connection
        assert await client.call(command(key=1)) == Text(text="1")
        assert serving.busy == 0
        assert serving.carried_out == {1: 1}
        assert client.connection is before
        assert client.state.failures == 0


async def test_a_peer_that_stays_busy() -> None:
    serving = Serving()
    serving.busy = 10**9
    async with client_of(serving) as (client, _):
        with pytest.raises(CallTimeoutError, match=r"^Once: no answer within 0\.05 sec") as caught:
            await client.call(Once(), timeout=0.05)
        assert isinstance(caught.value.__cause__, RemoteAmpError)
        assert caught.value.__cause__.code == "BUSY"
        waiting = asyncio.create_task(client.call(Once()))
        await settled()
        client.close()
        with pytest.raises(ConnectionLostError, match="is closed"):
            await waiting


async def test_an_end_to_sending() -> None:
    serving = Serving()
    serving.busy = 10**9
    async with client_of(serving, attempts=3) as (client, place):
        with pytest.raises(RemoteAmpError) as caught:
            await client.call(Once())
        assert str(caught.value) == "BUSY: not now"
        assert 10**9 - serving.busy == 3
        where = f"{HOST}:{place.port}"
        assert caught.value.__notes__ == [
            f"attempt {number}, at {where}: BUSY: not now" for number in (1, 2)
        ]
        assert not client.is_closed


async def test_a_command_that_kills_its_server_each_time() -> None:
    router = Router()
    async with place_of(router) as place:

        @router.responder(Again)
        async def die(command: Again) -> Text:
            place.cut()
            await asyncio.Event().wait()
            return Text(text="never")

        backoff = Backoff(first=0.001, maximum=0.01, reset_after=0)
        async with Client(HOST, place.port, backoff=backoff, attempts=4) as client:
            with pytest.raises(ConnectionLostError) as caught:
                await client.call(Again())
            assert str(caught.value).startswith("Again: the connection to ")
            assert len(caught.value.__notes__) == 3
            assert not client.is_closed


async def test_failing_fast() -> None:
    serving = Serving()
    serving.holds = False
    async with client_of(serving, wait_for_connection=False) as (client, place):
        assert await client.call(Once(key=1)) == Text(text="1")
        await place.vanish()
        await until(lambda: client.state.failures > 2)
        for command in (Once(), Again()):
            with pytest.raises(ConnectionLostError) as caught:
                await client.call(command)
            told = str(caught.value)
            assert told.startswith(f"{type(command).__name__}: no connection since ")
            assert " UTC, 0." in told
            assert "seconds ago: [Errno " in told
            assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        waiting = asyncio.create_task(client.call(Once(key=2), wait_for_connection=True))
        await settled()
        await place.open()
        assert await waiting == Text(text="2")


async def test_failing_fast_what_was_in_flight() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        call = asyncio.create_task(client.call(Again(), wait_for_connection=False))
        await until(lambda: serving.carried_out)
        await place.vanish()
        with pytest.raises(ConnectionLostError, match=r"^Again: no connection since"):
            await call


async def test_waiting_for_a_connection_within_the_time() -> None:
    client = Client(HOST, free_port(), backoff=QUICK, wait_for_first=False, call_timeout=0.05)
    async with client:
        with pytest.raises(CallTimeoutError, match=r"^Once: no answer within 0\.05 sec") as caught:
            await client.call(Once())
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert (caught.value.command, caught.value.timeout) == ("Once", 0.05)
        with pytest.raises(CallTimeoutError, match=r"^Once: no answer within 0\.02 sec"):
            await client.call(Once(), timeout=0.02)
        with pytest.raises(CallTimeoutError, match=r"^x: no answer within 0\.02 sec"):
            await client.call_box("x", timeout=0.02)
        endless = asyncio.create_task(client.call(Once(), timeout=math.inf))
        with pytest.raises(CallTimeoutError):
            await client.call(Once())
        assert not endless.done()
        endless.cancel()
        await asyncio.wait([endless])


async def test_the_time_counts_over_all_attempts() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        call = asyncio.create_task(client.call(Again(), timeout=0.5))
        await until(lambda: serving.carried_out[0] == 1)
        place.cut()
        await until(lambda: serving.carried_out[0] == 2)
        with pytest.raises(CallTimeoutError, match=r"^Again: no answer within 0\.5 sec") as caught:
            await call
        assert isinstance(caught.value.__cause__, ConnectionLostError)
        with pytest.raises(CallTimeoutError, match=r"^Again: no answer from .* within 0\.01 sec"):
            await client.call(Again(), timeout=0.01)


async def test_cancelling_ends_it() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        calls = [asyncio.create_task(client.call(Again(key=key))) for key in range(4)]
        await until(lambda: serving.carried_out.total() == 4)
        calls[0].cancel()  # while it waits for its answer
        await place.vanish()
        await until(lambda: client.state.failures > 2)
        calls[1].cancel()  # while it waits for a connection
        await asyncio.wait(calls[:2])
        serving.release()
        await place.open()
        assert len(await asyncio.gather(*calls[2:])) == 2
    assert serving.carried_out == {0: 1, 1: 1, 2: 2, 3: 2}


async def test_other_errors_are_passed_on() -> None:
    router = Router()

    @router.responder(Again)
    async def fail(command: Again) -> Text:
        raise KeyError

    async with place_of(router) as place, Client(HOST, place.port, backoff=QUICK) as client:
        with pytest.raises(UnknownRemoteError):
            await client.call_remote(Again, key=1)
        with pytest.raises(ValueError, match="key"):
            await client.call_remote(Again, key="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - that is the test


async def test_a_lost_connection_of_the_peers_is_no_loss_of_ours() -> None:
    class Relayed(Command, idempotent=True, errors={ConnectionLostError: "UPSTREAM_LOST"}):
        pass

    router = Router()

    @router.responder(Relayed)
    async def relay(command: Relayed) -> None:
        raise ConnectionLostError("upstream")

    async with place_of(router) as place, Client(HOST, place.port, backoff=QUICK) as client:
        before = client.connection
        with pytest.raises(ConnectionLostError, match=r"^upstream$"):
            await client.call(Relayed())
        assert client.connection is before


async def test_commands_without_an_answer() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        await client.call(Note(key=1))
        await until(lambda: serving.notes)
        await place.vanish()
        await until(lambda: client.connection is None)
        waiting = asyncio.create_task(client.call(Note(key=2)))
        await settled()
        await place.open()
        await waiting
        await until(lambda: serving.notes == [1, 2])


async def test_boxes() -> None:
    serving = Serving()
    async with client_of(serving) as (client, place):
        serving.holds = False
        assert await client.call_box("Once", {b"key": b"5"}) == {b"text": b"5"}
        assert await client.call_box("Note", {b"key": b"6"}, requires_answer=False) == {}
        serving.holds = True
        again = asyncio.create_task(client.call_box(b"Again", {b"key": b"7"}, idempotent=True))
        once = asyncio.create_task(client.call_box(b"Once", {b"key": b"8"}))
        await until(lambda: serving.carried_out[8])
        serving.holds = False
        place.cut()
        assert await again == {b"text": b"7"}
        with pytest.raises(ConnectionLostError):
            await once


async def test_a_peer_that_breaks_the_protocol_is_left() -> None:
    # Its connection goes on until this side's responders are done; calls must not go there.
    released = asyncio.Event()
    router = Router()

    @router.responder(Again)
    async def respond(command: Again) -> Text:
        await released.wait()
        return Text(text="at last")

    serving = Serving()
    serving.holds = False
    with socket.create_server((HOST, 0)) as broken:
        broken.setblocking(False)
        addresses = [broken.getsockname()[:2]]
        async with place_of(serving.router) as place:
            addresses.append(place.address)
            async with Client(addresses, router=router, backoff=QUICK, extensions=False) as client:
                left = client.connection
                assert left is not None
                sock, _ = await asyncio.get_running_loop().sock_accept(broken)
                with sock:
                    peer = RawPeer(sock)
                    await peer.send({b"_ask": b"1", b"_command": b"Again", b"key": b"1"})
                    await settled()
                    await peer.write(b"HTTP/1.1 400 Bad Request")
                    await until(lambda: left.is_closed)
                    assert await client.call(Once(key=3)) == Text(text="3")
                    assert client.state.address == place.address
                    released.set()
                    assert (await peer.receive())[b"text"] == b"at last"


# -- A peer that doesn't read, and goes ----------------------------------------------------------


class Store(Command[Text]):
    """May not be carried out twice, and fills what is on the way to a peer that doesn't read."""

    key: int
    data: bytes = bytes(60_000)


@contextlib.contextmanager
def deaf_listener() -> Iterator[socket.socket]:
    """Listen at a port, with small buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        listener.bind((HOST, 0))
        listener.listen()
        listener.setblocking(False)
        yield listener


def held_back(connection: Connection[Any] | None) -> int:
    return 0 if connection is None else len(connection._link.writer.held())


async def test_calls_that_were_never_sent_go_elsewhere_whatever_they_do() -> None:
    stored: Counter[int] = Counter()
    router = Router()

    @router.responder(Store)
    async def store(command: Store) -> Text:
        stored[command.key] += 1
        return Text(text=f"{command.key}")

    with deaf_listener() as listener:
        deaf = listener.getsockname()[:2]
        async with (
            place_of(router) as place,
            Client([deaf, place.address], backoff=QUICK) as client,
        ):
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            calls: list[asyncio.Task[Text]] = []
            with sock:
                while held_back(client.connection) < 20:
                    calls.append(asyncio.create_task(client.call(Store(key=len(calls)))))
                    await settled(3)
            sent = len(calls) - 20
            lost = await asyncio.gather(*calls[:sent], return_exceptions=True)
            texts = [answer.text for answer in await asyncio.gather(*calls[sent:])]
    assert sent
    for error in lost:
        assert isinstance(error, ConnectionLostError)
        assert error.was_sent
    assert texts == [f"{key}" for key in range(sent, sent + 20)]
    assert stored == dict.fromkeys(range(sent, sent + 20), 1)


async def test_failing_fast_what_was_never_sent() -> None:
    with deaf_listener() as listener:
        deaf = listener.getsockname()[:2]
        async with Client(deaf, backoff=SLOW, wait_for_connection=False) as client:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            calls: list[asyncio.Task[Text]] = []
            with sock:
                while held_back(client.connection) < 2:
                    calls.append(asyncio.create_task(client.call(Store(key=len(calls)))))
                    await settled(3)
            for number, call in enumerate(calls):
                is_held = number >= len(calls) - 2
                told = "no connection since" if is_held else "the connection to"
                with pytest.raises(ConnectionLostError, match=rf"^Store: {told}") as caught:
                    await call
                assert caught.value.was_sent != is_held


async def test_a_call_that_was_sent_once_counts_as_sent() -> None:
    serving = Serving()
    filling: set[asyncio.Task[Text]] = set()

    async def fill(connection: Connection) -> None:
        while connection.remote_address == deaf and not held_back(connection):
            filling.add(asyncio.create_task(connection.call(Store(key=0))))
            await settled(3)

    with deaf_listener() as listener:
        deaf = listener.getsockname()[:2]
        async with (
            place_of(serving.router) as place,
            Client([place.address, deaf], backoff=QUICK, attempts=2, on_connect=fill) as client,
        ):
            again = asyncio.create_task(client.call(Again(key=1)))
            await until(lambda: serving.carried_out[1])
            place.cut()
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            with sock:
                await until(lambda: held_back(client.connection) == 2)
            with pytest.raises(ConnectionLostError, match=r"^Again: ") as caught:
                await again
            assert caught.value.was_sent
            await asyncio.gather(*filling, return_exceptions=True)


# Whatever happens, in whatever order.

ACTIONS = ["once", "again", "cut", "vanish", "open", "drain", "busy", "release", "hold"]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, 1),  # which of the two servers
        st.sampled_from([0, 1, 2, 5, 10, 50]),  # turns of the event loop until the next step
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_no_call_hangs_and_none_is_carried_out_too_often(steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(carry_out(steps))


async def carry_out(steps: list[tuple[str, int, int]]) -> None:
    serving = Serving()
    calls: list[asyncio.Task[Text]] = []
    idempotent: set[int] = set()
    tasks = asyncio.all_tasks()
    async with (
        asyncio.timeout(20),
        place_of(serving.router) as a,
        place_of(serving.router) as b,
    ):
        places = [a, b]
        async with Client([a.address, b.address], backoff=QUICK) as client:
            for action, number, turns in steps:
                match action:
                    case "once":
                        calls.append(asyncio.create_task(client.call(Once(key=len(calls)))))
                    case "again":
                        idempotent.add(len(calls))
                        calls.append(asyncio.create_task(client.call(Again(key=len(calls)))))
                    case "cut":
                        places[number].cut()
                    case "vanish":
                        await places[number].vanish()
                    case "open":
                        await places[number].open()
                    case "drain":
                        await places[number].drain()
                    case "busy":
                        serving.busy = 3
                    case "release":
                        serving.release()
                    case _:
                        serving.holds = True
                await settled(turns)
                assert len([kept for kept in client._upkeep._all if kept.error is None]) <= 1
            # In the end there is a server, and it answers.
            serving.release()
            await places[0].open()
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert client._upkeep._all == {}
    for key, result in enumerate(results):
        if key in idempotent:
            assert result == Text(text=f"{key}")
            assert serving.carried_out[key] >= 1
        elif isinstance(result, BaseException):
            assert isinstance(result, ConnectionLostError), result
            assert serving.carried_out[key] <= 1
        else:
            assert result == Text(text=f"{key}")
            assert serving.carried_out[key] == 1
    left_over = asyncio.all_tasks() - tasks
    if left_over:
        _, left_over = await asyncio.wait(left_over, timeout=5)
    assert not left_over
