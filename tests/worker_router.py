"""What the workers of `tests/test_worker_pool.py` and its neighbours serve."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from pathlib import Path

from pydantic import BaseModel

from typed_amp import (
    Box,
    Command,
    CommandError,
    Connection,
    RemoteAmpError,
    Router,
    remaining_time,
)


class Number(BaseModel):
    number: int


class Told(BaseModel):
    text: str


class TooBigError(CommandError):
    limit: int


class Square(Command[Number], errors={TooBigError: "TOO_BIG"}):
    """Carried out by a plain function."""

    number: int


class AsyncSquare(Command[Number]):
    number: int


class Process(Command[Number], idempotent=True):
    """Answered with the number of the worker's process."""


class Meet(Command[Number]):
    """Answered with the number of the process when a file is there."""

    path: str
    once: bool = False


class MeetAgain(Meet, idempotent=True):
    """The same, if it may be carried out twice."""


class Stop(Command[Number]):
    """Holds up the event loop for ever, in Python."""


class StopHard(Command[Number]):
    """The same, without letting go of the interpreter's lock."""


class Note(Command, requires_answer=False):
    path: str
    wait_for: str


class Nap(Command, requires_answer=False):
    """Carried out by an async function, until a file is there."""

    path: str


class End(Command[Number]):
    """Raises what ends a program."""

    how: str


class Crash(Command[Number]):
    """Ends the process."""


class CrashAgain(Crash, idempotent=True):
    pass


class Grow(Command[Number]):
    """Keeps so many bytes."""

    size: int


class Ask(Command[Told]):
    """Answered with what is seen in the worker."""

    what: str


class Report(Command[Number]):
    """What a worker asks its pool."""

    number: int


class WithReport(Command[Number]):
    number: int


router = Router()
kept: list[bytes] = []
hooks: list[str] = []


@router.on_connect
async def begin(connection: Connection) -> None:
    hooks.append("on_connect")


@router.on_disconnect
async def end(connection: Connection) -> None:
    path = os.environ.get("TOLD_AT_THE_END")
    if path:
        with Path(path).open("a") as file:  # noqa: ASYNC230
            file.write(f"{os.getpid()}\n")


@router.responder(Square)
def square(command: Square) -> Number:
    if command.number > 1_000:
        raise TooBigError(limit=1_000)
    return Number(number=command.number**2)


@router.responder(AsyncSquare)
async def async_square(command: AsyncSquare) -> Number:
    return Number(number=command.number**2)


@router.responder(Process)
def process(command: Process) -> Number:
    return Number(number=os.getpid())


def wait_for(path: str) -> None:
    """Wait in a way that holds up whatever runs in this thread."""
    pause = threading.Event()
    while not Path(path).exists():
        pause.wait(0.005)


@router.responder(Meet)
def meet(command: Meet) -> Number:
    with Path(command.path + ".here").open("a") as file:
        file.write(f"{os.getpid()}\n")
    wait_for(command.path)
    return Number(number=os.getpid())


router.responder(MeetAgain)(meet)


@router.responder(Stop)
def stop(command: Stop) -> Number:
    for number in itertools.count():  # noqa: B007
        pass
    raise AssertionError


@router.responder(StopHard)
def stop_hard(command: StopHard) -> Number:
    return Number(number=sum(range(10**15)))


@router.responder(Note)
def note(command: Note) -> None:
    wait_for(command.wait_for)
    Path(command.path).write_text("noted")


@router.responder(Nap)
async def nap(command: Nap) -> None:
    with Path(command.path + ".here").open("a") as file:  # noqa: ASYNC230
        file.write(f"{os.getpid()}\n")
    while not Path(command.path).exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.005)


@router.responder(End)
def end_program(command: End) -> Number:
    if command.how == "sys.exit":
        sys.exit(3)
    raise KeyboardInterrupt


@router.responder(Crash)
async def crash(command: Crash) -> Number:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


router.responder(CrashAgain)(crash)


@router.responder(Grow)
def grow(command: Grow) -> Number:
    kept.append(b"x" * command.size)
    return Number(number=os.getpid())


@router.responder(Ask)
def ask(command: Ask) -> Told:
    return Told(text=str(facts()[command.what]))


def running_loop() -> object:
    """Give the event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def facts() -> dict[str, object]:
    print("printed, which must not break the stream")
    return {
        "hooks": hooks,
        "path": sys.path,
        "directory": Path.cwd(),
        "colour": os.environ.get("COLOUR"),
        "thread": threading.current_thread() is threading.main_thread(),
        "time": remaining_time(),
        "arguments": sys.argv[1:],
        "loop": type(running_loop()).__module__.partition(".")[0],
    }


passing_on: Router = Router()
"""A router that answers with what another peer has said."""


@passing_on.fallback
async def pass_on(box: Box) -> Box:
    asked.append(box)
    if len(asked) > 1:  # for who asks again
        return {b"number": b"%d" % os.getpid()}
    raise RemoteAmpError("CLOSING", "the one behind it")


asked: list[Box] = []


@router.responder(WithReport)
async def with_report(command: WithReport, connection: Connection) -> Number:
    return await connection.call(Report(number=command.number))


def make_router() -> Router:
    return router


async def make_late() -> Router:
    await asyncio.sleep(0)
    return router


nothing = None
