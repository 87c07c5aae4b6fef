"""Everything at once for ten minutes: does anything grow, and is every answer right?

Clients in this process call a server in another: calls that succeed and that fail in each declared
way, unknown commands, invalid arguments, cancellations, timeouts, calls back, large values, and
connections that are closed, dropped and reset at random moments. The mix comes from a fixed seed.

After the first tenth of the time, and at the end, all connections are closed, and both processes
give back what memory they keep for later. What they have then is compared. It is a failure, and
the exit status 1, if either has more memory by 5 % and 2 MiB, or more tasks or descriptors; or if
any answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness import MIB, Target, resident
from benchmarks.peers.commands import (
    CallBack,
    Drop,
    Echo,
    Fetch,
    Nap,
    OverdrawnError,
    Total,
    Withdraw,
)
from benchmarks.peers.loop import run_on_loop
from benchmarks.peers.target import count_descriptors, give_back_memory
from benchmarks.peers.typed import Repeat, repeat
from typed_amp import (
    AmpError,
    CallTimeoutError,
    Connection,
    ConnectionLostError,
    InvalidArgumentsError,
    RemoteAmpError,
    Router,
    UnhandledCommandError,
    connect,
    encode_box,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLIENTS = 8
GROWTH = 0.05
GROWTH_BYTES = 2 * MIB

router = Router()
router.responder(Repeat)(repeat)


@dataclass
class State:
    """What the two processes have."""

    server_bytes: int
    client_bytes: int
    server_tasks: int
    client_tasks: int
    server_descriptors: int
    client_descriptors: int

    def growth_since(self, earlier: State) -> list[str]:
        """Say what has grown more than it may."""
        found: list[str] = []
        for name, now in vars(self).items():
            before = getattr(earlier, name)
            is_memory = name.endswith("bytes")
            limit = before * (1 + GROWTH) + GROWTH_BYTES if is_memory else before
            if now > limit:
                found.append(f"{name.replace('_', ' ')} grew from {before:,} to {now:,}")
        return found

    def __str__(self) -> str:
        return (
            f"resident {self.server_bytes / MIB:.1f} MiB (server) {self.client_bytes / MIB:.1f} MiB"
            f" (clients), tasks {self.server_tasks} {self.client_tasks},"
            f" descriptors {self.server_descriptors} {self.client_descriptors}"
        )


class WrongError(Exception):
    """An answer is not what it should be."""


def check(is_right: bool, what: object) -> None:
    if not is_right:
        raise WrongError(str(what)[:200])


# -- What clients do. Each checks what comes of it. --------------------------------------------


async def succeed(connection: Connection, dice: random.Random) -> None:
    text, times = f"{dice.random()}", dice.randrange(20)
    result = await connection.call(Repeat(text=text, times=times))
    check(result.text == text * times, result)


async def succeed_at_once(connection: Connection, dice: random.Random) -> None:
    await asyncio.gather(*(succeed(connection, dice) for _ in range(20)))


async def withdraw(connection: Connection, dice: random.Random) -> None:
    balance, amount = dice.randrange(100), dice.randrange(-20, 100)
    try:
        result = await connection.call(Withdraw(balance=balance, amount=amount))
    except OverdrawnError as error:
        check(error.missing == amount - balance > 0 and error.balance == balance, error)
    except ValueError as error:
        check(amount <= 0 and str(error) == "an amount is positive", error)
    else:
        check(result.balance == balance - amount >= 0, result)


async def ask_the_unknown(connection: Connection, dice: random.Random) -> None:
    try:
        await connection.call_box(f"No{dice.randrange(10**9)}", {b"text": b"abc"})
    except UnhandledCommandError:
        return
    raise WrongError("an unknown command was answered")


async def ask_wrongly(connection: Connection, dice: random.Random) -> None:
    times = dice.choice([b"1001", b"-1", b"many", b""])
    try:
        await connection.call_box("Repeat", {b"text": b"abc", b"times": times})
    except InvalidArgumentsError as error:
        check("times" in error.description, error)
        return
    raise WrongError("invalid arguments were taken")


async def cancel(connection: Connection, dice: random.Random) -> None:
    call = asyncio.create_task(connection.call(Nap(seconds=dice.random() / 5)))
    await asyncio.sleep(dice.choice([0, 0, dice.random() / 20]))
    call.cancel()
    await asyncio.wait([call])
    if not call.cancelled():
        call.result()


async def time_out(connection: Connection, dice: random.Random) -> None:
    try:
        await connection.call(Nap(seconds=0.2), timeout=dice.random() / 20)
    except CallTimeoutError:
        return
    raise WrongError("a call was answered long before its time")


async def be_called_back(connection: Connection, dice: random.Random) -> None:
    text, calls = f"{dice.random()}", dice.randrange(10)
    result = await connection.call(CallBack(text=text, calls=calls))
    check(result.texts == [text * times for times in range(calls)], result)


async def send_many(connection: Connection, dice: random.Random) -> None:
    numbers = [dice.randrange(10**6) for _ in range(dice.randrange(20_000))]
    result = await connection.call(Total(numbers=numbers))
    check(result.total == sum(numbers), result)


async def send_much(connection: Connection, dice: random.Random) -> None:
    data = dice.randbytes(dice.randrange(1_000_000))
    result = await connection.call(Echo(data=data))
    check(result.data == data, f"{len(result.data):,} bytes of {len(data):,}")


async def fetch(connection: Connection, dice: random.Random) -> None:
    length = dice.randrange(65_536)
    result = await connection.call(Fetch(length=length))
    check(result.data == bytes(length), f"{len(result.data):,} bytes of {length:,}")


async def call_and_close(connection: Connection, dice: random.Random) -> None:
    """Close the connection while calls are under way on it."""
    calls = [asyncio.create_task(connection.call(Nap(seconds=0.2))) for _ in range(5)]
    await asyncio.sleep(dice.random() / 20)
    connection.close(drain_timeout=0)
    await end_of(calls)


async def be_dropped(connection: Connection, dice: random.Random) -> None:
    """Have the server close it while calls are under way on it."""
    calls = [asyncio.create_task(connection.call(Nap(seconds=0.2))) for _ in range(5)]
    await asyncio.sleep(dice.random() / 20)
    with contextlib.suppress(ConnectionLostError, RemoteAmpError):
        await connection.call(Drop())
    await connection.wait_closed()
    await end_of(calls)


async def end_of(calls: list[asyncio.Task[None]]) -> None:
    for result in await asyncio.gather(*calls, return_exceptions=True):
        # UNKNOWN is what a responder that was cancelled answers.
        check(isinstance(result, ConnectionLostError | RemoteAmpError), f"a call ended: {result!r}")


MIX: list[tuple[int, Callable[[Connection, random.Random], Awaitable[None]]]] = [
    (40, succeed),
    (10, succeed_at_once),
    (10, withdraw),
    (5, ask_the_unknown),
    (5, ask_wrongly),
    (10, cancel),
    (3, time_out),
    (5, be_called_back),
    (1, send_many),
    (2, send_much),
    (5, fetch),
]
"""What can go on at once on a connection, and how often each does."""

WEIGHTS = [weight for weight, _ in MIX]
DEEDS = [deed for _, deed in MIX]

ENDS = [call_and_close, be_dropped]
"""What ends a connection."""


class Soak:
    """The clients, and what came of their calls."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.is_over = asyncio.Event()
        self.rounds = 0

    async def run(self, seconds: float) -> None:
        """Let all clients call for some time, and say every ten seconds how it goes."""
        self.is_over.clear()
        self.rounds += 1
        clients = [asyncio.create_task(self.client(number)) for number in range(CLIENTS)]
        clients.append(asyncio.create_task(self.vandal()))
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                before, start = self.done.total(), time.monotonic()
                await asyncio.sleep(min(left, 10))
                rate = (self.done.total() - before) / (time.monotonic() - start)
                print(f"{rate:>7,.0f} deeds/s  {await self.state('status')}", flush=True)
        finally:
            self.is_over.set()
            async with asyncio.timeout(30):
                await asyncio.gather(*clients)

    async def client(self, number: int) -> None:
        """Connect and do things, again and again."""
        dice = random.Random(f"{self.seed} {self.rounds} {number}")
        while not self.is_over.is_set():
            try:
                connection = await connect("127.0.0.1", self.target.ports.clear, router=router)
            except (OSError, AmpError) as error:
                self.note("connect", error)
                await asyncio.sleep(0.1)
                continue
            async with connection:
                for _ in range(dice.randrange(1, 50)):
                    if self.is_over.is_set():
                        break
                    deeds = dice.choices(DEEDS, WEIGHTS, k=dice.randrange(1, 10))
                    await asyncio.gather(*(self.do(deed, connection, dice) for deed in deeds))
                else:
                    await self.do(dice.choice([*ENDS, succeed]), connection, dice)

    async def do(
        self,
        deed: Callable[[Connection, random.Random], Awaitable[None]],
        connection: Connection,
        dice: random.Random,
    ) -> None:
        try:
            async with asyncio.timeout(30):
                await deed(connection, dice)
        except Exception as error:
            self.note(deed.__name__, error)
        self.done[deed.__name__] += 1

    def note(self, deed: str, error: Exception) -> None:
        """Note what is wrong."""
        self.wrong[f"{deed}: {type(error).__name__}: {str(error)[:100]}"] += 1

    async def vandal(self) -> None:
        """Connect, send a call and a bit of another, and reset the connection."""
        dice = random.Random(f"{self.seed} {self.rounds} vandal")
        box = {b"_ask": b"1", b"_command": b"Nap", b"seconds": b"0.05"}
        data = encode_box(box) + encode_box({**box, b"_ask": b"2"})
        while not self.is_over.is_set():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.target.ports.clear)
            except OSError as error:
                self.note("reset", error)
                await asyncio.sleep(0.1)
                continue
            writer.write(data[: dice.randrange(len(data))])
            await asyncio.sleep(dice.random() / 10)
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            self.done["reset"] += 1

    async def state(self, question: str) -> State:
        """Ask the server how it is, and look at this process."""
        status: dict[str, Any] = await asyncio.to_thread(self.target.ask, question)
        return State(
            server_bytes=resident(self.target.pid),
            client_bytes=resident(os.getpid()),
            server_tasks=status["tasks"],
            client_tasks=len(asyncio.all_tasks()),
            server_descriptors=status["descriptors"],
            client_descriptors=count_descriptors(),
        )

    async def settled(self) -> State:
        """Give the state when all connections have gone."""
        give_back_memory()
        return await self.state("settle")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long, in all")
    parser.add_argument("--seed", type=int, default=1, help="what the mix comes from")
    parser.add_argument("--uvloop", action="store_true", help="run both sides on uvloop")
    options = parser.parse_args()
    with Target(*(["--uvloop"] if options.uvloop else [])) as target:
        soak = Soak(target, options.seed)
        await soak.run(options.seconds / 10)
        warm = await soak.settled()
        print(f"\nafter warming up: {warm}\n", flush=True)
        await soak.run(options.seconds * 9 / 10)
        end = await soak.settled()
        log: dict[str, int] = target.ask("status")["log"]
    print(f"\nat the end:       {end}\n")
    print(", ".join(f"{number:,} {deed}" for deed, number in soak.done.most_common()))
    for line, number in log.items():
        print(f"logged {number:,} times: {line}")
    failures = end.growth_since(warm) + [
        f"{number:,} times wrong: {what}" for what, number in soak.wrong.most_common(20)
    ]
    for failure in failures:
        print(failure)
    print("it grew, or was wrong" if failures else "nothing grew, and every answer was right")
    sys.exit(bool(failures))


if __name__ == "__main__":
    run_on_loop(main())
