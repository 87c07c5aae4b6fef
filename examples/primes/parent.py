"""Count the primes below a number, with several child processes; one of them crashes."""

import argparse
import asyncio
import sys
from collections import deque

from examples.primes.commands import CountPrimes, Crash
from typed_amp import ConnectionLostError, connect_process


class Work:
    """The ranges that are still to be counted, and what was counted."""

    def __init__(self, limit: int, size: int) -> None:
        self.ranges = deque(
            CountPrimes(start=start, stop=min(start + size, limit))
            for start in range(0, limit, size)
        )
        self.primes = 0


async def employ(work: Work, *, crashes: bool) -> None:
    """Have one child work until nothing is left to do; replace it if it crashes."""
    while work.ranges:
        async with connect_process(sys.executable, "-m", "examples.primes.worker") as connection:
            while work.ranges:
                task = work.ranges.popleft()
                try:
                    if crashes:
                        crashes = False
                        await connection.call(Crash())
                    answer = await connection.call(task)
                except ConnectionLostError as error:
                    work.ranges.appendleft(task)
                    print(f"lost a worker, exit status {error.exit_status}", flush=True)
                    break
                work.primes += answer.primes


async def main(limit: int, children: int) -> None:
    work = Work(limit, size=max(limit // 20, 1))
    async with asyncio.TaskGroup() as group:
        for number in range(children):
            group.create_task(employ(work, crashes=number == 0))
    print(f"{work.primes} primes below {limit}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", default=200_000, type=int, help="200000, unless told otherwise")
    parser.add_argument("--children", default=2, type=int, help="2, unless told otherwise")
    options = parser.parse_args()
    asyncio.run(main(options.limit, options.children))
