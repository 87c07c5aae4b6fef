"""What one process does for a call, piece by piece and whole, as functions to time or to count.

Rule of this module: an operation does its piece a number of times and nothing else; whatever it
needs is made when it is. Each calls what a connection calls.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.peers.typed import calls_of, router
from benchmarks.samples import (
    ANSWER_HEAD,
    ANSWERS,
    ASK_HEAD,
    COMMANDS,
    answer_bytes,
    ask_bytes,
)
from typed_amp import BoxReader
from typed_amp.testing import connection_pair

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 100
"""How many calls the last operation keeps in flight."""


@dataclass(frozen=True)
class Operation:
    """A piece of a call.

    Attributes:
        run: does it a number of times.
        at_once: how many it does at a time; the number is to be a multiple of it.
    """

    run: Callable[[int], None]
    at_once: int = 1


def operations(name: str) -> dict[str, Operation]:
    """Give the operations of a work, in the order in which a call goes through them."""
    make = COMMANDS[name]
    command = make()
    signature = command.__amp_signature__()
    head = ASK_HEAD + signature.head
    made = {
        "make the command": repeated(make),
        "encode it": repeated(signature.arguments.encode, command, head),
        "parse it": parsing(ask_bytes(name)),
        "decode it": repeated(signature.arguments.decode, box_of(ask_bytes(name))),
    }
    if name in ANSWERS:
        answer = ANSWERS[name]()
        assert signature.answer is not None
        made |= {
            "make the answer": repeated(ANSWERS[name]),
            "encode the answer": repeated(signature.encode_answer, answer, ANSWER_HEAD),
            "parse the answer": parsing(answer_bytes(name)),
            "decode the answer": repeated(signature.answer.decode, box_of(answer_bytes(name))),
        }
    return {
        **made,
        "call, alone": calling(name, 1),
        f"call, {AT_ONCE} in flight": calling(name, AT_ONCE),
    }


def repeated(function: Callable[..., Any], *arguments: Any) -> Operation:
    def run(times: int) -> None:
        for _ in range(times):
            function(*arguments)

    return Operation(run)


def box_of(data: bytes) -> dict[bytes, bytes]:
    (box,) = BoxReader().feed(data)
    return box


def parsing(data: bytes) -> Operation:
    return repeated(BoxReader().feed, data)


def calling(name: str, in_flight: int) -> Operation:
    """Make whole calls over a connection in memory; both of its ends are this process."""

    async def call_on(times: int) -> None:
        async with connection_pair(router) as (client, _):
            call = calls_of(client)[name]

            async def call_in_turn() -> None:
                for _ in range(times // in_flight):
                    await call()

            await asyncio.gather(*(call_in_turn() for _ in range(in_flight)))

    def run(times: int) -> None:
        asyncio.run(call_on(times))

    return Operation(run, in_flight)
