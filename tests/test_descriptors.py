from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, field_validator

from tests.peers import LogCapture, joined, settled, until
from tests.pipes import Pipe, new_pipe
from typed_amp import (
    Command,
    CommandError,
    Connection,
    DecodeError,
    DefinitionError,
    Descriptor,
    EncodeError,
    InvalidArgumentsError,
    Limits,
    Router,
    UnhandledCommandError,
    UnknownRemoteError,
    connect_unix,
    serve_unix,
)
from typed_amp.testing import connection_pair

__all__ = ["new_pipe"]

pytestmark = pytest.mark.usefixtures("nothing_left")

NewPipe = Callable[[], Pipe]


class File(BaseModel):
    descriptor: Annotated[int, Descriptor()]
    name: str = ""


class Open(Command[File]):
    path: str


class Write(Command):
    descriptor: Annotated[int, Descriptor()]
    text: str = ""
    pieces: Annotated[int, Field(le=10)] = 1

    @field_validator("text")
    @classmethod
    def be_polite(cls, text: str) -> str:
        if text == "rude":
            raise ValueError("mind your words")
        return text


class Tell(Write, requires_answer=False):
    pass


class MaybeRow(BaseModel):
    descriptor: Annotated[int | None, Descriptor()] = None


class WriteAll(Command):
    rows: list[MaybeRow]
    last: Annotated[int, Descriptor()] | None = None


class Wait(Command[File]):
    descriptor: Annotated[int, Descriptor()]


class Wrong(Command[File]):
    pass


class Pair(BaseModel):
    first: Annotated[int, Descriptor()]
    second: Annotated[int, Descriptor()]


class Two(Command[Pair]):
    pass


class Unheard(Command):
    descriptor: Annotated[int, Descriptor()]


router = Router(state=asyncio.Event)


@router.responder(Open)
async def open_file(command: Open) -> File:
    return File(descriptor=os.open(command.path, os.O_RDONLY), name=command.path)


@router.responder(Write)
async def write(command: Write) -> None:
    with os.fdopen(command.descriptor, "w") as file:
        file.write(command.text)


@router.responder(Tell)
async def tell(command: Tell) -> None:
    await write(command)


@router.responder(WriteAll)
async def write_all(command: WriteAll) -> None:
    for number, descriptor in enumerate([*(row.descriptor for row in command.rows), command.last]):
        if descriptor is not None:
            os.write(descriptor, b"%d" % number)
            os.close(descriptor)


@router.responder(Wait)
async def wait(command: Wait, connection: Connection[asyncio.Event]) -> File:
    connection.state.set()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        os.close(command.descriptor)
    raise AssertionError


@router.responder(Wrong)
async def give_what_is_closed(command: Wrong) -> File:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    return File(descriptor=reading)


@asynccontextmanager
async def over(
    transport: str, path: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[Connection[Any], Connection[asyncio.Event]]]:
    """Join two connections; the first asks the second."""
    if transport == "memory":
        async with connection_pair(router, limits=limits, drain_timeout=0) as ends:
            yield ends
    else:
        socket = path / "socket"
        async with (
            serve_unix(router, socket, limits=limits, drain_timeout=0) as server,
            connect_unix(socket) as client,
        ):
            await until(lambda: server.connections)
            yield client, server.connections[0]


Ends = tuple[Connection[Any], Connection[asyncio.Event]]


@pytest.fixture(params=["unix", "memory"])
async def ends(
    request: pytest.FixtureRequest, tmp_path: Path, nothing_left: None
) -> AsyncIterator[Ends]:
    async with over(request.param, tmp_path) as joined_ends:
        yield joined_ends


