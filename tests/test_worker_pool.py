from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT
from tests.leftovers import is_running
from tests.peers import LogCapture, cancel, settled, until
from tests.programs import program
from tests.worker_router import (
    Ask,
    AsyncSquare,
    Crash,
    CrashAgain,
    End,
    Grow,
    Meet,
    MeetAgain,
    Nap,
    Note,
    Number,
    Process,
    Report,
    Square,
    Stop,
    StopHard,
    TooBigError,
    WithReport,
    make_router,
)
from typed_amp import (
    Backoff,
    CallTimeoutError,
    ConnectionLostError,
    Limits,
    PoolCounters,
    QueueFullError,
    RemoteAmpError,
    Router,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
    WorkerPool,
    WorkerStartError,
    WorkerState,
    WorkerStatus,
)
from typed_amp.recycling import resident_memory
from typed_amp.transitions import StartTLS

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1024 * 1024
AT_ONCE = Backoff(first=0.001, maximum=0.001)


ROUTER = "tests.worker_router:router"
ON_ASYNCIO = "tests.worker_router_on_asyncio:router"
on_both_loops = pytest.mark.parametrize("target", [ROUTER, ON_ASYNCIO], ids=["uvloop", "asyncio"])


def pool_of(workers: int = 1, target: str = ROUTER, **options: Any) -> WorkerPool:
    return WorkerPool(target, workers=workers, **{"backoff": AT_ONCE, **options})


def arrived(path: Path, *, least: int = 1) -> Sequence[int]:
    """Give the processes that have come to where `Meet` waits, if so many have."""
    here = Path(f"{path}.here")
    found = [int(line) for line in here.read_text().split()] if here.exists() else []
    return found if len(found) >= least else []


def process_ids(pool: WorkerPool) -> set[int]:
    return {worker.process_id for worker in pool.workers}


# -- Calling --------------------------------------------------------------------------------------


async def test_calls_are_answered_by_plain_functions_and_by_async_ones() -> None:
    async with pool_of(2) as pool:
        answers = await asyncio.gather(*(pool.call(Square(number=n)) for n in range(50)))
        assert [answer.number for answer in answers] == [n**2 for n in range(50)]
        assert await pool.call(AsyncSquare(number=5)) == Number(number=25)
        assert await pool.call_remote(Square, number=6) == Number(number=36)
        with pytest.raises(TooBigError) as caught:
            await pool.call(Square(number=2_000))
        assert caught.value.limit == 1_000
        with pytest.raises(UnhandledCommandError):
            await pool.call(Report(number=1))
        assert repr(pool) == "<WorkerPool of tests.worker_router:router, 2 workers, open>"
    assert pool.is_closed
    assert repr(pool) == "<WorkerPool of tests.worker_router:router, 2 workers, closed>"


async def test_workers_run_beside_each_other_and_the_least_busy_comes_first(tmp_path: Path) -> None:
    async with pool_of(3, max_concurrency=2) as pool:
        calls = [
            asyncio.create_task(pool.call(Meet(path=str(tmp_path / str(n))))) for n in range(6)
        ]
        await until(lambda: all(arrived(tmp_path / str(n)) for n in range(6)))
        assert [state.calls_in_flight for state in pool.workers] == [2, 2, 2]
        (tmp_path / "1").touch()
        least_busy = (await calls[1]).number
        assert await pool.call(Process()) == Number(number=least_busy)
        for n in range(6):
            (tmp_path / str(n)).touch()
        assert len({answer.number for answer in await asyncio.gather(*calls)}) == 3


async def test_state_and_counters() -> None:
    pool = pool_of(2)
    assert len(pool.workers) == 0
    assert pool.counters == PoolCounters()
    async with pool:
        await pool.call(Process())
        assert pool.counters == PoolCounters(calls=1, workers_started=2)
        first, second = pool.workers
        assert isinstance(first, WorkerState)
        assert first.status is second.status is WorkerStatus.READY
        assert (first.calls_done, second.calls_done) == (1, 0)
        assert 0 < first.age < 60
        assert is_running(first.process_id)
    assert len(pool.workers) == 0


