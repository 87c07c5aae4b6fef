from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT
from tests.example_commands import Repeat, Text, example_router
from tests.leftovers import descriptors
from tests.peers import LogCapture, hooked_router, settled, until
from tests.programs import program
from typed_amp import Connection, ConnectionLostError, Router, serve_fds, serve_stdio

pytestmark = pytest.mark.usefixtures("nothing_left")


async def works(connection: Connection[Any]) -> bool:
    return await connection.call(Repeat(text="ab")) == Text(text="ab")


@asynccontextmanager
async def joined_by_pipes(
    router: Router[Any] | None = None,
) -> AsyncIterator[tuple[Connection[Any], Connection[Any]]]:
    """Join two connections of this process by two pipes."""
    first_reads, second_writes = os.pipe()
    second_reads, first_writes = os.pipe()
    async with (
        serve_fds(example_router(), first_reads, first_writes) as first,
        serve_fds(router or example_router(), second_reads, second_writes) as second,
    ):
        yield first, second


async def test_both_sides_of_two_pipes() -> None:
    async with joined_by_pipes() as (first, second):
        assert await works(first)
        assert await works(second)
        assert first.remote_address is None
        assert first.peer_certificate is None
        first.close()
        await second.wait_closed()
        with pytest.raises(ConnectionLostError, match=r"descriptors \d+ and \d+ was lost"):
            await works(second)


async def test_state() -> None:
    async with joined_by_pipes(Router(state=list[int])) as (_, second):
        assert second.state == []


async def test_one_socket_for_both_directions() -> None:
    first, second = socket.socketpair()
    fd = first.detach()
    other_fd = second.detach()
    async with (
        serve_fds(example_router(), fd, fd) as one,
        serve_fds(example_router(), other_fd, os.dup(other_fd)) as other,
    ):
        assert await works(one)
        assert await works(other)
        assert repr(one) == f"<Connection descriptors {fd} and {fd}, open>"


async def test_who_gives_up_opening_a_socket_hears_of_the_end() -> None:
    for turns in range(1, 8):
        seen: list[str] = []
        router = hooked_router(seen)
        first, second = socket.socketpair()
        with second:
            fd = first.detach()
            opening = asyncio.ensure_future(serve_fds(router, fd, fd))
            await settled(turns)
            opening.cancel()
            with suppress(asyncio.CancelledError):
                (await opening).close()
            await until(lambda seen=seen: seen in ([], ["begun", "ended"]))  # type: ignore[misc]


async def test_failing_hook_closes_the_descriptors(log: LogCapture) -> None:
    router = Router()

    @router.on_connect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("no good")

    with pytest.raises(ConnectionLostError, match="no good"):
        async with joined_by_pipes(router):
            pytest.fail("it was opened")


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_while_it_opens(turns: int) -> None:
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()

    async def open_connection() -> Connection:
        return await serve_fds(Router(), read_fd, write_fd)

    task = asyncio.create_task(open_connection())
    await settled(turns)
    task.cancel()
    with suppress(asyncio.CancelledError):
        (await task).close()
    if turns == 0:  # it never began
        os.close(read_fd)
        os.close(write_fd)
    os.close(peer_reads)
    os.close(peer_writes)


