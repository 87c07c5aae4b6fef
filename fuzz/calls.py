"""Any bytes, read by a connection that calls: each call ends with an answer or a documented error.

Nothing else may come out: no error in the log but those of the responder that fails, no task, no
timer and no call that is left. A call has an answer or an error of the peer's only if the bytes
have one for it, and only a call that had a time can run out of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel

from fuzz.bench import (
    LONG,
    TRANSITIONS,
    Conditions,
    Large_,
    Switch,
    Turns,
    bench,
    client_context,
    joined,
    read,
    send,
)
from fuzz.plans import Asked, Refused
from tests.example_commands import Buy, Log, OutOfStock, ShopClosedError
from typed_amp import (
    Box,
    CallTimeoutError,
    Command,
    Connection,
    ConnectionLostError,
    DecodeError,
    Descriptor,
    InvalidArgumentsError,
    RemoteAmpError,
    StartTLSError,
)

__all__ = ["check"]


class File(BaseModel):
    file: Annotated[int, Descriptor()]


class Open(Command[File]):
    """Answered with a descriptor, which can't come."""


@dataclass(frozen=True)
class _Call:
    """One call.

    Attributes:
        make: makes it.
        errors: what it may raise beside what every call may.
        has_time: whether it ends by itself.
        has_tag: whether it takes the next tag at once.
    """

    make: Callable[[Connection], Awaitable[Any]]
    errors: tuple[type[Exception], ...] = ()
    has_time: bool = False
    has_tag: bool = True


async def _switch(connection: Connection) -> None:
    transport, _ = await connection.switch_protocol(Switch(), asyncio.Protocol)
    transport.close()


_CALLS: Final = [
    _Call(lambda connection: connection.call(Turns(count=1))),
    _Call(
        lambda connection: connection.call(Buy(sku="x")),
        (OutOfStock, ShopClosedError, KeyError, ValueError),
    ),
    _Call(lambda connection: connection.call(Large_(value=bytes(30_000)))),
    _Call(lambda connection: connection.call(Asked()), (Refused, KeyError)),
    _Call(lambda connection: connection.call(Open())),
    _Call(lambda connection: connection.call_box("Any", {b"a": b"1"})),
    _Call(lambda connection: connection.call(Turns(count=1), timeout=0.05), has_time=True),
    _Call(lambda connection: connection.call(Open(), timeout=LONG), has_time=True),
    _Call(lambda connection: connection.call(Log(line=b"l")), has_tag=False),
]
"""The tag of each that has one is its place, counted from 1."""

_START_TLS: Final = _Call(
    lambda connection: connection.start_tls(client_context()), (StartTLSError,), has_tag=False
)
_SWITCH: Final = _Call(_switch, has_tag=False)

_MOST: Final = 40
"""How many calls are made at the most."""

_GIVEN_UP: Final = 4
"""The calls whose number is a multiple of it are given up a piece of the bytes later."""


def check(data: bytes) -> None:
    """Call, and answer with the bytes behind the first two, which say how."""
    bench().run(_call(Conditions(data), data[2:]))


async def _call(conditions: Conditions, stream: bytes) -> None:
    connection = conditions.connection(bench().router, is_server=False)
    expected = _Expected(read(stream)[0])
    calls: list[asyncio.Task[None]] = []

    def make(call: _Call) -> None:
        calls.append(asyncio.create_task(expected.check(connection, call)))

    async with joined(conditions, connection) as (theirs, _):
        for call in _CALLS:
            make(call)
        if conditions.is_special:
            make(_START_TLS if conditions.has_extensions else _SWITCH)
        await asyncio.sleep(0)
        async for _ in send(conditions, stream, theirs):
            if len(calls) % _GIVEN_UP == 0:
                calls[-1].cancel()
            if len(calls) < _MOST:
                make(_CALLS[len(calls) % len(_CALLS)])
        if conditions.is_patient:
            await asyncio.sleep(2 * LONG)
            may_change = conditions.is_special or expected.has_transition
            if expected.is_closing and conditions.has_extensions and not may_change:
                await _check_refused(connection)
        if conditions.is_ending:
            connection.close()
            await asyncio.sleep(LONG)
        theirs.close()
    for number, outcome in enumerate(await asyncio.gather(*calls, return_exceptions=True), 1):
        if number % _GIVEN_UP or not isinstance(outcome, asyncio.CancelledError):
            assert outcome is None, outcome


async def _check_refused(connection: Connection) -> None:
    """See that nothing is asked of a peer that has said that it is closing."""
    try:
        await connection.call(Turns(count=1), timeout=1.0)
    except ConnectionLostError:
        assert connection.is_closed
    except RemoteAmpError as error:
        assert error.code == "CLOSING", error
    else:
        raise AssertionError("it was asked")


class _Expected:
    """What calls may end with.

    Args:
        boxes: what the peer sends.

    Attributes:
        is_closing: whether it says that it is closing.
        has_transition: whether it asks for a change of protocol.
    """

    def __init__(self, boxes: list[Box]) -> None:
        self._answers: set[bytes] = set()
        self._codes: dict[bytes, set[bytes]] = {}
        self.is_closing: bool = False
        self.has_transition: bool = False
        for box in boxes:
            tag = box.get(b"_answer", box.get(b"_error"))
            if tag is None and b"_command" not in box:
                break
            if tag is None:
                self.is_closing |= box[b"_command"] == b"typed-amp.closing"
                self.has_transition |= box[b"_command"] in TRANSITIONS
            elif b"_error" in box:
                self._codes.setdefault(tag, set()).add(box.get(b"_error_code", b""))
            else:
                self._answers.add(tag)

    async def check(self, connection: Connection, call: _Call) -> None:
        """Make a call, and see that it ends with something that there is a reason for."""
        tag = b"%x" % (connection._link.dialogue._asks_made + 1) if call.has_tag else None
        codes = set[bytes]() if tag is None else self._codes.get(tag, set())
        try:
            await call.make(connection)
        except ConnectionLostError:
            assert connection.is_closed
        except CallTimeoutError:
            assert call.has_time or b"TIMEOUT" in codes, (tag, codes)
        except DecodeError:
            assert tag in self._answers, tag
        except RemoteAmpError as error:
            assert str(error).isprintable()
            if isinstance(error, InvalidArgumentsError):
                assert all(detail["msg"] is not None for detail in error.errors)
            is_refused = self.is_closing and error.code == "CLOSING"
            assert tag is None or is_refused or codes, (tag, error)
        except call.errors as error:
            assert tag is None or codes, (tag, error)
        else:
            assert tag is None or tag in self._answers, tag