async def test_what_a_worker_finds() -> None:
    directory = Path("/")
    env = {**os.environ, "COLOUR": "green", "PYTHONPATH": str(ROOT)}

    async def ask(pool: WorkerPool, what: str, **options: Any) -> str:
        return (await pool.call(Ask(what=what), **options)).text

    async with pool_of(cwd=directory, env=env) as pool:
        assert await ask(pool, "hooks") == "['on_connect']"
        assert await ask(pool, "colour") == "green"
        assert await ask(pool, "directory") == "/"
        assert await ask(pool, "path") == str(sys.path)
        assert await ask(pool, "thread") == "True"
        assert await ask(pool, "time") == "None"
        assert 40 < float(await ask(pool, "time", timeout=50)) <= 50


@pytest.mark.parametrize(
    ("options", "is_main"),
    [({"threads": True}, "False"), ({"max_concurrency": 2}, "False"), ({}, "True")],
    ids=str,
)
async def test_where_plain_functions_run(options: dict[str, Any], is_main: str) -> None:
    async with pool_of(**options) as pool:
        assert (await pool.call(Ask(what="thread"))).text == is_main


async def test_threads_let_the_event_loop_go_on(tmp_path: Path) -> None:
    async with pool_of(max_concurrency=2) as pool:
        call = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        await until(lambda: arrived(tmp_path / "go"))
        assert await pool.call(AsyncSquare(number=3)) == Number(number=9)
        (tmp_path / "go").touch()
        await call


async def test_a_worker_calls_back() -> None:
    router = Router()

    @router.responder(Report)
    async def report(command: Report) -> Number:
        return Number(number=-command.number)

    async with pool_of(router=router) as pool:
        assert await pool.call(WithReport(number=3)) == Number(number=-3)


async def test_a_router_may_be_made_in_the_worker() -> None:
    assert make_router() is not None
    async with pool_of(target="tests.worker_router:make_router") as pool:
        assert await pool.call(Square(number=2)) == Number(number=4)


async def test_limits_hold_on_both_sides() -> None:
    async with pool_of(limits=Limits(max_box_bytes=100)) as pool:
        with pytest.raises(TooLongError):
            await pool.call(Note(path="x" * 100, wait_for=""))
        assert await pool.call(Square(number=2)) == Number(number=4)


@pytest.mark.parametrize(("target", "module"), [(ROUTER, "uvloop"), (ON_ASYNCIO, "asyncio")])
async def test_workers_run_on_uvloop_where_it_is_installed(target: str, module: str) -> None:
    if module == "uvloop":
        pytest.importorskip("uvloop")
    async with pool_of(target=target) as pool:
        assert (await pool.call(Ask(what="loop"))).text == module


async def test_boxes_as_they_are(tmp_path: Path) -> None:
    async with pool_of(call_timeout=50) as pool:
        assert await pool.call_box("Square", {b"number": b"5"}) == {b"number": b"25"}
        assert await pool.call_box(b"Square", {b"number": b"6"}, timeout=40) == {b"number": b"36"}
        with pytest.raises(RemoteAmpError) as caught:
            await pool.call_box("Square", {b"number": b"2000"})
        assert (caught.value.code, caught.value.fields) == ("TOO_BIG", {b"limit": b"1000"})
        with pytest.raises(UnhandledCommandError):
            await pool.call_box("Report")
        with pytest.raises(TooLongError):
            await pool.call_box("Square", {b"number": bytes(100_000)})
        note = tmp_path / "note"
        box = {b"path": str(note).encode(), b"wait_for": str(tmp_path).encode()}
        assert await pool.call_box("Note", box, requires_answer=False) == {}
        await until(lambda: not pool.counters.calls_in_flight)
        assert note.read_text() == "noted"
        with pytest.raises(ConnectionLostError):
            await pool.call_box("CrashAgain")
        assert pool.counters.calls_moved == 0
    with pytest.raises(ConnectionLostError, match=r"^Square: .* is closed"):
        await pool.call_box("Square", {b"number": b"5"})


async def test_a_box_moves_if_its_caller_says_that_it_may() -> None:
    async with pool_of(2, attempts=3) as pool:
        with pytest.raises(ConnectionLostError):
            await pool.call_box("Crash", idempotent=True)
        assert pool.counters.calls_moved == 2


