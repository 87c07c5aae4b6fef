"""One of those who ask, as a program. What became of its calls it says in lines of JSON."""

import argparse
import asyncio
import json
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field

from examples.cluster.commands import Order, Price
from typed_amp import AmpError, NatsClient, connect_nats

IN_FLIGHT = 10
ORDER_TIMEOUT = 2.0
PRICE_TIMEOUT = 15.0


@dataclass
class Report:
    prices: int = 0
    prices_lost: int = 0
    orders: int = 0
    orders_failed: int = 0
    answered_by: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    is_connected: bool = True


async def ask(client: NatsClient, report: Report, end: asyncio.Event) -> None:
    """Ask for prices and place orders in turns, one call at a time."""
    while not end.is_set():
        report.prices += 1
        try:
            quote = await client.call(Price(sku="teapot"), timeout=PRICE_TIMEOUT)
            report.answered_by[quote.responder] += 1
        except AmpError as error:
            report.prices_lost += 1
            report.reasons[type(error).__name__] += 1
        report.orders += 1
        try:
            receipt = await client.call(Order(sku="teapot"), timeout=ORDER_TIMEOUT)
            report.answered_by[receipt.responder] += 1
        except AmpError as error:
            report.orders_failed += 1
            report.reasons[type(error).__name__] += 1


async def tell(client: NatsClient, report: Report) -> None:
    while True:
        report.is_connected = client.is_connected
        print(json.dumps(vars(report)), flush=True)
        await asyncio.sleep(0.2)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("servers", nargs="+")
    options = parser.parse_args()
    report = Report()
    end = asyncio.Event()
    async with connect_nats(
        options.servers,
        service="shop",
        resend_after=0.5,
        dont_randomize=True,
        reconnect_time_wait=0.2,
    ) as client:
        telling = asyncio.create_task(tell(client, report))
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(ask(client, report, end))
            await asyncio.to_thread(sys.stdin.read)  # until it is closed
            end.set()
        telling.cancel()
    print(json.dumps(vars(report)), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)  # what is lost is shown in the table
    asyncio.run(main())
