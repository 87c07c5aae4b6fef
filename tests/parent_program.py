"""Parents that come to their ends in various ways, for `test_processes`.

    python -m tests.parent_program HOW READ_FD WRITE_FD

Each prints the number of its child's process, when the child serves.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.child_program import Act
from tests.example_commands import Repeat
from typed_amp import ProcessConnection, connect_process


async def connected(fds: tuple[int, int]) -> ProcessConnection:
    program = sys.executable, "-X", "dev", "-m", "tests.child_program", *map(str, fds)
    connection = await connect_process(*program, fds=fds, kill_timeout=300)
    await connection.call(Repeat(text=""))
    print(connection.process_id, flush=True)
    return connection


async def main(how: str, fds: tuple[int, int]) -> None:
    connection = await connected(fds)
    match how:
        case "close":
            async with connection:
                pass
        case "wait":
            async with connection:
                await asyncio.Event().wait()
        case "hanging child":
            await connection.call(Act(action="hang"))
        case "forget":
            pass
        case "fail":
            raise SystemExit("failed")


if __name__ == "__main__":
    # What runs in a shell's background has SIGINT ignored, and so have its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main(sys.argv[1], (int(sys.argv[2]), int(sys.argv[3]))))