async def test_a_closing_that_a_worker_passes_on_is_for_the_caller() -> None:
    async with pool_of(target="tests.worker_router:passing_on") as pool:
        before = process_ids(pool)
        with pytest.raises(RemoteAmpError, match="CLOSING: the one behind it"):
            await pool.call_box("Anything")
        [number] = (await pool.call_box("Anything")).values()
        assert {int(number)} == process_ids(pool) == before
        assert pool.counters.calls_moved == 0


# -- The queue ------------------------------------------------------------------------------------


async def test_calls_wait_for_a_worker_in_their_order(tmp_path: Path) -> None:
    async with pool_of(max_queued=3) as pool:
        first = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        await until(lambda: arrived(tmp_path / "go"))
        done: list[int] = []

        async def call(number: int) -> None:
            await pool.call(Square(number=number))
            done.append(number)

        calls = [asyncio.create_task(call(number)) for number in range(3)]
        await until(lambda: pool.counters.calls_queued == 3)
        with pytest.raises(QueueFullError, match=r"^Square: 3 calls wait .* max_queued"):
            await pool.call(Square(number=9))
        await cancel(calls[1])
        assert pool.counters.calls_queued == 2
        with pytest.raises(CallTimeoutError, match="from the queue of <WorkerPool"):
            await pool.call(Square(number=9), timeout=0.01)
        (tmp_path / "go").touch()
        await asyncio.gather(first, calls[0], calls[2])
        assert done == [0, 2]
        assert pool.counters.calls_refused == 1
        assert pool.counters.calls_in_flight == pool.counters.calls_queued == 0


async def test_a_call_that_got_a_place_as_it_was_cancelled_gives_it_back(tmp_path: Path) -> None:
    async with pool_of() as pool:
        first = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        await until(lambda: arrived(tmp_path / "go"))
        second = asyncio.create_task(pool.call(Square(number=1)))
        await until(lambda: pool.counters.calls_queued == 1)
        first.add_done_callback(lambda _: second.cancel())
        (tmp_path / "go").touch()
        await first
        await asyncio.wait([second])
        assert await pool.call(Square(number=2), timeout=50) == Number(number=4)


@on_both_loops
async def test_what_wants_no_answer_is_no_more_at_a_time_than_anything_else(
    target: str, tmp_path: Path
) -> None:
    """Whether an async function carries it out, or one in a thread."""
    async with pool_of(target=target, max_concurrency=2) as pool:
        paths = [tmp_path / str(number) for number in range(3)]
        await pool.call(Nap(path=str(paths[0])))
        await pool.call(Note(path=str(tmp_path / "note"), wait_for=str(paths[1])))
        await until(lambda: arrived(paths[0]))
        third = asyncio.create_task(pool.call(Nap(path=str(paths[2]))))
        await until(lambda: pool.counters.calls_queued == 1)
        await settled()
        assert pool.counters.calls_in_flight == 2
        paths[1].touch()
        await third
        await until(lambda: arrived(paths[2]))
        assert (tmp_path / "note").read_text() == "noted"
        assert pool.counters.calls_in_flight == 2
        paths[0].touch()
        await until(lambda: pool.counters.calls_in_flight == 1)
        paths[2].touch()
        await until(lambda: pool.counters.calls_in_flight == 0)


# -- Workers that are lost ------------------------------------------------------------------------


async def test_a_crash_costs_its_own_call_and_no_other(log: LogCapture) -> None:
    async with pool_of() as pool:
        before = process_ids(pool)
        call = asyncio.create_task(pool.call(Crash()))
        others = [asyncio.create_task(pool.call(Process())) for _ in range(3)]
        with pytest.raises(ConnectionLostError, match="was killed by SIGKILL") as caught:
            await call
        assert caught.value.exit_status == -signal.SIGKILL
        assert caught.value.was_sent
        answers = {(await other).number for other in others}
        assert answers == process_ids(pool) != before
        assert pool.counters.workers_lost == 1
    [line] = log.lines()
    assert "a worker was lost: " in line
    [record] = [each for each in log.records if each.__dict__.get("amp_event") == "worker_lost"]
    assert "typed_amp.worker" in record.__dict__["amp_connection"]


