"""Count primes for whoever started this program."""

import asyncio
import os

from examples.primes.commands import Count, CountPrimes, Crash
from typed_amp import Router, serve_stdio

router = Router()


@router.responder(CountPrimes)
async def count_primes(command: CountPrimes) -> Count:
    numbers = range(max(command.start, 2), command.stop)
    print(f"worker: {numbers.start} to {numbers.stop}", flush=True)  # goes to standard error
    return Count(primes=sum(map(is_prime, numbers)))


@router.responder(Crash)
async def crash(_: Crash) -> None:
    os.abort()


def is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


async def main() -> None:
    async with serve_stdio(router) as connection:
        await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
