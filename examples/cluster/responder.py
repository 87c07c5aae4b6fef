"""One of those who answer, as a program: its name, and the servers of the cluster."""

import argparse
import asyncio
import itertools
import logging
import random
import sys

from examples.cluster.commands import Order, Price, Quote, Receipt
from typed_amp import Router, serve_nats


def shop(name: str) -> Router:
    router = Router()
    numbers = itertools.count(1)

    @router.responder(Price)
    async def price(command: Price) -> Quote:
        await asyncio.sleep(random.uniform(0, 0.02))
        return Quote(cents=100 * len(command.sku), responder=name)

    @router.responder(Order)
    async def order(command: Order) -> Receipt:
        assert command.sku
        await asyncio.sleep(random.uniform(0, 0.02))
        return Receipt(number=next(numbers), responder=name)

    return router


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("servers", nargs="+")
    options = parser.parse_args()
    async with serve_nats(
        shop(options.name),
        options.servers,
        service="shop",
        description="Prices and orders",
        dont_randomize=True,
        reconnect_time_wait=0.2,
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until it is closed


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)  # what is lost is shown in the table
    asyncio.run(main())
