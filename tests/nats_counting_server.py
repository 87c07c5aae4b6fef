"""A responder of a NATS service that writes down what it carries out, as a program.

Its arguments are how many seconds the longest calls take, the file to write to, and the servers of
the cluster, of which it takes the first that is there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TextIO

from tests.counting_server import counting_router
from typed_amp import serve_nats


async def main(file: TextIO) -> None:
    async with serve_nats(
        counting_router(float(sys.argv[1]), file),
        sys.argv[3:],
        service="counting",
        dont_randomize=True,
        reconnect_time_wait=0.1,
    ) as service:
        print("serving", flush=True)
        await service.serve_forever()


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a") as file:
        asyncio.run(main(file))