async def test_an_idempotent_call_that_crashes_its_workers_is_given_up() -> None:
    async with pool_of(2, attempts=3) as pool:
        with pytest.raises(ConnectionLostError) as caught:
            await pool.call(CrashAgain())
        assert [note.partition(":")[0] for note in caught.value.__notes__] == [
            "attempt 1",
            "attempt 2",
        ]
        assert pool.counters.calls_moved == 2
        assert await pool.call(Square(number=2)) == Number(number=4)


async def test_killing_workers_under_load_loses_no_idempotent_call(tmp_path: Path) -> None:
    """Each is killed while a call waits in it, five times over, beside steady load."""
    async with pool_of(2, attempts=None) as pool:
        is_over = False
        answered = 0

        async def load() -> None:
            nonlocal answered
            while not is_over:
                await pool.call(Process())
                answered += 1

        loads = [asyncio.create_task(load()) for _ in range(20)]
        for number in range(5):
            path = tmp_path / str(number)
            call = asyncio.create_task(pool.call(MeetAgain(path=str(path))))
            await until(partial(arrived, path))
            os.kill(arrived(path)[0], signal.SIGKILL)
            await until(partial(arrived, path, least=2))
            path.touch()
            assert (await call).number == arrived(path)[1]
        seen = answered
        await until(lambda: answered > seen + 100)
        is_over = True
        await asyncio.gather(*loads)
        assert pool.counters.workers_lost == 5
        assert pool.counters.calls_moved >= 5


async def test_a_call_in_the_very_turn_in_which_its_worker_is_lost() -> None:
    async with pool_of() as pool:
        [worker] = pool._crew.workers
        os.kill(worker.connection.process_id, signal.SIGKILL)
        await until(lambda: worker.connection.is_closed)
        assert await pool.call(Square(number=3)) == Number(number=9)
        assert pool.counters.workers_lost == 1


@on_both_loops
@pytest.mark.parametrize("threads", [False, True], ids=["inline", "threads"])
@pytest.mark.parametrize("how", ["sys.exit", "interrupt"])
async def test_a_plain_function_that_would_end_its_program(
    how: str, threads: bool, target: str
) -> None:
    async with pool_of(target=target, threads=threads) as pool:
        before = process_ids(pool)
        with pytest.raises(UnknownRemoteError):
            await pool.call(End(how=how))
        assert {(await pool.call(Process())).number} == before
        assert pool.counters.workers_lost == 0


async def test_an_idle_worker_that_is_told_to_end_is_not_lost(log: LogCapture) -> None:
    async with pool_of() as pool:
        [before] = process_ids(pool)
        os.kill(before, signal.SIGTERM)
        await until(lambda: process_ids(pool) - {before})
        assert await pool.call(Process()) != Number(number=before)
        assert pool.counters.workers_lost == 0
    assert any("a worker is ending" in line for line in log.lines(20))


@on_both_loops
async def test_a_worker_that_is_told_to_end_loses_no_call(target: str, tmp_path: Path) -> None:
    async with pool_of(2, target=target, max_concurrency=4) as pool:
        call = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        await until(lambda: arrived(tmp_path / "go"))
        [ending] = arrived(tmp_path / "go")
        os.kill(ending, signal.SIGTERM)
        while any(
            (state.process_id, state.status) == (ending, WorkerStatus.READY)
            for state in pool.workers
        ):
            answers = await asyncio.gather(*(pool.call(Square(number=2)) for _ in range(8)))
            assert answers == [Number(number=4)] * 8
        assert not call.done()
        (tmp_path / "go").touch()
        assert (await call).number == ending
        await until(lambda: ending not in process_ids(pool))


# -- Calls that are given up ----------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("command", [Stop(), StopHard()], ids=lambda each: type(each).__name__)
async def test_a_stuck_worker_is_killed_and_replaced(
    command: Any, target: str, log: LogCapture
) -> None:
    async with pool_of(target=target, grace=0.05) as pool:
        before = process_ids(pool)
        with pytest.raises(CallTimeoutError, match=r"no answer from typed_amp.worker"):
            await pool.call(command, timeout=0.05)
        assert await pool.call(Square(number=3)) == Number(number=9)
        assert not before & process_ids(pool)
        assert pool.counters.workers_killed == 1
        assert pool.counters.workers_lost == 0
    assert "was given up, and its event loop stands still" in log.only_line()