# -- What is no pipe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("file", "a regular file"),
        ("directory", "a directory"),
        ("null", "a device"),
        ("wrong way", "the other end of a pipe"),
    ],
)
@pytest.mark.parametrize("reading", [True, False])
async def test_what_no_stream_comes_over(
    kind: str, found: str, reading: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    read_fd, write_fd = os.pipe()
    match kind:
        case "file":
            fd = os.open(tmp_path / "file", os.O_RDWR)
        case "directory":
            fd = os.open(tmp_path, os.O_RDONLY)
        case "null":
            fd = os.open(os.devnull, os.O_RDWR)
        case _:
            fd = os.dup(write_fd if reading else read_fd)
    with pytest.raises(ValueError, match=f"descriptor {fd}, which is {found}"):
        await serve_fds(Router(), *((fd, write_fd) if reading else (read_fd, fd)))
    for left in (fd, read_fd, write_fd):  # they are not taken over
        os.close(left)


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("number", [None, -1, 10**20])
async def test_descriptor_that_is_closed(reading: bool, number: int | None) -> None:
    read_fd, write_fd = os.pipe()
    closed = number or max(descriptors()) + 10
    with pytest.raises(OSError, match=f"descriptor {closed}, which is closed") as caught:
        await serve_fds(Router(), *((closed, write_fd) if reading else (read_fd, closed)))
    assert caught.value.errno == errno.EBADF
    os.close(read_fd)
    os.close(write_fd)


# -- Standard input and output -------------------------------------------------------------------


@contextmanager
def standard_streams() -> Iterator[tuple[int, int]]:
    """Make descriptors 0 and 1 pipes; give the other ends."""
    saved = os.dup(0), os.dup(1)
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()
    os.dup2(read_fd, 0)
    os.dup2(write_fd, 1)
    os.close(read_fd)
    os.close(write_fd)
    try:
        yield peer_reads, peer_writes
    finally:
        for fd, before in enumerate(saved):
            os.dup2(before, fd)
            os.close(before)


async def test_standard_streams_lead_elsewhere_for_good() -> None:
    with standard_streams() as (peer_reads, peer_writes):
        async with serve_fds(example_router(), peer_reads, peer_writes) as peer:
            async with serve_stdio(example_router()) as connection:
                assert await works(connection)
                assert await works(peer)
                assert repr(connection) == "<Connection standard input and output, open>"
                during = descriptors()
                assert during[0] == os.devnull
                assert during[1] == during[2]
            after = descriptors()
            assert [after[0], after[1]] == [during[0], during[1]]
            await peer.wait_closed()  # it sees the end, though this program goes on
            with pytest.raises(ValueError, match="a device"):
                await serve_stdio(Router())


async def test_modes_of_standard_streams_are_restored() -> None:
    with standard_streams() as (peer_reads, peer_writes):
        os.set_blocking(0, False)
        others = os.dup(0), os.dup(1)  # such as a shell has, which goes on when this program ends
        async with serve_fds(Router(), peer_reads, peer_writes), serve_stdio(Router()):
            assert [os.get_blocking(fd) for fd in others] == [False, False]
        assert [os.get_blocking(fd) for fd in others] == [False, True]
        for fd in others:
            os.close(fd)


async def test_standard_streams_lead_elsewhere_when_opening_fails(log: LogCapture) -> None:
    router = Router()

    @router.on_connect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("no good")

    with standard_streams() as (peer_reads, peer_writes):
        with pytest.raises(ConnectionLostError, match="no good"):
            await serve_stdio(router)
        after = descriptors()
        assert [after[0], after[1]] == [os.devnull, after[2]]
        assert os.read(peer_reads, 1) == b""
        os.close(peer_reads)
        os.close(peer_writes)


CHILD = "import asyncio, sys; from typed_amp import *; asyncio.run({})"
SERVE = "serve_stdio(Router()).__aenter__()"


@pytest.mark.parametrize(
    ("redirection", "message"),
    [  # something of the event loop's has the number of what is closed
        ("<&-", "AMP is to read from descriptor 0, which is "),
        ("</dev/null", "ValueError: AMP is to read from descriptor 0, which is a device;"),
        ("<README.md", "ValueError: AMP is to read from descriptor 0, which is a regular file;"),
        (">&-", "AMP is to write to descriptor 1, which is "),
    ],
)
async def test_program_that_nobody_speaks_with(redirection: str, message: str) -> None:
    text = f"exec '{sys.executable}' -X dev -c '{CHILD.format(SERVE)}' {redirection}"
    code = f"import subprocess; subprocess.run(['sh', '-c', {text!r}])"
    async with program("-c", code, directory=ROOT) as running:
        assert message in await running.rest()
