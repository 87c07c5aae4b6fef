"""rpyc: a threaded server, and a client that keeps calls in flight by `rpyc.async_`.

Set as its documentation says for speed: what travels is immutable (tuples, not lists), since that
goes by value and all else would be asked for again, one attribute at a time; and errors come
without the server's traceback. It runs on threads and has no event loop; one thread makes all
calls and reads all answers, on one connection.

rpyc checks nothing itself. What comes in is checked by pydantic on both sides, as in other peers.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import rpyc
from pydantic import Field, TypeAdapter, validate_call
from rpyc.utils.authenticators import SSLAuthenticator
from rpyc.utils.factory import ssl_connect, unix_connect
from rpyc.utils.server import ThreadedServer

from benchmarks import work
from benchmarks.peers.clock import Clock
from benchmarks.peers.turn import HOST, announce, unable

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.turn import Turn

CONFIG = {"include_local_traceback": False}

TEXT = TypeAdapter(str)
DATA = TypeAdapter(bytes)
NUMBERS = TypeAdapter(tuple[int, ...])
ROWS = TypeAdapter(list[work.RowFields])
ARGUMENTS = tuple(work.NUMBERS)
ANSWER = tuple(work.REVERSED)


class Works(rpyc.Service):  # type: ignore[misc]  # rpyc has no types
    @validate_call
    def exposed_repeat(
        self, text: str, times: Annotated[int, Field(ge=0, le=work.MAX_TIMES)]
    ) -> str:
        return text * times

    @validate_call
    def exposed_value(self, data: bytes) -> bytes:
        return data

    @validate_call
    def exposed_list(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        return numbers[::-1]

    @validate_call
    def exposed_rows(
        self, first: int, count: Annotated[int, Field(ge=0, le=work.MAX_COUNT)]
    ) -> tuple[tuple[Any, ...], ...]:
        # A named tuple is no tuple to rpyc: it would stay here, and be asked for.
        return tuple(tuple(work.row(number)) for number in range(first, first + count))

    @validate_call
    def exposed_error(self, name: str) -> None:
        raise LookupError(work.complaint(name))


def run_server(turn: Turn) -> None:
    where: dict[str, Any]
    if turn.path:
        where = {"socket_path": turn.path}
    else:
        where = {"hostname": HOST, "port": 0}
        if turn.is_encrypted:
            where["authenticator"] = SSLAuthenticator(turn.key, turn.certificate)
    server: Any = ThreadedServer(Works, protocol_config=CONFIG, **where)
    server._listen()
    announce(0 if turn.path else server.port)
    server.start()


def run_client(turn: Turn) -> None:
    connect: Any
    if turn.path:
        connect = partial(unix_connect, turn.path)
    elif turn.is_encrypted:
        connect = partial(ssl_connect, HOST, turn.port, ca_certs=str(turn.authority))
    else:
        connect = partial(rpyc.connect, HOST, turn.port)
    connection: Any = connect(config=CONFIG)
    arguments, check = EXCHANGES[turn.work]
    call = partial(rpyc.async_(getattr(connection.root, turn.work)), *arguments)
    answered = call()
    answered.wait()
    check(answered)
    clock = Clock(turn)
    waiting = 0

    def begin() -> None:
        nonlocal waiting
        waiting += 1
        call().add_callback(partial(end, time.perf_counter()))

    def end(start: float, answered: Any) -> None:
        nonlocal waiting
        waiting -= 1
        check(answered)
        if clock.called(start):
            begin()

    try:
        for _ in range(turn.in_flight):
            begin()
        while waiting:
            connection.serve(None)
    except EOFError:  # neither end could write, and one of them gave up
        unable("neither end of rpyc reads while it writes, so that both wait for each other")
    clock.report()
    connection.close()


def check_repeat(answered: Any) -> None:
    assert TEXT.validate_python(answered.value) == work.REPEATED


def check_value(answered: Any) -> None:
    assert DATA.validate_python(answered.value) == work.VALUE


def check_list(answered: Any) -> None:
    assert NUMBERS.validate_python(answered.value) == ANSWER


def check_rows(answered: Any) -> None:
    rows = ROWS.validate_python(answered.value)
    assert len(rows) == work.COUNT
    assert rows[-1] == work.LAST


def check_error(answered: Any) -> None:
    try:
        assert answered.value is None
    except LookupError as error:
        assert str(error).partition("\n")[0] == work.complaint(work.MISSING)
    else:
        raise AssertionError("there was no error")


EXCHANGES: dict[str, tuple[tuple[Any, ...], Callable[[Any], None]]] = {
    "repeat": ((work.TEXT, work.TIMES), check_repeat),
    "value": ((work.VALUE,), check_value),
    "list": ((ARGUMENTS,), check_list),
    "rows": ((work.FIRST, work.COUNT), check_rows),
    "error": ((work.MISSING,), check_error),
}
"""The arguments of each work, and what checks its answer."""
