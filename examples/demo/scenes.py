"""What the demo shows, scene by scene. The source of each is shown as it stands here, and run.

The first line of a docstring is the title. `connection` is the client's end of its connection to
the server; `second` is that of another client.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from examples.demo import server
from examples.demo.commands import (
    Audit,
    Buy,
    Cook,
    Counted,
    CountWords,
    Heard,
    Invoice,
    Item,
    Join,
    Log,
    Order,
    OutOfStock,
    Progress,
    ReadLog,
    Repeat,
    RepeatResult,
    Say,
    Wait,
)
from typed_amp import (
    CallTimeoutError,
    Command,
    Connection,
    InvalidArgumentsError,
    Router,
    UnhandledCommandError,
    UnknownRemoteError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class Scene:
    """One thing to show.

    Attributes:
        play: does it.
        commands: the classes from commands.py to show first.
        responders: the functions from server.py to show first.
        own: the functions from the client to show first.
        clients: how many connections it is given.
        logs: how many lines the server logs meanwhile.
    """

    play: Callable[..., Awaitable[None]]
    commands: tuple[type, ...] = ()
    responders: tuple[Callable[..., Any], ...] = ()
    own: tuple[Callable[..., Any], ...] = ()
    clients: int = 1
    logs: int = 0


client = Router()


@client.responder(Progress)
async def progress(command: Progress) -> None:
    print(f"{command.dish}: {command.percent} % done")


@client.responder(Heard)
async def heard(command: Heard) -> None:
    print(f"{command.name} says {command.text!r}")


async def plain(connection: Connection) -> None:
    """A call

    A command is a class, and its fields are the arguments. An async function answers it. The
    caller gets an object of the declared type; editors and type checkers know which.
    """
    result = await connection.call(Repeat(text="abc", times=3))
    print(repr(result))


async def remote(connection: Connection) -> None:
    """The same call in Twisted's words

    AMP comes from Twisted, where this is called callRemote. A wrong name or type is an error in
    the editor here too.
    """
    result = await connection.call_remote(Repeat, text="ab", times=2)
    print(result.text)


async def in_flight(connection: Connection) -> None:
    """Several calls at once

    No call waits for another. Each answer goes out when it is ready, and carries the number of
    the ask that it belongs to.
    """

    async def wait(seconds: float) -> None:
        answer = await connection.call(Wait(seconds=seconds))
        print(f"waited {answer.seconds} seconds")

    await asyncio.gather(wait(0.3), wait(0.1), wait(0.2))


async def declared(connection: Connection) -> None:
    """An error that the command declares

    It comes back as the exception that was raised, with its fields. They travel as further keys,
    which other AMP libraries ignore.
    """
    try:
        await connection.call(Buy(sku="teapot", count=5))
    except OutOfStock as error:
        print(f"only {error.left} of {error.sku} left")


async def undeclared(connection: Connection) -> None:
    """An error that nobody declared

    The server's responder fails with RuntimeError: "the books of 1998 are in the cellar, under
    water". That is the server's business: it is in the server's log, and nothing of it leaks.
    In Twisted the connection would be closed now. Here the next call works.
    """
    try:
        await connection.call(Audit())
    except UnknownRemoteError as error:
        print(error)


async def invalid(connection: Connection) -> None:
    """Arguments that break a rule

    Repeat takes 0 to 1000 times. This side knows that, and refuses before anything is sent. A
    client with an older idea of the command gets its refusal from the server.
    """
    try:
        Repeat(text="abc", times=-1)
    except ValidationError as error:
        print(f"refused here: {error.errors()[0]['msg']}")

    class OldRepeat(Command[RepeatResult], name="Repeat"):
        text: str
        times: int

    try:
        await connection.call(OldRepeat(text="abc", times=-1))
    except InvalidArgumentsError as error:
        print(f"refused there: {error.description}")


async def unknown(connection: Connection) -> None:
    """A command that the server does not know

    Its name is all that the server needs to say no.
    """

    class MakeCoffee(Command):
        cups: int

    try:
        await connection.call(MakeCoffee(cups=2))
    except UnhandledCommandError as error:
        print(error)


async def no_answer(connection: Connection) -> None:
    """A command without an answer

    There is no _ask in its box, so the server sends nothing back. What comes later on the same
    connection arrives later: reading the log finds the line.
    """
    await connection.call(Log(line="the teapot is empty"))
    print((await connection.call(ReadLog())).lines)


async def timeout(connection: Connection) -> None:
    """A timeout costs one call, not the connection

    The caller waits for 0.1 seconds, and says so to the server, which stops working for it then.
    Another call goes through at once. A server that is no typed_amp program is told nothing, and
    its late answer is let pass when it comes.
    """
    try:
        await connection.call(Wait(seconds=0.4), timeout=0.1)
    except CallTimeoutError as error:
        print(error)
    print((await connection.call(Repeat(text="still here"))).text)


async def server_calls(connection: Connection) -> None:
    """The server calls its client

    Both ends of a connection are alike. While the server cooks, it calls the client, which has
    a router of its own. The numbers of each side's asks are its own: watch the two that are 1.
    """
    await connection.call(Cook(dish="soup"))
    print("served")


async def one_to_another(connection: Connection, second: Connection) -> None:
    """One client reaches another

    The server keeps a state for each connection, here a name, and passes on what is said.
    """
    await connection.call(Join(name="ann"))
    await second.call(Join(name="bob"))
    reached = await second.call(Say(text="good morning"))
    print(f"heard by {reached.names}")


async def rich(connection: Connection) -> None:
    """Rows, decimals, dates, JSON

    Lists of models become boxes within the value. Decimals and datetimes are written as in
    Twisted, and what has no form in AMP travels as JSON where the field says so. The coupon is
    None, so its key is left out.
    """
    invoice = await connection.call(
        Order(
            items=[
                Item(sku="teapot", count=1, price=Decimal("24.90")),
                Item(sku="cup", count=6, price=Decimal("3.20")),
            ],
            at=datetime(2024, 5, 17, 9, 30, tzinfo=UTC),
            labels={"shelf": [4, 11]},
        )
    )
    print(f"{invoice.total} are due on {invoice.due}")


async def large(connection: Connection) -> None:
    """A value longer than AMP's values

    A value has at most 65,535 bytes: its length is written in two. A field marked Large() is cut
    into slices, each under a key of its own, as other AMP programs do it.
    """
    text = "nothing new under the sun " * 6_000
    counted = await connection.call(CountWords(text=text))
    print(f"{counted.words} words")


async def raw(connection: Connection) -> None:
    """A box as it is

    Proxies and tools need no class for a command: its name and its pairs will do.
    """
    box = {b"text": b"abc", b"times": b"2"}
    print(await connection.call_box("Repeat", box))


SCENES = [
    Scene(plain, commands=(RepeatResult, Repeat), responders=(server.repeat,)),
    Scene(remote),
    Scene(in_flight),
    Scene(declared, commands=(OutOfStock, Buy), responders=(server.buy,)),
    Scene(undeclared, logs=1),
    Scene(invalid),
    Scene(unknown),
    Scene(no_answer, commands=(Log,)),
    Scene(timeout),
    Scene(server_calls, responders=(server.cook,), own=(progress,)),
    Scene(one_to_another, responders=(server.say,), own=(heard,), clients=2),
    Scene(rich, commands=(Item, Order, Invoice)),
    Scene(large, commands=(Counted, CountWords)),
    Scene(raw),
]
