"""File descriptors, to and from Twisted over Unix sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from os import fdopen
from pathlib import Path

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess
from tests.pipes import Pipe, new_pipe
from typed_amp import Connection

__all__ = ["new_pipe"]

NewPipe = Callable[[], Pipe]

pytestmark = [
    pytest.mark.parametrize("transport", ["unix"], indirect=True),
    pytest.mark.usefixtures("nothing_left"),
]


async def test_twisted_writes_to_what_we_send(
    connection: Connection[Session], new_pipe: NewPipe
) -> None:
    pipes = [new_pipe() for _ in range(4)]
    first, second, third, fourth = (pipe.writing for pipe in pipes)
    rows = [
        commands.Portion(descriptor=first, text="row 1"),
        commands.Portion(descriptor=second, text="row 2"),
    ]
    await asyncio.gather(
        connection.call(commands.WriteTo(descriptor=first, text="first, ")),
        connection.call(commands.WriteToAll(rows=rows, last=third)),
        connection.call(commands.WriteTo(descriptor=fourth, text="é")),
    )
    written = [pipe.read_all().decode() for pipe in pipes]
    assert written == ["first, row 1", "row 2", "the end", "é"]


async def test_twisted_opens_a_file_for_us(connection: Connection[Session], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("what is in it")
    for _ in range(3):
        file = await connection.call(commands.OpenFile(path=path))
        with fdopen(file.descriptor) as opened:
            assert opened.read() == "what is in it"


async def test_we_write_to_what_twisted_sends(
    our_server: OurServer, twisted_client: TwistedProcess
) -> None:
    written = await twisted_client.play("write_to_pipes", our_server.where)
    assert written == ["first, row True", "row False", "the end", "é"]


async def test_we_open_a_file_for_twisted(
    our_server: OurServer, twisted_client: TwistedProcess, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("what is in it")
    content = await twisted_client.play("read_file", our_server.where, path=str(path))
    assert content == "what is in it"


async def test_a_hundred_descriptors_in_flight(
    connection: Connection[Session], new_pipe: NewPipe
) -> None:
    pipes = [new_pipe() for _ in range(100)]
    await asyncio.gather(
        *(
            connection.call(commands.WriteTo(descriptor=pipe.writing, text=f"{number}"))
            for number, pipe in enumerate(pipes)
        )
    )
    assert [pipe.read_all() for pipe in pipes] == [b"%d" % number for number in range(100)]