async def test_responder_gets_a_descriptor_of_its_own(ends: Ends, new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    await ends[0].call(Write(descriptor=pipe.writing, text="hello"))
    os.fstat(pipe.writing)  # the caller's is still the caller's
    assert pipe.read_all() == b"hello"


async def test_caller_gets_a_descriptor_that_is_his(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    file = await ends[0].call(Open(path=str(path)))
    assert file.name == str(path)
    with os.fdopen(file.descriptor) as opened:
        assert opened.read() == "content"


async def test_command_without_an_answer(ends: Ends, new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    await ends[0].call(Tell(descriptor=pipe.writing, text="told"))
    pipe.close_writing()  # it has been sent, as far as the caller is concerned
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(pipe.read_all) == b"told"


async def test_several_in_one_box_and_in_rows(ends: Ends, new_pipe: NewPipe) -> None:
    pipes = [new_pipe() for _ in range(3)]
    rows = [MaybeRow(descriptor=pipe.writing) for pipe in pipes]
    rows.insert(1, MaybeRow())
    await ends[0].call(WriteAll(rows=rows, last=pipes[0].writing))
    assert [pipe.read_all() for pipe in pipes] == [b"04", b"2", b"3"]


async def test_many_calls_at_once_keep_theirs_apart(ends: Ends, new_pipe: NewPipe) -> None:
    pipes = [new_pipe() for _ in range(50)]
    await asyncio.gather(
        *(
            ends[0].call(Write(descriptor=pipe.writing, text=f"{number}"))
            for number, pipe in enumerate(pipes)
        )
    )
    assert [pipe.read_all() for pipe in pipes] == [b"%d" % number for number in range(50)]


async def test_more_in_flight_than_may_wait_to_be_claimed(ends: Ends, new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    await asyncio.gather(
        *(ends[0].call(Write(descriptor=pipe.writing, text="x")) for _ in range(400))
    )
    assert pipe.read_all() == b"x" * 400


@pytest.mark.parametrize("other", [2**70, "no number"])
async def test_answer_with_one_that_is_none_closes_the_others(
    new_pipe: NewPipe, other: Any, log: LogCapture
) -> None:
    pipe = new_pipe()
    strange: Router = Router()

    @strange.responder(Two)
    async def two(command: Two) -> Pair:
        return Pair.model_construct(first=other, second=os.dup(pipe.writing))

    async with connection_pair(strange) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call(Two())
    assert pipe.read_all() == b""


async def test_either_side_may_send(tmp_path: Path, new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    client_router: Router = Router()

    @client_router.responder(Write)
    async def write_here(command: Write) -> None:
        await write(command)

    async with (
        serve_unix(Router(), tmp_path / "socket") as server,
        connect_unix(tmp_path / "socket", router=client_router),
    ):
        await until(lambda: server.connections)
        await server.connections[0].call(Write(descriptor=pipe.writing, text="back"))
    assert pipe.read_all() == b"back"


@pytest.mark.parametrize("descriptor", [-1, 12_345, 2**70])
async def test_what_is_no_descriptor_is_not_sent(
    ends: Ends, new_pipe: NewPipe, descriptor: int
) -> None:
    pipe = new_pipe()
    rows = [MaybeRow(descriptor=pipe.writing), MaybeRow(descriptor=descriptor)]
    with pytest.raises(
        EncodeError, match=r"WriteAll\.rows: .*descriptor: it is no open descriptor"
    ):
        await ends[0].call(WriteAll(rows=rows))
    await ends[0].call(Write(descriptor=pipe.writing, text="next"))  # the numbers still fit
    assert pipe.read_all() == b"next"


async def test_box_that_can_not_be_written_sends_no_descriptor(
    ends: Ends, new_pipe: NewPipe
) -> None:
    pipe = new_pipe()
    with pytest.raises(EncodeError):
        await ends[0].call(Write(descriptor=pipe.writing, text="x" * 70_000))
    await ends[0].call(Write(descriptor=pipe.writing, text="next"))
    assert pipe.read_all() == b"next"


@pytest.mark.parametrize(
    "refused",
    [
        lambda descriptor: Write.model_construct(descriptor=descriptor, text="", pieces=11),
        lambda descriptor: Write.model_construct(descriptor=descriptor, text="rude", pieces=1),
    ],
)
async def test_descriptors_of_refused_arguments_are_closed(
    ends: Ends, new_pipe: NewPipe, refused: Callable[[int], Write]
) -> None:
    pipe = new_pipe()
    with pytest.raises(InvalidArgumentsError):
        await ends[0].call(refused(pipe.writing))
    assert pipe.read_all() == b""  # comes to an end, since nobody else has it open


async def test_descriptors_of_unhandled_commands_are_closed_by_and_by(
    ends: Ends, new_pipe: NewPipe
) -> None:
    pipe, other = new_pipe(), new_pipe()
    with pytest.raises(UnhandledCommandError):
        await ends[0].call(Unheard(descriptor=pipe.writing))
    await ends[0].call(Write(descriptor=other.writing))  # from here on nobody can claim the first
    assert pipe.read_all() == b""


async def test_descriptors_that_nobody_claims_are_closed_with_the_connection(
    tmp_path: Path, new_pipe: NewPipe
) -> None:
    pipe = new_pipe()
    async with over("unix", tmp_path) as (client, _):
        with pytest.raises(UnhandledCommandError):
            await client.call(Unheard(descriptor=pipe.writing))
    assert pipe.read_all() == b""


async def test_descriptors_that_nobody_claims_are_bounded(
    tmp_path: Path, new_pipe: NewPipe, log: LogCapture
) -> None:
    pipes = [new_pipe() for _ in range(5)]
    async with over("unix", tmp_path, Limits(max_unclaimed_descriptors=4)) as (client, _):
        for pipe in pipes:
            with pytest.raises(UnhandledCommandError):
                await client.call(Unheard(descriptor=pipe.writing))
        assert pipes[0].read_all() == b""
        assert "closing 1 descriptors that no command has claimed" in log.only_line()
        with pytest.raises(InvalidArgumentsError, match=r"Limits\.max_unclaimed_descriptors"):
            await client.call_box("Write", {b"descriptor": b"0"})
        # What came along with a box may be more than may wait.
        rows = [MaybeRow(descriptor=pipe.writing) for pipe in pipes[1:]]
        await client.call(WriteAll(rows=rows, last=pipes[1].writing))
        assert pipes[1].read_all() == b"04"


async def test_answer_that_nobody_waits_for_is_closed(new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    asked, answered = asyncio.Event(), asyncio.Event()
    late_router: Router = Router()

    @late_router.responder(Wrong)
    async def answer_late(command: Wrong) -> File:
        asked.set()
        await answered.wait()
        return File(descriptor=os.dup(pipe.writing))

    async with connection_pair(late_router) as (late_client, _):
        call = asyncio.create_task(late_client.call(Wrong()))
        await asked.wait()
        call.cancel()
        answered.set()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert pipe.read_all() == b""


@pytest.mark.parametrize("turns", range(8))
async def test_call_that_is_cancelled_at_any_time(
    tmp_path: Path, new_pipe: NewPipe, turns: int
) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    async with over("memory", tmp_path) as (client, _):
        call = asyncio.create_task(client.call(Open(path=str(path))))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            os.close((await call).descriptor)


async def test_responder_that_never_begins_leaves_none(ends: Ends, new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    client, server = ends
    call = asyncio.create_task(client.call(Wait(descriptor=pipe.writing)))
    await until(lambda: server._link.responses.running)
    for task in asyncio.all_tasks():
        if task.get_name() == "Wait":
            task.cancel()
    with pytest.raises(UnknownRemoteError):
        await call
    assert pipe.read_all() == b""


async def test_responder_that_is_cancelled_closes_its_own(
    tmp_path: Path, new_pipe: NewPipe
) -> None:
    pipe = new_pipe()
    async with over("unix", tmp_path) as (client, server):
        call = asyncio.create_task(client.call(Wait(descriptor=pipe.writing)))
        await server.state.wait()
        client.close()
        await asyncio.wait([call])
        assert call.exception() is not None
    assert pipe.read_all() == b""


async def test_answer_with_what_is_no_descriptor(ends: Ends, log: LogCapture) -> None:
    with pytest.raises(UnknownRemoteError):
        await ends[0].call(Wrong())
    assert "it is no open descriptor" in log.only_line()


async def test_peer_that_names_a_descriptor_which_it_did_not_send(
    ends: Ends, new_pipe: NewPipe
) -> None:
    for number in (b"0", b"7", b"-1", b"x", b"9" * 5_000):
        with pytest.raises(InvalidArgumentsError):
            await ends[0].call_box("Write", {b"descriptor": number, b"text": b""})
    pipe = new_pipe()
    await ends[0].call(Write(descriptor=pipe.writing, text="fine"))
    assert pipe.read_all() == b"fine"


async def test_answer_that_names_a_descriptor_which_the_peer_did_not_send() -> None:
    raw: Router = Router()

    @raw.fallback
    async def answer(box: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {b"descriptor": b"3", b"name": b""}

    async with connection_pair(raw) as (client, _):
        with pytest.raises(
            DecodeError, match=r"the answer to Open\.descriptor: no descriptor came for it"
        ):
            await client.call(Open(path=""))


async def test_transport_that_carries_none(new_pipe: NewPipe) -> None:
    pipe = new_pipe()
    async with joined(router) as (client, _):
        with pytest.raises(EncodeError, match="over Unix sockets without TLS only"):
            await client.call(Write(descriptor=pipe.writing))
        with pytest.raises(InvalidArgumentsError):
            await client.call_box("Write", {b"descriptor": b"0", b"text": b""})
        with pytest.raises(UnknownRemoteError):
            await client.call(Open(path="/dev/null"))
    assert pipe.read_all() == b""


async def test_calls_with_descriptors_wait_while_the_peer_does_not_read(
    tmp_path: Path, new_pipe: NewPipe
) -> None:
    async with over("unix", tmp_path) as (client, server):
        server._link.transport.pause_reading()
        fillers = [
            asyncio.create_task(
                client.call(Write(descriptor=new_pipe().writing, text="x" * 60_000))
            )
            for _ in range(10)
        ]
        await settled()
        assert client._link.writer.is_full
        pipe = new_pipe()
        cancelled = asyncio.create_task(client.call(Write(descriptor=pipe.writing, text="never")))
        last = asyncio.create_task(client.call(Write(descriptor=pipe.writing, text="last")))
        await settled()
        cancelled.cancel()
        await settled()
        server._link.transport.resume_reading()
        await last
        assert pipe.read_all() == b"last"
        await asyncio.gather(*fillers)


class TestDefinition:
    def test_it_is_an_int(self) -> None:
        with pytest.raises(
            DefinitionError, match=r"Bad\.file: a Descriptor\(\) is an int, not str"
        ):

            class Bad(Command):
                file: Annotated[str, Descriptor()]

    def test_class_where_an_instance_is_due(self) -> None:
        with pytest.raises(DefinitionError, match="Descriptor stands there as a class"):

            class Bad(Command):
                file: Annotated[int, Descriptor]

    def test_list_of_bare_descriptors(self) -> None:
        with pytest.raises(DefinitionError, match="put them into a model"):

            class Bad(Command):
                files: list[Annotated[int, Descriptor()]]

    def test_errors_carry_none(self) -> None:
        with pytest.raises(DefinitionError, match="an error can't carry"):

            class BadError(CommandError):
                file: Annotated[int, Descriptor()]

    def test_repr(self) -> None:
        assert repr(Descriptor()) == "Descriptor()"

    def test_models_that_hold_themselves(self) -> None:
        assert Tree.__amp_signature__().has_attachments
        assert not Open.__amp_signature__().has_attachments
        assert Open.__amp_signature__().answer_has_attachments


class Node(BaseModel):
    children: list[Node] = []
    leaf: Leaf | None = None


class Leaf(BaseModel):
    node: Node | None = None
    descriptor: Annotated[int, Descriptor()]


Node.model_rebuild()


class Tree(Command):
    root: Node
