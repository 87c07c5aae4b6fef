"""One client over several servers, as its users see it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import HOST, LogCapture, settled, until
from tests.places import QUICK, SLOW, Place, free_port, place_of
from tests.test_resending import Again, Once, Serving
from typed_amp import (
    Backoff,
    CallTimeoutError,
    ClientStatus,
    Connection,
    ConnectionLostError,
    ConnectionPool,
    RemoteAmpError,
    Router,
    connect_pool,
    serve_unix,
)
from typed_amp.balancing import BALANCES, Balance


def named(name: str) -> Router:
    """Make a router that answers with a name."""
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        return Text(text=name)

    return router


@contextlib.asynccontextmanager
async def places_named(names: str) -> AsyncIterator[list[Place]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(place_of(named(name))) for name in names]


@contextlib.asynccontextmanager
async def places_of(*routers: Router[Any]) -> AsyncIterator[list[Place]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(place_of(router)) for router in routers]


def pool_of(places: Sequence[Place], **options: Any) -> Any:
    options.setdefault("backoff", QUICK)
    return connect_pool([place.address for place in places], **options)


async def names_of(pool: ConnectionPool, calls: int) -> str:
    """Make calls one after the other, and say who answered them."""
    return "".join([(await pool.call(Repeat(text=""))).text for _ in range(calls)])


# -- How calls are spread --------------------------------------------------------------------


@pytest.mark.parametrize("balance", BALANCES)
async def test_calls_that_follow_each_other_are_spread_evenly(balance: Balance) -> None:
    async with places_named("abc") as places, pool_of(places, balance=balance) as pool:
        await pool.wait_connected(3)
        assert Counter(await names_of(pool, 30)) == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize("balance", BALANCES)
async def test_one_with_much_to_do(balance: Balance) -> None:
    slow, quick = Gate(), Gate()
    answered: Counter[str] = Counter()
    keys = itertools.count()
    async with (
        places_of(slow.router, quick.router) as places,
        pool_of(places, balance=balance) as pool,
        asyncio.TaskGroup() as group,
    ):
        await pool.wait_connected(2)

        async def worker() -> None:
            for _ in range(20):
                answer = await pool.call(Wait(key=next(keys)))
                answered[answer.text] += 1

        async def answer(gate: Gate, name: str, turns: int) -> None:
            while answered.total() < 10 * 20:
                for future in [each for each in gate.waiting.values() if not each.done()]:
                    future.set_result(name)
                await settled(turns)

        for _ in range(10):
            group.create_task(worker())
        group.create_task(answer(slow, "slow", 60))
        group.create_task(answer(quick, "quick", 3))
    if balance == "round_robin":
        assert abs(answered["slow"] - answered["quick"]) <= 2 * 10  # what was in flight at the end
    else:
        assert answered["quick"] > 2 * answered["slow"]


async def test_least_loaded_prefers_the_idle_one() -> None:
    gates = Gate(), Gate(), Gate()
    async with places_of(*(gate.router for gate in gates)) as places, pool_of(places) as pool:
        await pool.wait_connected(3)
        calls = [asyncio.create_task(pool.call(Wait(key=key))) for key in range(9)]
        for gate in gates:
            await gate.holds(3)
        assert [server.calls_in_flight for server in pool.servers] == [3, 3, 3]
        for future in gates[1].waiting.values():
            future.set_result("done")
        await until(lambda: sum(call.done() for call in calls) == 3)
        calls += [asyncio.create_task(pool.call(Wait(key=key))) for key in range(9, 12)]
        await gates[1].holds(6)
        assert [len(gate.waiting) for gate in gates] == [3, 6, 3]
        for gate in gates:
            for future in gate.waiting.values():
                if not future.done():
                    future.set_result("done")
        assert len(await asyncio.gather(*calls)) == 12


# -- Servers that go and come back -----------------------------------------------------------


async def test_a_server_that_is_gone_is_put_aside_and_comes_back() -> None:
    async with places_named("ab") as (a, b), pool_of([a, b]) as pool:
        await pool.wait_connected(2)
        await a.vanish()
        await until(lambda: len(pool.connections) == 1)
        assert await names_of(pool, 20) == "b" * 20
        await until(lambda: pool.servers[0].failures > 2 or pool.servers[1].failures > 2)
        (down,) = [server for server in pool.servers if server.address == a.address]
        assert down.status is not ClientStatus.CONNECTED
        assert isinstance(down.error, ConnectionRefusedError)
        assert pool.state.status is ClientStatus.CONNECTED
        await a.open()
        await pool.wait_connected(2)
        assert sorted(await names_of(pool, 20)) == [*"a" * 10, *"b" * 10]


async def test_attempts_at_one_that_is_gone_are_rare() -> None:
    async with places_named("ab") as (a, b), pool_of([a, b], backoff=SLOW) as pool:
        await pool.wait_connected(2)
        await a.vanish()
        await until(lambda: len(pool.connections) == 1)
        await names_of(pool, 50)
        (down,) = [server for server in pool.servers if server.address == a.address]
        assert down.status is ClientStatus.WAITING
        assert (down.failures, down.delay) == (1, 3600)


async def test_calls_in_flight_when_a_server_is_lost() -> None:
    doomed, staying = Serving(), Serving()
    async with places_of(doomed.router, staying.router) as (a, b), pool_of([a, b]) as pool:
        await pool.wait_connected(2)
        once = [asyncio.create_task(pool.call(Once(key=key))) for key in range(4)]
        again = [asyncio.create_task(pool.call(Again(key=key))) for key in range(10, 14)]
        await until(lambda: doomed.carried_out.total() == staying.carried_out.total() == 4)
        lost = set(doomed.carried_out)
        await a.vanish()
        staying.release()
        results = await asyncio.gather(*once, *again, return_exceptions=True)
    for key, result in zip([*range(4), *range(10, 14)], results, strict=True):
        if key < 10 and key in lost:
            assert isinstance(result, ConnectionLostError)
            assert result.was_sent
            assert staying.carried_out[key] == 0
        else:
            assert result == Text(text=f"{key}")
            assert staying.carried_out[key] == 1


@pytest.mark.parametrize("balance", BALANCES)
async def test_a_closing_server_is_left_at_once_without_a_failed_call(balance: Balance) -> None:
    leaving, staying = Serving(), Serving()
    staying.release()
    async with (
        places_of(leaving.router, staying.router) as (a, b),
        pool_of([a, b], balance=balance) as pool,
    ):
        await pool.wait_connected(2)
        begun = [asyncio.create_task(pool.call(Once(key=key))) for key in range(2)]
        await until(lambda: leaving.carried_out)
        (held,) = leaving.carried_out
        await a.drain()
        answers = await asyncio.gather(*(pool.call(Once(key=key)) for key in range(2, 40)))
        assert [answer.text for answer in answers] == [f"{key}" for key in range(2, 40)]
        assert leaving.carried_out == {held: 1}
        (server,) = [server for server in pool.servers if server.address == a.address]
        assert server.status is not ClientStatus.CONNECTED
        assert server.calls_in_flight == 1
        leaving.release()
        assert len(await asyncio.gather(*begun)) == 2
    assert staying.carried_out == {key: 1 for key in range(40) if key != held}


async def test_all_down_then_up() -> None:
    async with places_named("ab") as (a, b), pool_of([a, b]) as pool:
        await a.vanish()
        await b.vanish()
        await until(lambda: pool.state.status is ClientStatus.WAITING)
        await until(lambda: all(server.failures > 1 for server in pool.servers))
        with pytest.raises(CallTimeoutError, match=r"^Repeat: no answer within 0\.02") as late:
            await pool.call(Repeat(text=""), timeout=0.02)
        assert isinstance(late.value.__cause__, ConnectionRefusedError)
        with pytest.raises(ConnectionLostError) as down:
            await pool.call(Repeat(text=""), wait_for_connection=False)
        assert str(down.value).startswith("Repeat: no connection since ")
        for place in (a, b):
            assert f"{HOST}:{place.port}: [Errno " in str(down.value)
        assert not pool.connections
        waiting = [asyncio.create_task(pool.call(Repeat(text=""))) for _ in range(5)]
        await settled()
        assert not any(call.done() for call in waiting)
        await b.open()
        assert {answer.text for answer in await asyncio.gather(*waiting)} == {"b"}
        await a.open()
        await pool.wait_connected(2)
        assert Counter(await names_of(pool, 10)) == {"a": 5, "b": 5}


async def test_it_may_be_there_before_any_server() -> None:
    ports = [free_port(), free_port()]
    opening = asyncio.create_task(opened([(HOST, port) for port in ports], backoff=QUICK))
    await settled(200)
    assert not opening.done()
    place = Place(named("a"))
    place.port = ports[1]
    await place.open()
    async with await opening as pool:
        assert await names_of(pool, 2) == "aa"
    await place.vanish()


async def opened(addresses: Any, **options: Any) -> ConnectionPool:
    return await connect_pool(addresses, **options)


@pytest.mark.usefixtures("nothing_left")
async def test_opening_may_be_cancelled_and_need_not_wait() -> None:
    address = (HOST, free_port())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), connect_pool([address], backoff=QUICK):
            pass
    async with connect_pool([address], backoff=QUICK, wait_for_first=False) as pool:
        assert repr(pool) == "<ConnectionPool, connecting, 0 of 1 servers connected>"
        waiting = asyncio.create_task(pool.call(Repeat(text="")))
        await until(lambda: pool.servers[0].failures)
        waiting.cancel()
        await asyncio.wait([waiting])


# -- Servers that are busy, or too slow ------------------------------------------------------


@pytest.mark.parametrize("command", [Once, Again])
async def test_what_a_busy_server_refuses_goes_to_another_at_once(command: Any) -> None:
    busy, free = Serving(), Serving()
    busy.busy = 10**9
    free.release()
    async with places_of(busy.router, free.router) as (a, b), pool_of([a, b], backoff=SLOW) as pool:
        await pool.wait_connected(2)
        for key in range(10):  # waiting as SLOW says would take an hour
            assert await pool.call(command(key=key)) == Text(text=f"{key}")
        (avoided,) = [server for server in pool.servers if server.is_avoided]
        assert avoided.address == a.address
    assert 10**9 - busy.busy == 1  # then the other one was preferred
    assert free.carried_out == dict.fromkeys(range(10), 1)


async def test_all_busy() -> None:
    servings = Serving(), Serving()
    for serving in servings:
        serving.holds = False
        serving.busy = 3
    async with places_of(*(each.router for each in servings)) as places, pool_of(places) as pool:
        await pool.wait_connected(2)
        assert await pool.call(Once(key=1)) == Text(text="1")
        assert sum(serving.carried_out.total() for serving in servings) == 1
        for serving in servings:
            serving.busy = 10**9
        with pytest.raises(CallTimeoutError) as caught:
            await pool.call(Once(), timeout=0.05)
        assert isinstance(caught.value.__cause__, RemoteAmpError)


async def test_one_that_does_not_answer_in_time_is_avoided() -> None:
    stuck, quick = Serving(), Serving()
    quick.release()
    async with (
        places_of(stuck.router, quick.router) as (a, b),
        pool_of([a, b], backoff=SLOW, balance="round_robin") as pool,
    ):
        await pool.wait_connected(2)
        results = await asyncio.gather(
            *(pool.call(Once(key=key), timeout=0.05) for key in range(4)), return_exceptions=True
        )
        assert sum(isinstance(result, CallTimeoutError) for result in results) == 2
        for key in range(4, 24):
            assert await pool.call(Once(key=key), timeout=60) == Text(text=f"{key}")
        assert [server.address for server in pool.servers if server.is_avoided] == [a.address]
        await b.vanish()
        await until(lambda: len(pool.connections) == 1)  # one to be avoided is better than none
        stuck.release()
        assert await pool.call(Once(key=24)) == Text(text="24")
        assert not any(server.is_avoided for server in pool.servers)  # it has answered


# -- An end to sending -----------------------------------------------------------------------


async def test_a_command_that_ends_its_servers_ends_so_many_at_the_most() -> None:
    ended: list[int] = []
    places: list[Place] = []

    def deadly(number: int) -> Router:
        router = Router()

        @router.responder(Again)
        async def die(command: Again) -> Text:
            ended.append(number)
            places[number].cut()
            await asyncio.Event().wait()
            return Text(text="never")

        return router

    async with places_of(*(deadly(number) for number in range(4))) as opened_places:
        places += opened_places
        async with pool_of(places, attempts=2, backoff=SLOW) as pool:
            await pool.wait_connected(4)
            with pytest.raises(ConnectionLostError) as caught:
                await pool.call(Again())
            assert len(caught.value.__notes__) == 1
            assert len(set(ended)) == len(ended) == 2
            await until(lambda: len(pool.connections) == 2)


# -- Everything that a connection can do -----------------------------------------------------


async def test_all_ways_to_call() -> None:
    async with places_of(example_router(), example_router()) as places, pool_of(places) as pool:
        assert await pool.call(Repeat(text="ab", times=2)) == Text(text="abab")
        assert await pool.call_remote(Repeat, text="ab") == Text(text="ab")
        assert await pool.call_box("Repeat", {b"text": b"ab", b"times": b"1"}) == {b"text": b"ab"}
        call: Any = pool.call_remote
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            await call(Repeat, text="ab", text_="ab")


async def test_servers_may_call_and_each_connection_has_its_state() -> None:
    client_router = Router(state=list[str])

    @client_router.responder(Repeat)
    async def repeat(command: Repeat, connection: Connection[list[str]]) -> Text:
        connection.state.append(command.text)
        return Text(text=f"{len(connection.state)}")

    def calling_back() -> Router:
        router = Router()

        @router.responder(Wait)
        async def wait(command: Wait, connection: Connection) -> Text:
            return await connection.call(Repeat(text="x"))

        return router

    async with (
        places_of(calling_back(), calling_back()) as places,
        pool_of(places, router=client_router, balance="round_robin") as pool,
    ):
        await pool.wait_connected(2)
        assert [(await pool.call(Wait())).text for _ in range(4)] == ["1", "1", "2", "2"]
        assert [connection.state for connection in pool.connections] == [["x", "x"], ["x", "x"]]


async def test_on_connect_is_for_each_connection() -> None:
    seen: list[object] = []

    async def note(connection: Connection) -> None:
        await connection.call(Repeat(text="hello"))
        seen.append(connection.remote_address)

    async with places_named("ab") as (a, b), pool_of([a, b], on_connect=note) as pool:
        await pool.wait_connected(2)
        assert sorted(map(str, seen)) == sorted(map(str, [a.address, b.address]))
        a.cut()
        await until(lambda: len(seen) == 3)
        assert seen[2] == a.address


async def test_unix_and_tls(certificates: Certificates, tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    async with (
        serve_unix(example_router(), paths[0], ssl=certificates.server),
        serve_unix(example_router(), paths[1], ssl=certificates.server),
        connect_pool(paths, ssl=certificates.client, server_hostname="localhost") as pool,
    ):
        await pool.wait_connected(2)
        for _ in range(4):
            assert await pool.call(Repeat(text="ab")) == Text(text="ab")
        assert {server.address for server in pool.servers} == {str(path) for path in paths}
        assert all(connection.peer_certificate for connection in pool.connections)


async def test_options_are_for_each_connection() -> None:
    gate = Gate()
    async with places_of(gate.router) as places, pool_of(places, call_timeout=0.02) as pool:
        with pytest.raises(CallTimeoutError, match=r"within 0\.02 seconds"):
            await pool.call(Wait())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("localhost",), {}, ValueError, r"^'localhost' is no address: a host needs a port"),
        (([],), {}, ValueError, r"^a client needs at least one address"),
        (([("a", 1), ("a", 1)],), {}, ValueError, r"^a:1 is given twice"),
        ((opened, 8000), {}, TypeError, r"^a function gives addresses with their ports"),
        ((("a", 1),), {"balance": "random"}, ValueError, r"^balance must be 'least_loaded' or"),
        ((("a", 1),), {"look_up_every": 0}, ValueError, r"^look_up_every must be positive, not 0"),
        ((("a", 1),), {"limit": 1}, TypeError, r"^no such option: limit\. There are limits"),
        ((("a", 1),), {"attempts": 0}, ValueError, r"^attempts must be positive, or None, not 0"),
        ((["/x"],), {"ssl": True}, ValueError, r"^TLS over a Unix socket needs server_hostname"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_makes_no_sense_is_refused(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        connect_pool(*arguments, **options)


async def test_what_no_attempt_can_mend_ends_it(certificates: Certificates) -> None:
    async def find() -> list[str]:
        return ["/nowhere"]  # which has no name for a certificate

    with pytest.raises(ValueError, match="server_hostname"):
        await opened(find, ssl=certificates.client)


async def test_a_hook_that_fails_may_be_mended() -> None:
    has_failed = asyncio.Event()

    async def fail_once(connection: Connection) -> None:
        if not has_failed.is_set():
            has_failed.set()
            raise LookupError

    async with places_named("a") as places, pool_of(places, on_connect=fail_once) as pool:
        assert await names_of(pool, 1) == "a"
        assert isinstance(pool.servers[0].error, LookupError)


# -- Watching --------------------------------------------------------------------------------


async def test_what_watchers_see(log: LogCapture) -> None:
    seen: list[tuple[ClientStatus, int]] = []
    async with places_named("ab") as (a, b):
        async with pool_of([a, b], backoff=SLOW) as pool:

            async def watch() -> None:
                async for state in pool.states():
                    seen.append((state.status, state.connected))  # noqa: PERF401 - others look

            watching = asyncio.create_task(watch())
            await pool.wait_connected(2)
            await until(lambda: seen and seen[-1] == (ClientStatus.CONNECTED, 2))
            a.cut()
            await until(lambda: seen[-1] == (ClientStatus.CONNECTED, 1))
            b.cut()
            await until(lambda: seen[-1] == (ClientStatus.WAITING, 0))
            assert repr(pool) == "<ConnectionPool, waiting, 0 of 2 servers connected>"
            since = pool.state.since
        await watching
        assert pool.state.status is ClientStatus.CLOSED
        assert pool.state.since >= since
        assert {server.status for server in pool.servers} == {ClientStatus.CLOSED}
        with pytest.raises(ConnectionLostError, match=r"^wait_connected: the client is closed"):
            await pool.wait_connected()
    assert seen[-1] == (ClientStatus.CLOSED, 0)
    records = [vars(each) for each in log.records if hasattr(each, "amp_server")]
    for place in (a, b):
        where = f"{HOST}:{place.port}"
        events = [each["amp_event"] for each in records if each["amp_server"] == where]
        assert events == ["server_joined", "connected", "lost"]


async def test_counters() -> None:
    async with places_named("ab") as (a, b), pool_of([a, b]) as pool:
        await pool.wait_connected(2)
        await names_of(pool, 10)
        assert [server.counters.calls for server in pool.servers] == [5, 5]
        a.cut()
        await until(lambda: len(pool.connections) == 1)
        await pool.wait_connected(2)
        await names_of(pool, 10)
        await until(lambda: pool.counters.connections == 2)
        assert pool.counters.calls == 20
    assert pool.counters.calls == 20
    assert pool.counters.connections == 0


# -- Cancelling and closing ------------------------------------------------------------------


async def test_cancelling_ends_a_call_wherever_it_is() -> None:
    serving = Serving()
    async with places_of(serving.router, serving.router) as (a, b), pool_of([a, b]) as pool:
        calls = [asyncio.create_task(pool.call(Again(key=key))) for key in range(4)]
        await until(lambda: serving.carried_out.total() == 4)
        calls[0].cancel()  # while it waits for its answer
        await asyncio.wait(calls[:1])
        assert sum(server.calls_in_flight for server in pool.servers) == 3
        await a.vanish()
        await b.vanish()
        await until(lambda: pool.state.status is ClientStatus.WAITING)
        calls[1].cancel()  # while it waits for a server
        await asyncio.wait(calls[:2])
        serving.release()
        await b.open()
        assert len(await asyncio.gather(*calls[2:])) == 2
    assert serving.carried_out == {0: 1, 1: 1, 2: 2, 3: 2}


@pytest.mark.usefixtures("nothing_left")
async def test_closing_ends_all_and_lets_responders_finish() -> None:
    client_gate = Gate()
    answered: list[str] = []

    def calling_back() -> Router:
        router = example_router()

        @router.responder(Once)
        async def respond(command: Once, connection: Connection) -> Text:
            answer = await connection.call(Wait(key=command.key))
            answered.append(answer.text)
            return answer

        return router

    async with places_of(calling_back(), calling_back()) as places:
        pool = await pool_of(places, router=client_gate.router)
        await pool.wait_connected(2)
        calls = [asyncio.create_task(pool.call(Once(key=key))) for key in range(2)]
        await client_gate.holds(2)
        pool.close()
        assert pool.is_closed
        with pytest.raises(ConnectionLostError, match=r"^Repeat: the client is closed"):
            await pool.call(Repeat(text=""))
        await settled()
        for key, future in client_gate.waiting.items():
            future.set_result(f"{key}")
        await pool.wait_closed()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: sorted(answered) == ["0", "1"])
        pool.close()
        await pool.wait_closed()
        await until(lambda: not any(place.connections for place in places))


async def test_closing_fails_what_waits() -> None:
    pool = await connect_pool([(HOST, free_port())], backoff=SLOW, wait_for_first=False)
    waiting = asyncio.create_task(pool.call(Repeat(text="")))
    await until(lambda: pool.servers[0].failures)
    pool.close()
    with pytest.raises(ConnectionLostError, match=r"^Repeat: the client is closed; no connection"):
        await waiting
    await pool.wait_closed()


# -- Whatever happens, in whatever order -----------------------------------------------------

ACTIONS = [
    *("once", "again", "cut", "vanish", "open", "drain", "busy", "release", "hold"),
    *("join", "leave", "cancel"),
]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, 2),  # which of the three servers
        st.sampled_from([0, 1, 2, 5, 10, 50]),  # turns of the event loop until the next step
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from(BALANCES))
def test_no_call_hangs_and_none_is_carried_out_too_often(
    steps: list[tuple[str, int, int]], balance: Balance
) -> None:
    asyncio.run(carry_out(steps, balance))


async def carry_out(steps: list[tuple[str, int, int]], balance: Balance) -> None:
    serving = Serving()
    calls: list[asyncio.Task[Text]] = []
    idempotent: set[int] = set()
    cancelled: set[int] = set()
    tasks = asyncio.all_tasks()
    backoff = Backoff(first=0.001, maximum=0.01)
    async with (
        asyncio.timeout(30),
        places_of(serving.router, serving.router, serving.router) as places,
    ):
        known = [places[0].address, places[1].address]

        async def find() -> list[tuple[str, int]]:
            return known

        async with connect_pool(
            find, balance=balance, backoff=backoff, look_up_every=0.002
        ) as pool:
            for action, number, turns in steps:
                place = places[number]
                match action:
                    case "once":
                        calls.append(asyncio.create_task(pool.call(Once(key=len(calls)))))
                    case "again":
                        idempotent.add(len(calls))
                        calls.append(asyncio.create_task(pool.call(Again(key=len(calls)))))
                    case "cancel" if calls:
                        cancelled.add(number % len(calls))
                        calls[number % len(calls)].cancel()
                    case "cut":
                        place.cut()
                    case "vanish":
                        await place.vanish()
                    case "open":
                        await place.open()
                    case "drain":
                        await place.drain()
                    case "busy":
                        serving.busy = 3
                    case "release":
                        serving.release()
                    case "join" if place.address not in known:
                        known = [*known, place.address]
                    case "leave" if len(known) > 1:
                        known = [address for address in known if address != place.address]
                    case _:
                        serving.holds = True
                await settled(turns)
                assert len(pool.connections) <= 3
            # In the end there is a server, and it answers.
            serving.release()
            for place in places:
                await place.open()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(server.calls_in_flight for server in pool.servers) == 0
    for key, result in enumerate(results):
        if key in cancelled and isinstance(result, asyncio.CancelledError):
            continue
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