async def test_a_caller_that_is_cancelled_leaves_no_stuck_worker() -> None:
    async with pool_of(grace=0.05) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.call(Stop())
        assert await pool.call(Square(number=3)) == Number(number=9)
        assert pool.counters.workers_killed == 1


async def test_a_worker_that_is_stuck_twice_is_killed_once(tmp_path: Path) -> None:
    async with pool_of(max_concurrency=3, grace=0.05) as pool:
        call = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        stuck = [pool.call(Meet(path=str(tmp_path / "never")), timeout=0.1) for _ in range(2)]
        for outcome in await asyncio.gather(*stuck, return_exceptions=True):
            assert isinstance(outcome, CallTimeoutError)
        await until(lambda: pool.counters.calls_in_flight == 1)
        assert pool.counters.workers_killed == 1
        (tmp_path / "go").touch()
        await call


async def test_a_worker_that_leaves_off_in_time_is_kept(tmp_path: Path) -> None:
    async with pool_of(grace=60) as pool:
        before = process_ids(pool)
        with pytest.raises(CallTimeoutError):
            await pool.call(Meet(path=str(tmp_path / "go")), timeout=0.05)
        assert [state.calls_in_flight for state in pool.workers] == [1]
        (tmp_path / "go").touch()
        assert {(await pool.call(Process())).number} == before
        assert pool.counters.workers_killed == 0


async def test_others_in_a_stuck_worker_move_or_fail_clearly(tmp_path: Path) -> None:
    async with pool_of(max_concurrency=3, threads=False, grace=0.05) as pool:
        stuck = asyncio.create_task(pool.call(Stop(), timeout=0.3))
        await until(lambda: pool.counters.calls_in_flight == 1)
        fails = asyncio.create_task(pool.call(Square(number=2)))
        moves = asyncio.create_task(pool.call(Process()))
        with pytest.raises(CallTimeoutError):
            await stuck
        with pytest.raises(ConnectionLostError) as caught:
            await fails
        assert caught.value.__notes__ == [
            "The pool has killed it: Stop was given up, and its event loop stands still."
        ]
        assert {(await moves).number} == process_ids(pool)


async def test_a_thread_that_does_not_end_lets_others_finish(tmp_path: Path) -> None:
    async with pool_of(max_concurrency=2, grace=0.05) as pool:
        [before] = process_ids(pool)
        call = asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go"))))
        with pytest.raises(CallTimeoutError):
            await pool.call(Meet(path=str(tmp_path / "never")), timeout=0.1)
        await until(lambda: pool.counters.workers_killed == 1)
        assert (await pool.call(Process())).number != before
        assert not call.done()
        assert is_running(before)
        (tmp_path / "go").touch()
        assert (await call).number == before
        await until(lambda: before not in process_ids(pool))
        assert not is_running(before)


async def test_what_wants_no_answer_has_its_place_until_it_is_done(tmp_path: Path) -> None:
    async with pool_of() as pool:
        note, go = tmp_path / "note", tmp_path / "go"
        await pool.call(Note(path=str(note), wait_for=str(go)))
        assert pool.counters.calls_in_flight == 1
        call = asyncio.create_task(pool.call(Square(number=2)))
        await until(lambda: pool.counters.calls_queued == 1)
        go.touch()
        await call
        assert note.read_text() == "noted"


async def test_deadlines_of_a_responder_hold_for_its_pool(tmp_path: Path) -> None:
    """The pool's own business has no part in the time of the responder that calls it."""
    from typed_amp.testing import connection_pair

    router = Router()
    async with pool_of(grace=60) as pool:

        @router.responder(Process)
        async def process(command: Process) -> Number:
            return await pool.call(Meet(path=str(tmp_path / "go")))

        async with connection_pair(router) as (client, _):
            with pytest.raises(CallTimeoutError):
                await client.call(Process(), timeout=0.05)
        await until(lambda: arrived(tmp_path / "go"))
        (tmp_path / "go").touch()
        assert await pool.call(Square(number=2)) == Number(number=4)
        assert pool.counters.workers_killed == 0


