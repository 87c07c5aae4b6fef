"""What a call to a pool of processes costs, and what two processes do that one can't.

Peers take turns within each round, each in a process of its own that starts its children, warms up
and then calls for some time. Ratios are medians of those of the rounds, since a machine that does
other things meanwhile slows down a whole round alike.

The first table is of the least work there is: `repeat("abc", 3)`, with one worker. "connection" is
what a pool is made of: a child that serves the same router, and calls on the connection to it. With
as many calls in flight, the pool is given as many places in its worker; "pool, one at a time" has
one, as the others have. The second table is of a responder that computes for some ten milliseconds,
beside as many processes that compute and that nobody calls: more than these can do the machine has
not to give.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import ampoule.child
import ampoule.main
import ampoule.pool
from pydantic import BaseModel, Field
from twisted.internet import defer
from twisted.protocols import amp

from benchmarks.harness import table
from benchmarks.work import MAX_TIMES, REPEATED, TEXT, TIMES
from typed_amp import Command, Router, WorkerPool, connect_process, serve_stdio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator

    OneCall = Callable[[], Awaitable[object]]

WARM_UP = 0.3
"""Seconds before counting begins."""


class Text(BaseModel):
    text: str


class Total(BaseModel):
    total: int


class Repeat(Command[Text]):
    text: str
    times: Annotated[int, Field(ge=0, le=MAX_TIMES)] = 1


class Compute(Command[Total]):
    size: int


def repeated(text: str, times: int) -> str:
    return text * times


def computed(size: int) -> int:
    return sum(number * number for number in range(size))


SIZE = 200_000

router = Router()


@router.responder(Repeat)
async def repeat(command: Repeat) -> Text:
    return Text(text=repeated(command.text, command.times))


@router.responder(Compute)
def compute(command: Compute) -> Total:
    return Total(total=computed(command.size))


class AmpouleRepeat(amp.Command):
    arguments = [(b"text", amp.Unicode()), (b"times", amp.Integer())]
    response = [(b"text", amp.Unicode())]


class AmpouleChild(ampoule.child.AMPChild):  # type: ignore[misc]  # it has no types
    @AmpouleRepeat.responder
    def repeat(self, text: str, times: int) -> dict[str, str]:
        return {"text": repeated(text, times)}


# -- The peers, each giving what makes one call ---------------------------------------------------


@asynccontextmanager
async def connection(in_flight: int, workers: int) -> AsyncIterator[OneCall]:
    child = (sys.executable, "-m", "benchmarks.pool", "--child")
    async with connect_process(*child) as process:

        async def call() -> None:
            assert (await process.call(Repeat(text=TEXT, times=TIMES))).text == REPEATED

        yield call


@asynccontextmanager
async def pool(in_flight: int, workers: int, places: int = 1) -> AsyncIterator[OneCall]:
    async with WorkerPool(
        "benchmarks.pool:router", workers=workers, max_concurrency=places, threads=False
    ) as workers_of_ours:

        async def call() -> None:
            answer = await workers_of_ours.call(Repeat(text=TEXT, times=TIMES))
            assert answer.text == REPEATED

        yield call


@asynccontextmanager
async def wide_pool(in_flight: int, workers: int) -> AsyncIterator[OneCall]:
    async with pool(in_flight, workers, in_flight) as call:
        yield call


@asynccontextmanager
async def computing(in_flight: int, workers: int) -> AsyncIterator[OneCall]:
    async with WorkerPool("benchmarks.pool:router", workers=workers) as workers_of_ours:

        async def call() -> None:
            await workers_of_ours.call(Compute(size=SIZE))

        yield call


@asynccontextmanager
async def executor(in_flight: int, workers: int) -> AsyncIterator[OneCall]:
    with ProcessPoolExecutor(workers) as processes:

        async def call() -> None:
            submitted = processes.submit(repeated, TEXT, TIMES)
            assert await asyncio.wrap_future(submitted) == REPEATED

        yield call


ASYNCIO_PEERS = {
    "connection": connection,
    "pool": wide_pool,
    "pool, one at a time": pool,
    "ProcessPoolExecutor": executor,
    "computing": computing,
}


async def rate_of(peer: str, in_flight: int, workers: int, seconds: float) -> float:
    """Give the calls a second of a peer that runs on asyncio."""
    async with ASYNCIO_PEERS[peer](in_flight, workers) as call:
        await call()  # there is a child that answers
        counts, is_over = [0] * in_flight, False

        async def call_on(index: int) -> None:
            while not is_over:
                await call()
                counts[index] += 1

        async with asyncio.TaskGroup() as tasks:
            for index in range(in_flight):
                tasks.create_task(call_on(index))
            await asyncio.sleep(WARM_UP)
            before, begin = sum(counts), time.perf_counter()
            await asyncio.sleep(seconds)
            done, end = sum(counts) - before, time.perf_counter()
            is_over = True
    return done / (end - begin)


def rate_of_ampoule(in_flight: int, workers: int, seconds: float) -> float:
    """Give the calls a second of ampoule, on the reactor that Twisted takes by itself."""
    from twisted.internet import reactor as any_reactor
    from twisted.internet import task

    reactor: Any = any_reactor
    rates: list[float] = []

    @defer.inlineCallbacks
    def measure() -> Generator[Any, Any, None]:
        from benchmarks.pool import AmpouleChild, AmpouleRepeat  # as the child names them

        starter = ampoule.main.ProcessStarter(packages=("twisted", "ampoule", "benchmarks"))
        processes: Any = ampoule.pool.ProcessPool(
            AmpouleChild, min=workers, max=workers, starter=starter, recycleAfter=0
        )
        yield processes.start()
        yield processes.doWork(AmpouleRepeat, text=TEXT, times=TIMES)
        count, is_over = 0, False

        @defer.inlineCallbacks
        def call_on() -> Generator[Any, Any, None]:
            nonlocal count
            while not is_over:
                answer = yield processes.doWork(AmpouleRepeat, text=TEXT, times=TIMES)
                assert answer["text"] == REPEATED
                count += 1

        calls = [call_on() for _ in range(in_flight)]
        yield task.deferLater(reactor, WARM_UP)
        before, begin = count, time.perf_counter()
        yield task.deferLater(reactor, seconds)
        rates.append((count - before) / (time.perf_counter() - begin))
        is_over = True
        yield defer.gatherResults(calls)
        yield processes.stop()

    def run() -> None:
        measuring = measure()
        measuring.addErrback(lambda failure: failure.printTraceback())
        measuring.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(run)
    reactor.run()
    return rates[0]


async def serve_as_child() -> None:
    plain = Router()
    plain.responder(Repeat)(repeat)
    async with serve_stdio(plain) as parent:
        await parent.wait_closed()


# -- Rounds ---------------------------------------------------------------------------------------


def measured(peer: str, in_flight: int, workers: int, seconds: float) -> float:
    """Give the calls a second of a peer, in a process of its own."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.pool", "--peer", peer),
            *("--in-flight", str(in_flight), "--workers", str(workers)),
            *("--seconds", str(seconds)),
        ],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60 + 2 * seconds,
    )
    rate: float = json.loads(result.stdout)
    return rate


