"""A child that serves its parent, for `test_processes`.

    python -m tests.child_program READ_FD WRITE_FD

With 0 and 1 it serves by `serve_stdio`, else by `serve_fds`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.example_commands import CountDown, Data, Make, Text, example_router
from tests.leftovers import descriptors
from typed_amp import Command, Connection, serve_fds, serve_stdio


class Act(Command[Text], errors={ZeroDivisionError: "ZERO"}):
    """Do something to the process; answered with what came of it."""

    action: str
    argument: str = ""


class Flood(Command[Data]):
    """Call back with so much data, in calls of this size."""

    calls: int
    size: int


router = example_router()


@router.responder(Act)
async def act(command: Act) -> Text:
    match command.action:
        case "exit":
            os._exit(int(command.argument))
        case "kill":
            os.kill(os.getpid(), int(command.argument))
        case "print":
            print("printed", flush=True)
            print("kept back")
            os.write(1, b"written\n")
            subprocess.run(["sh", "-c", "echo echoed; cat"], check=True)  # noqa: ASYNC221
            return Text(text=repr(sys.stdin.read()))
        case "environment":
            return Text(text=os.environ.get(command.argument, "(unset)"))
        case "directory":
            return Text(text=str(Path.cwd()))
        case "descriptors":
            return Text(text=repr(sorted(descriptors())))
        case "hang":  # deaf, and with a thread that Python waits for at its end
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=threading.Event().wait).start()
    return Text(text="done")


@router.responder(CountDown)
async def count_down(command: CountDown, connection: Connection) -> Text:
    if command.start == 0:
        return Text(text="0")
    answer = await connection.call(CountDown(start=command.start - 1))
    return Text(text=f"{command.start} {answer.text}")


@router.responder(Flood)
async def flood(command: Flood, connection: Connection) -> Data:
    calls = [connection.call(Make(size=command.size)) for _ in range(command.calls)]
    answers = await asyncio.gather(*calls)
    return Data(data=str(sum(len(answer.data) for answer in answers)).encode())


async def main(read_fd: int, write_fd: int) -> None:
    opening: Any
    if (read_fd, write_fd) == (0, 1):
        opening = serve_stdio(router)
    else:
        opening = serve_fds(router, read_fd, write_fd)
    async with opening as connection:
        await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