# -- Recycling ------------------------------------------------------------------------------------


async def test_a_worker_is_replaced_after_so_many_calls() -> None:
    async with pool_of(2, max_calls=4) as pool:
        answers = await asyncio.gather(*(pool.call(Process()) for _ in range(20)))
        counts = [sum(answer == other for other in answers) for answer in answers]
        assert max(counts) == 4
        assert pool.counters.workers_lost == 0
        assert pool.counters.workers_recycled >= 4
        await until(lambda: len(pool.workers) == 2)


async def test_a_worker_that_had_enough_is_replaced_without_a_wait() -> None:
    never = Backoff(first=3600, maximum=3600, jitter=0)
    async with pool_of(max_calls=1, backoff=never) as pool:
        answers = [await pool.call(Process()) for _ in range(3)]
        assert len({answer.number for answer in answers}) == 3
        assert pool.counters.workers_lost == 0


async def test_a_worker_finishes_what_it_has_before_it_is_replaced(tmp_path: Path) -> None:
    async with pool_of(max_calls=2, max_concurrency=2) as pool:
        calls = [
            asyncio.create_task(pool.call(Meet(path=str(tmp_path / name)))) for name in ("a", "b")
        ]
        await until(lambda: arrived(tmp_path / "a") and arrived(tmp_path / "b"))
        [first] = arrived(tmp_path / "a")
        assert (await pool.call(Process())).number != first
        states = {state.process_id: state.status for state in pool.workers}
        assert states.pop(first) is WorkerStatus.RETIRING
        assert list(states.values()) == [WorkerStatus.READY]
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
        assert [(await call).number for call in calls] == [first, first]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what memory a process has")
async def test_a_worker_that_grew_too_much_is_replaced(log: LogCapture) -> None:
    limit = resident_memory(os.getpid()) + 100 * MIB
    async with pool_of(max_memory_bytes=limit) as pool:
        first = await pool.call(Grow(size=MIB))
        assert await pool.call(Process()) == first
        assert await pool.call(Grow(size=limit)) == first
        assert await pool.call(Process()) != first
        assert pool.counters.workers_recycled == 1
    assert any("than the" in line and "max_memory_bytes" in line for line in log.lines(20))


# -- Starting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "problem"),
    [
        (
            "import no_such_module",
            "router",
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def f():\n    raise ValueError(5)\n\nf()", "router", "ValueError: 5"),
        ("router =", "router", "SyntaxError: invalid syntax"),
        ("raise SystemExit('enough')", "router", "SystemExit: enough"),
        ("", "router", "AttributeError: module 'broken' has no attribute 'router'"),
        ("router = 5", "router", "TypeError: broken:router is 5; a worker needs a Router"),
    ],
    ids=["import", "error", "syntax", "exit", "missing", "no router"],
)
async def test_what_is_wrong_in_a_worker_is_told_to_the_caller(
    source: str, name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerStartError) as caught:
        async with pool_of(2, target=f"broken:{name}"):
            raise NotImplementedError
    assert caught.value.target == f"broken:{name}"
    assert caught.value.reason.splitlines()[-1].startswith(problem)
    assert problem in str(caught.value)
    if "f()" in source:
        lines = caught.value.traceback.splitlines()
        assert lines[0].startswith("Traceback")
        assert lines[1].endswith('broken.py", line 4, in <module>')


HOOK_FAILS = """
from tests.worker_router import router

@router.on_connect
async def hook(connection):
    raise ValueError("the hook's")
"""


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import threading\nthreading.Event().wait()", "not ready within 1.5 seconds"),
        ("import os\nos._exit(3)", "ended with exit status 3"),
        (HOOK_FAILS, "it ended before it was ready; standard error may say more"),
    ],
    ids=["stuck", "exit", "hook"],
)
async def test_a_worker_that_does_not_get_ready(
    source: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "unready.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    timeout = 1.5 if "Event" in source else 60
    with pytest.raises(WorkerStartError, match=problem):
        await pool_of(target="unready:router", start_timeout=timeout)
    if "hook" in source:
        assert "ValueError: the hook's" in capfd.readouterr().err


async def test_a_reason_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('\\udcff')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerStartError, match="ValueError") as caught:
        await pool_of(target="broken:router")
    assert "\\udcff" in caught.value.reason