OVERHEAD_PEERS = [
    "connection",
    "pool",
    "pool, one at a time",
    "ProcessPoolExecutor",
    "ampoule",
]


def overhead(in_flight: int, rounds: int, seconds: float) -> list[list[str]]:
    rates: dict[str, list[float]] = {peer: [] for peer in OVERHEAD_PEERS}
    for _ in range(rounds):
        for peer, found in rates.items():
            found.append(measured(peer, in_flight, 1, seconds))
    rows: list[list[str]] = []
    for peer, found in rates.items():
        ratios = [plain / own for plain, own in zip(rates["connection"], found, strict=True)]
        rate = statistics.median(found)
        rows.append(
            [
                peer,
                str(in_flight),
                f"{rate:,.0f}",
                f"{1e6 / rate:,.1f}",
                f"{statistics.median(ratios):.2f}",
                "",
            ]
        )
    return rows


def alone(workers: int, seconds: float) -> float:
    """Give the computations a second of processes that do nothing else, all together."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pool", "--alone", "--seconds", str(seconds)],
            stdout=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    return sum(float(process.communicate()[0]) for process in processes)


def compute_alone(seconds: float) -> float:
    count, begin = 0, 0.0
    warm = time.perf_counter() + WARM_UP
    while not begin or time.perf_counter() < begin + seconds:
        computed(SIZE)
        count += 1
        if not begin and time.perf_counter() > warm:
            count, begin = 0, time.perf_counter()
    return count / (time.perf_counter() - begin)


_TITLES = {
    "alone": ("1 process alone", "2 processes alone"),
    "worker": ("1 worker", "2 workers"),
}


def scaling(rounds: int, seconds: float) -> list[list[str]]:
    """Compare one worker with two, and with as many processes that nobody calls.

    What these reach is what the machine has to give, which may be less than two processors.
    """
    rates: dict[tuple[str, int], list[float]] = {
        (kind, count): [] for kind in _TITLES for count in (1, 2)
    }
    for _ in range(rounds):
        for (kind, count), found in rates.items():
            if kind == "worker":
                found.append(measured("computing", 8, count, seconds))
            else:
                found.append(alone(count, seconds))

    def ratio(own: tuple[str, int], other: tuple[str, int]) -> str:
        pairs = zip(rates[own], rates[other], strict=True)
        return f"{statistics.median(mine / theirs for mine, theirs in pairs):.2f}"

    return [
        [
            _TITLES[kind][count - 1],
            f"{statistics.median(found):,.1f}",
            ratio((kind, count), (kind, 1)),
            ratio((kind, count), ("alone", count)),
            "",
        ]
        for (kind, count), found in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.pool", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each has its turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn takes")
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 100])
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(compute_alone(options.seconds))
    elif options.child:
        asyncio.run(serve_as_child())
    elif options.peer == "ampoule":
        print(rate_of_ampoule(options.in_flight[0], options.workers, options.seconds))
    elif options.peer:
        print(
            asyncio.run(
                rate_of(options.peer, options.in_flight[0], options.workers, options.seconds)
            ),
        )
    else:
        head = ["", "in flight", "calls/s", "µs a call", "of a connection's", ""]
        rows = [
            row
            for in_flight in options.in_flight
            for row in overhead(in_flight, options.rounds, options.seconds)
        ]
        if rows:
            print(table(head, rows, markdown=options.markdown), end="\n\n")
        rows = scaling(options.rounds, options.seconds)
        head = ["computing", "a second", "of one", "of processes alone", ""]
        print(table(head, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