async def test_a_program_that_starts_a_pool_as_it_is_imported(tmp_path: Path) -> None:
    """It would start workers without end."""
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    async with program(str(tmp_path / "unguarded.py"), directory=tmp_path) as running:
        told = await running.rest()
    assert running.exit_code == 1
    assert 'under `if __name__ == "__main__":`' in told
    assert "while a worker imports unguarded:router" in told


UNGUARDED = """
import asyncio
from typed_amp import Router, WorkerPool

router = Router()

async def main():
    async with WorkerPool("unguarded:router", workers=1):
        pass

asyncio.run(main())
"""


async def test_modules_are_found_where_this_process_finds_them_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the directory that a worker works in; nor is a relative path one from there."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "modules").mkdir(parents=True)
    there.mkdir()
    (here / "modules" / "found.py").write_text("from tests.worker_router import router")
    (there / "asyncio.py").write_text("raise AssertionError")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend("modules")
    async with pool_of(target="found:router", cwd=there) as pool:
        assert await pool.call(Square(number=2)) == Number(number=4)
        assert (await pool.call(Ask(what="arguments"))).text == "[]"


async def test_a_path_that_is_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    async with pool_of() as pool:
        assert await pool.call(Square(number=2)) == Number(number=4)


async def test_whatever_prevents_a_start_is_told(tmp_path: Path) -> None:
    pool = pool_of(2, env={"A": 5})
    with pytest.raises(WorkerStartError, match="it can't be started: TypeError"):
        await pool


FORKING = """
import asyncio, os
from tests.worker_router import *
from typed_amp import WorkerPool

pool = WorkerPool("tests.worker_router:router", workers=1)

async def main():
    async with pool:
        print((await pool.call(Square(number=5))).number, flush=True)

if os.fork() == 0:
    asyncio.run(main())
else:
    os.wait()
"""


async def test_a_pool_that_was_made_before_a_fork() -> None:
    async with program("-c", FORKING, directory=ROOT) as running:
        assert await running.rest() == "25\n"


async def test_a_worker_that_can_not_be_replaced_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: LogCapture
) -> None:
    module = tmp_path / "changing.py"
    source = "from tests.worker_router import router"
    module.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    async with pool_of(target="changing:router") as pool:
        module.write_text("raise ValueError('for now')")
        with pytest.raises(ConnectionLostError):
            await pool.call(Crash())
        call = asyncio.create_task(pool.call(Square(number=4)))
        await until(lambda: pool.counters.start_failures)
        assert not call.done()
        module.write_text(source)
        assert await call == Number(number=16)
    assert any(
        "a worker can't serve changing:router: ValueError: for now" in x for x in log.lines()
    )


async def test_cancelling_the_opening_leaves_nothing() -> None:
    opening = asyncio.create_task(pool_of(2).__aenter__())
    await asyncio.sleep(0)
    await cancel(opening)


async def test_closing_while_it_opens() -> None:
    pool = pool_of(2)
    opening = asyncio.create_task(pool.__aenter__())
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(WorkerStartError, match="closed meanwhile"):
        await opening


async def test_a_pool_is_opened_once() -> None:
    pool = pool_of()
    with pytest.raises(ConnectionLostError, match="is not open yet") as caught:
        await pool.call(Process())
    assert not caught.value.was_sent
    async with pool:
        with pytest.raises(ConnectionLostError, match="opened before"):
            await pool
    with pytest.raises(ConnectionLostError, match="opened before"):
        await pool
    with pytest.raises(ConnectionLostError, match="is closed"):
        await pool.call(Process())
    never_opened = pool_of()
    never_opened.close()
    await never_opened.wait_closed()
    with pytest.raises(ConnectionLostError, match="was closed before"):
        await never_opened


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"target": "no_name"}, "package.module:router"),
        ({"target": "__main__:router"}, "not the program itself"),
        ({"target": "a b:router"}, "package.module:router"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1"),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"max_queued": -1}, "max_queued must not be negative"),
        ({"max_calls": 0}, "max_calls must be at least 1"),
        ({"max_memory_bytes": 0}, "max_memory_bytes must be at least 1"),
        ({"grace": 0}, "grace must be positive"),
        ({"start_timeout": -1}, "start_timeout must be positive"),
        ({"kill_timeout": 0}, "kill_timeout must be positive"),
        ({"call_timeout": 0}, "call_timeout must be positive"),
        ({"drain_timeout": -1}, "drain_timeout must not be negative"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        pool_of(**options)


async def test_what_can_not_travel_to_a_worker(tmp_path: Path) -> None:
    async with pool_of() as pool:
        with pytest.raises(ValueError, match="changes what the connection speaks"):
            await pool.call(StartTLS())
        assert await pool.call(Square(number=2)) == Number(number=4)


# -- Ending ---------------------------------------------------------------------------------------


async def test_closing_finishes_what_was_called(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with pool_of(2, env={**os.environ, "TOLD_AT_THE_END": str(told)}) as pool:
        before = process_ids(pool)
        calls = [
            asyncio.create_task(pool.call(Meet(path=str(tmp_path / "go")))),
            *(asyncio.create_task(pool.call(Square(number=2))) for _ in range(10)),
        ]
        await until(lambda: arrived(tmp_path / "go"))
        pool.close()
        with pytest.raises(ConnectionLostError, match="is closed") as caught:
            await pool.call(Square(number=2))
        assert not caught.value.was_sent
        await asyncio.gather(*calls[1:])
        assert not calls[0].done()
        (tmp_path / "go").touch()
        await calls[0]
    assert {int(line) for line in told.read_text().split()} == before


async def test_closing_waits_for_what_wants_no_answer(tmp_path: Path) -> None:
    note, go = tmp_path / "note", tmp_path / "go"
    async with pool_of() as pool:
        await pool.call(Note(path=str(note), wait_for=str(go)))
        pool.close()
        go.touch()
    assert note.read_text() == "noted"


@pytest.mark.parametrize("drain_timeout", [0, 0.05])
async def test_closing_hard_kills_the_workers(drain_timeout: float, tmp_path: Path) -> None:
    async with pool_of(1) as pool:
        [process_id] = process_ids(pool)
        running = asyncio.create_task(pool.call(MeetAgain(path=str(tmp_path / "never"))))
        queued = asyncio.create_task(pool.call(Square(number=1)))
        await until(lambda: arrived(tmp_path / "never"))
        pool.close()
        pool.close(drain_timeout=drain_timeout)
        with pytest.raises(ConnectionLostError) as caught:
            await running
        assert caught.value.was_sent
        assert "did not wait longer" in caught.value.__notes__[0]
        with pytest.raises(ConnectionLostError, match="is closed") as caught:
            await queued
        assert not caught.value.was_sent
        await pool.wait_closed()
        assert not is_running(process_id)
        pool.close(drain_timeout=0)


PARENT = """
import asyncio, sys
from tests.worker_router import *
from typed_amp import WorkerPool

async def main():
    async with WorkerPool(sys.argv[1], workers=3) as pool:
        busy = [asyncio.create_task(pool.call(each())) for each in (Stop, StopHard)]
        while pool.counters.calls_in_flight < 2:
            await asyncio.sleep(0)
        await pool.call(Process())
        print(*(worker.process_id for worker in pool.workers), flush=True)
        await asyncio.gather(*busy)

asyncio.run(main())
"""


@on_both_loops
async def test_workers_end_when_their_parent_is_killed(target: str) -> None:
    """One idle, one that computes in Python, one that never lets go of the interpreter's lock."""
    async with program("-c", PARENT, target, directory=ROOT) as parent:
        workers = [int(word) for word in (await parent.line()).split()]
        assert len(workers) == 3
        assert all(map(is_running, workers))
        parent.kill()
        await parent.rest()
        await until(lambda: not any(map(is_running, workers)))


@on_both_loops
async def test_ctrl_c_is_for_the_parent(target: str) -> None:
    async with pool_of(target=target) as pool:
        [process_id] = process_ids(pool)
        os.kill(process_id, signal.SIGINT)
        assert await pool.call(Process()) == Number(number=process_id)
