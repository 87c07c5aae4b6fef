"""Uses that type checkers must accept, and what they must know about each.

A use is a line with `assert_type`, or one that ends in `# accepted`. Nothing here runs: the
functions are there to be read by mypy and pyright, which `tests/test_typing.py` starts.
"""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, assert_type

import typed_amp
from tests.typing.commands import (
    Add,
    Awkward,
    Buy,
    CountedRepeatResult,
    Discontinued,
    Divide,
    Fetch,
    FetchNumbers,
    HexCodec,
    Log,
    OutOfStock,
    Page,
    Pause,
    Ping,
    Ratio,
    Receipt,
    Repeat,
    RepeatLoudly,
    RepeatResult,
    SecureAs,
    Session,
    Store,
    Sum,
    SwitchToChat,
    Wait,
    WaitResult,
)
from typed_amp import (
    AmpError,
    Backoff,
    Box,
    BoxReader,
    CallTimeoutError,
    Client,
    ClientState,
    ClientStatus,
    Codec,
    Command,
    CommandError,
    Connection,
    DecodeError,
    Json,
    Key,
    Large,
    Limits,
    NotAllowedError,
    ProcessConnection,
    ProtocolViolationError,
    RemoteAmpError,
    Router,
    Server,
    StartTLS,
    TooLongError,
    connect,
    connect_process,
    connect_unix,
    encode_box,
    serve,
    serve_fds,
    serve_stdio,
    serve_unix,
)
from typed_amp.testing import connection_pair


async def calls(connection: Connection[Any]) -> None:
    assert_type(await connection.call(Repeat(text="ab", times=3)), RepeatResult)
    assert_type((await connection.call(Repeat(text="ab"))).text, str)
    assert_type(await connection.call(Add(numbers=[1, 2])), Sum)
    assert_type(await connection.call(Divide(numerator=1, denominator=2)), Ratio)
    assert_type(await connection.call(Ping()), None)
    assert_type(await connection.call(Pause(seconds=2.5)), None)
    assert_type(await connection.call(Log(line="began")), None)
    assert_type(await connection.call(RepeatLoudly(text="ab", volume=3)), RepeatResult)
    assert_type(await connection.call(Fetch[int](first=1)), Page[int])
    assert_type(await connection.call(Fetch(first="a")), Page[str])
    assert_type(await connection.call(FetchNumbers(first=1, limit=2)), Page[int])
    assert_type(await connection.call(Wait(seconds=1.5)), WaitResult)
    assert_type(await connection.call(Buy(sku="A1")), Receipt)
    assert_type(await connection.call(Repeat(text="ab"), timeout=1), RepeatResult)
    assert_type(await connection.call(Repeat(text="ab"), timeout=0.5), RepeatResult)
    assert_type(await connection.call(Ping(), timeout=None), None)


async def calls_by_class_and_fields(connection: Connection) -> None:
    assert_type(await connection.call_remote(Repeat, text="ab", times=3), RepeatResult)
    assert_type(await connection.call_remote(Repeat, text="ab"), RepeatResult)
    assert_type(await connection.call_remote(Add, numbers=[1, 2]), Sum)
    assert_type(await connection.call_remote(Divide, numerator=1, denominator=2), Ratio)
    assert_type(await connection.call_remote(Ping), None)
    assert_type(await connection.call_remote(Log, line="began"), None)
    assert_type(await connection.call_remote(RepeatLoudly, text="ab", volume=3), RepeatResult)
    assert_type(await connection.call_remote(Fetch[int], first=1), Page[int])
    assert_type(await connection.call_remote(FetchNumbers, first=1, limit=2), Page[int])
    assert_type(await connection.call_remote(Wait, seconds=1.5), WaitResult)
    await connection.call_remote(  # accepted
        Awkward, name="a", command="b", errors=1, timeout=2.0, signature=b"c"
    )
    await connection.call_remote(Store, from_="a", digest=b"b", labels={"c": 1})  # accepted


async def calls_in_a_helper(connection: Connection[Any]) -> None:
    async def twice(command: Command[Sum]) -> list[Sum]:
        return [await connection.call(command), await connection.call(command)]

    assert_type(await twice(Add(numbers=[1])), list[Sum])


async def clients_that_come_back(
    router: Router[Session], plain: Router, any_hook: Callable[[Connection[Any]], Awaitable[int]]
) -> None:
    async def log_in(connection: Connection[Session]) -> None:
        await connection.call(Log(line=connection.state.user or "nobody"))

    async def subscribe(connection: Connection) -> None: ...

    assert_type(Client("localhost", 8000), Client[None])
    assert_type(Client("localhost", 8000, router=plain, on_connect=subscribe), Client[None])
    assert_type(Client("/run/socket", on_connect=any_hook), Client[None])
    assert_type(Client(("localhost", 8000), on_connect=subscribe), Client[None])
    assert_type(
        Client([("a", 1), "/run/socket", Path("x")], router=router, on_connect=log_in),
        Client[Session],
    )
    assert_type(await Client("localhost", 8000, router=router), Client[Session])
    options = Backoff(first=0.5, jitter=0)
    async with Client("localhost", 8000, router=router, backoff=options, attempts=3) as client:
        assert_type(client, Client[Session])
        assert_type(client.connection, Connection[Session] | None)
        assert_type(client.state, ClientState)
        assert_type(client.state.status, ClientStatus)
        async for state in client.states():
            assert_type(state, ClientState)
        assert_type(await client.call(Repeat(text="ab")), RepeatResult)
        assert_type(await client.call(Ping(), timeout=1, wait_for_connection=False), None)
        assert_type(await client.call_remote(Fetch[int], first=1), Page[int])
        assert_type(await client.call_box("Repeat", {b"text": b"ab"}, idempotent=True), Box)


class Greeter:
    async def repeat(self, command: Repeat) -> RepeatResult:
        return RepeatResult(text=command.text)

    async def log(self, command: Log, connection: Connection[Session]) -> None:
        connection.state.user = command.line


class CallableObject:
    async def __call__(self, command: Add) -> Sum:
        return Sum(total=sum(command.numbers))


async def repeat_with_separator(separator: str, command: Repeat) -> RepeatResult:
    return RepeatResult(text=separator.join([command.text] * command.times))


def routers() -> None:
    assert_type(Router(), Router[None])
    assert_type(Router(state=Session), Router[Session])
    assert_type(Router(state=lambda: 0), Router[int])
    assert_type(Router(state=dict[str, int]), Router[dict[str, int]])
    by_annotation: Router = Router()
    assert_type(by_annotation, Router[None])


def responders() -> None:
    router = Router()

    @router.responder(Repeat)  # accepted
    async def repeat(command: Repeat) -> RepeatResult:
        return RepeatResult(text=command.text * command.times)

    @router.responder(Add)  # accepted
    async def add(command: Add, connection: Connection) -> Sum:
        assert_type(connection.state, None)
        return Sum(total=sum(command.numbers))

    @router.responder(Ping)  # accepted
    async def ping(command: Ping) -> None: ...

    @router.responder(Pause)  # accepted
    async def pause(command: Pause, connection: Connection[None]) -> None: ...

    @router.responder(Log)  # accepted
    async def log(command: Log) -> None: ...

    @router.responder(RepeatLoudly)  # accepted
    async def repeat_loudly(command: RepeatLoudly) -> RepeatResult:
        return RepeatResult(text=command.text.upper())

    @router.responder(Wait)  # accepted
    async def wait(command: Wait) -> WaitResult:
        return WaitResult(waited=command.seconds)

    @router.responder(FetchNumbers)  # accepted
    async def fetch_numbers(command: FetchNumbers) -> Page[int]:
        return Page(rows=[command.first])

    @router.responder(Fetch[str])  # accepted
    async def fetch_texts(command: Fetch[str]) -> Page[str]:
        return Page(rows=[command.first])


def responders_that_are_not_async() -> None:
    router = Router(state=Session)

    @router.responder(Repeat)  # accepted
    def repeat(command: Repeat) -> RepeatResult:
        return RepeatResult(text=command.text)

    @router.responder(Add, thread=True)  # accepted
    def add(command: Add, connection: Connection[Session]) -> Sum:
        return Sum(total=sum(command.numbers))

    @router.responder(Ping, thread=True)  # accepted
    def ping(command: Ping) -> None: ...

    @router.responder(RepeatLoudly)  # accepted
    def repeat_loudly(command: Repeat) -> CountedRepeatResult:
        return CountedRepeatResult(text="", length=0)

    assert_type(repeat(Repeat(text="")), RepeatResult)


def responders_that_are_objects() -> None:
    router = Router(state=Session)
    greeter = Greeter()
    router.responder(Repeat)(greeter.repeat)  # accepted
    router.responder(Log)(greeter.log)  # accepted
    router.responder(Add)(CallableObject())  # accepted
    router.responder(Repeat)(functools.partial(repeat_with_separator, "-"))  # accepted


def responders_that_take_more_and_give_more() -> None:
    router = Router(state=Session)

    @router.responder(Repeat)  # accepted
    async def with_a_subclass_of_the_answer(command: Repeat) -> CountedRepeatResult:
        return CountedRepeatResult(text=command.text, length=len(command.text))

    @router.responder(RepeatLoudly)  # accepted
    async def with_a_base_of_the_command(command: Repeat) -> RepeatResult:
        return RepeatResult(text=command.text)

    @router.responder(Add)  # accepted
    async def with_any_connection(command: Add, connection: Connection[Any]) -> Sum:
        return Sum(total=0)

    @router.responder(Ping)  # accepted
    async def with_an_optional_parameter(command: Ping, level: int = 0) -> None: ...


def guards() -> None:
    router = Router(state=Session)

    @router.guard  # accepted
    def of_the_connection(connection: Connection[Session]) -> None: ...

    @router.guard  # accepted
    def of_the_name_too(connection: Connection[Session], name: str) -> None: ...

    @router.guard  # accepted
    def of_any_connection(connection: Connection[Any]) -> None:
        raise NotAllowedError("closed")

    checked: Callable[[Connection[Session], str], None] = of_the_name_too  # accepted
    print(checked)


def admits(connection: Connection[Session]) -> bool:
    return connection.peer_certificate is not None


async def admits_later(connection: Connection[Any]) -> bool:
    credentials = connection.peer_credentials
    return credentials is not None and assert_type(credentials.user_id, int) == 0


def admission(router: Router[Session]) -> None:
    serve(router, "localhost", 0, admit=admits)  # accepted
    serve_unix(router, "/run/amp", admit=admits_later)  # accepted
    serve(router, "localhost", 0, admit=lambda connection: connection.is_closed)  # accepted
    typed_amp.run(router, "localhost", 8000, admit=admits)  # accepted


async def responders_called_directly(connection: Connection) -> None:
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> RepeatResult:
        return RepeatResult(text=command.text)

    @router.responder(Add)
    async def add(command: Add, connection: Connection) -> Sum:
        return Sum(total=0)

    @router.on_connect
    async def connected(connection: Connection) -> None: ...

    assert_type(await repeat(Repeat(text="ab")), RepeatResult)
    assert_type(await add(Add(numbers=[]), connection), Sum)
    assert_type(asyncio.create_task(repeat(Repeat(text="ab"))), asyncio.Task[RepeatResult])
    assert_type(asyncio.create_task(add(Add(numbers=[]), connection)), asyncio.Task[Sum])
    assert_type(asyncio.create_task(connected(connection)), asyncio.Task[None])


def states() -> None:
    router = Router(state=Session)

    @router.responder(Log)
    async def log(command: Log, connection: Connection[Session]) -> None:
        assert_type(connection.state, Session)
        assert_type(connection.state.user, str | None)
        connection.state.user = command.line
        assert_type(await connection.call(Repeat(text="ab")), RepeatResult)

    router.include(Router())  # accepted
    router.include(Router(state=Session))  # accepted


def hooks() -> None:
    router = Router(state=Session)

    @router.on_connect  # accepted
    async def connected(connection: Connection[Session]) -> None:
        assert_type(connection.state, Session)

    @router.on_disconnect  # accepted
    async def disconnected(connection: Connection[Session]) -> None: ...

    @router.on_connect  # accepted
    async def with_any_connection(connection: Connection[Any]) -> None: ...

    plain = Router()

    @plain.on_connect  # accepted
    async def plainly_connected(connection: Connection) -> None:
        assert_type(connection.state, None)


async def clients(tls: ssl.SSLContext) -> None:
    router = Router(state=Session)
    assert_type(await connect("localhost", 8000), Connection[None])
    assert_type(await connect("localhost", 8000, router=router), Connection[Session])
    assert_type(await connect("localhost", 8000, router=Router()), Connection[None])
    assert_type(await connect("localhost", 8000, ssl=tls), Connection[None])
    assert_type(await connect("localhost", 8000, ssl=True), Connection[None])
    assert_type(await connect_unix("/run/amp"), Connection[None])
    assert_type(await connect_unix(Path("/run/amp"), router=router), Connection[Session])
    async with connect("localhost", 8000) as connection:
        assert_type(connection, Connection[None])
    async with connect("localhost", 8000, router=router) as stateful:
        assert_type(stateful, Connection[Session])
    async with connect_unix("/run/amp", limits=Limits(max_keys=10)) as connection:
        assert_type(connection, Connection[None])
    async with connect_unix("/run/amp", router=router, drain_timeout=1) as stateful:
        assert_type(stateful.state, Session)
    async with stateful as entered:
        assert_type(entered, Connection[Session])
    async with contextlib.AsyncExitStack() as stack:
        assert_type(await stack.enter_async_context(connect("localhost", 8000)), Connection[None])


async def processes(router: Router[Session], environment: Mapping[str, str]) -> None:
    assert_type(await connect_process("worker", Path("file")), ProcessConnection[None])
    assert_type(await connect_process("worker", router=router), ProcessConnection[Session])
    assert_type(await connect_process("worker", router=Router()), ProcessConnection[None])
    async with connect_process(
        "worker", fds=(3, 4), router=router, env=environment, cwd=Path("/"), kill_timeout=1
    ) as connection:
        assert_type(connection, ProcessConnection[Session])
        assert_type(connection.state, Session)
        assert_type(connection.process_id, int)
        assert_type(connection.exit_status, int | None)
        assert_type(await connection.call(Add(numbers=[1, 2])), Sum)
    assert_type(await serve_stdio(router), Connection[Session])
    assert_type(await serve_stdio(Router(), limits=Limits(max_keys=10)), Connection[None])
    async with serve_fds(router, 3, 4, drain_timeout=1) as served:
        assert_type(served, Connection[Session])


async def clients_with_a_router_or_none(router: Router | None) -> None:
    assert_type(await connect("localhost", 8000, router=router), Connection[None])


async def servers(tls: ssl.SSLContext) -> None:
    router = Router(state=Session)
    assert_type(await serve(Router(), "localhost", 0), Server[None])
    assert_type(await serve(router, "localhost", 0), Server[Session])
    assert_type(await serve(router, ["127.0.0.1", "::1"], 0, ssl=tls), Server[Session])
    assert_type(await serve(router, None, 0), Server[Session])
    assert_type(await serve_unix(router, "/run/amp"), Server[Session, str])
    assert_type(await serve_unix(Router(), Path("/run/amp")), Server[None, str])
    async with serve_unix(router, "/run/amp") as unix_server:
        assert_type(unix_server, Server[Session, str])
    async with serve(router, "localhost", 0, drain_timeout=2.5) as server:
        assert_type(server, Server[Session])
        assert_type(server.addresses, Sequence[tuple[str, int]])
        assert_type(server.connections, Sequence[Connection[Session]])
        assert_type([connection.state for connection in server.connections], list[Session])
        assert_type(await server.serve_forever(), None)
        server.close(drain_timeout=0)  # accepted
        assert_type(await server.wait_closed(), None)


def programs() -> None:
    assert_type(typed_amp.run(Router(state=Session), "localhost", 8000), None)


async def connections(connection: Connection[Session]) -> None:
    assert_type(connection.state, Session)
    assert_type(connection.is_closed, bool)
    assert_type(connection.remote_address, tuple[str, int] | str | None)
    assert_type(connection.peer_certificate, dict[str, Any] | None)
    assert_type(connection.close(drain_timeout=1.5), None)
    assert_type(await connection.wait_closed(), None)


async def changes_of_what_is_spoken(connection: Connection, tls: ssl.SSLContext) -> None:
    assert_type(await connection.start_tls(), None)
    assert_type(await connection.start_tls(tls, server_hostname="localhost", timeout=5), None)
    assert_type(await connection.start_tls(tls, command=SecureAs(user="ann")), None)
    transport, protocol = await connection.switch_protocol(SwitchToChat(room="a"), ChatProtocol)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, ChatProtocol)
    reader = asyncio.StreamReader()
    _, stream = await connection.switch_protocol(
        SwitchToChat(room="a"), lambda: asyncio.StreamReaderProtocol(reader), timeout=5
    )
    assert_type(stream, asyncio.StreamReaderProtocol)


class ChatProtocol(asyncio.Protocol): ...


def responders_that_change_what_is_spoken(tls: ssl.SSLContext) -> None:
    router = Router(state=Session)

    @router.responder(StartTLS)  # accepted
    async def start_tls(command: StartTLS) -> ssl.SSLContext:
        return tls

    @router.responder(SecureAs)  # accepted
    async def secure(command: SecureAs, connection: Connection[Session]) -> ssl.SSLContext:
        return tls

    @router.responder(SwitchToChat)  # accepted
    async def switch(command: SwitchToChat) -> ChatProtocol:
        return ChatProtocol()


async def boxes_as_they_are(connection: Connection) -> None:
    assert_type(await connection.call_box("Repeat", {b"text": b"ab"}), Box)
    assert_type(await connection.call_box(b"Log", requires_answer=False, timeout=5), Box)
    router = Router(state=Session)

    @router.fallback  # accepted
    async def with_the_box(box: Box) -> Box:
        return box

    @Router().fallback  # accepted
    async def with_the_connection(box: Box, connection: Connection) -> Box:
        return await connection.call_box(box[b"_command"], box)

    assert_type(await with_the_box({}), Box)


async def pairs_in_memory() -> None:
    router = Router(state=Session)
    async with connection_pair(router) as (client, server):
        assert_type(client, Connection[None])
        assert_type(server, Connection[Session])
    async with connection_pair(Router(), client_router=router) as (stateful, plain):
        assert_type(stateful, Connection[Session])
        assert_type(plain, Connection[None])


async def a_fixture_of_ones_own(router: Router[Session]) -> AsyncIterator[Connection]:
    async with connection_pair(router, limits=Limits(max_keys=5)) as (client, _):
        yield client  # accepted


def errors_with_fields(error: OutOfStock) -> None:
    assert_type(OutOfStock(sku="A1"), OutOfStock)
    assert_type(OutOfStock(sku="A1", left=3).left, int)
    assert_type(error.sku, str)
    try:
        raise Discontinued(sku="A1", since=date.min)  # accepted
    except AmpError as caught:
        assert_type(caught, AmpError)


async def errors_of_calls(connection: Connection) -> None:
    try:
        await connection.call(Buy(sku="A1"))
    except OutOfStock as error:
        assert_type(error.left, int)
    except RemoteAmpError as error:
        assert_type(error.code, str)
        assert_type(error.description, str)
        assert_type(error.fields, dict[bytes, bytes])
    except CallTimeoutError as error:
        assert_type(error.timeout, float)
    except TooLongError as error:
        assert_type(error.limit, int)
        assert_type(error.rule, str)
    except DecodeError as error:
        assert_type(error.location, tuple[str | int, ...])
    except ProtocolViolationError as error:
        assert_type(error.boxes, Sequence[Box])


def commands_of_ones_own() -> None:
    errors: Mapping[type[Exception], str] = {KeyError: "NO_SUCH_KEY"}

    class Refund(  # accepted
        Command[Receipt], name="refund", errors=errors, fatal_errors={OSError: "OS"}
    ):
        number: int

    class Explained(CommandError):
        reason: str = "unknown"

        def __str__(self) -> str:
            return self.reason

    assert_type(Explained().reason, str)
    assert_type(Refund(number=1).model_copy(), Refund)


def fields() -> None:
    store = Store(from_="a", digest=b"b")
    assert_type(store.from_, str)
    assert_type(store.digest, bytes)
    assert_type(store.labels, dict[str, int])
    assert_type(Key("from").key, bytes)
    assert_type(Key(b"from"), Key)


class Upload(Command):
    data: Annotated[bytes, Large()]
    lines: Annotated[list[str], Large(compressed=True)]
    counts: Annotated[dict[str, int], Json(), Large(zero_based=True)]
    note: Annotated[str, Large(slice_bytes=10_000, max_bytes=1_000_000)] | None = None


async def large_values(connection: Connection, upload: Upload) -> None:
    assert_type(upload.data, bytes)
    assert_type(upload.lines, list[str])
    assert_type(upload.counts, dict[str, int])
    assert_type(upload.note, str | None)
    assert_type(Large(slice_bytes=None).slice_bytes, int)
    assert_type(Large().zero_based, bool)
    await connection.call(Upload(data=b"a", lines=["b"], counts={"c": 1}))  # accepted


def codecs() -> None:
    codec: Codec[bytes] = HexCodec()  # accepted
    assert_type(codec.encode(b"a"), bytes)
    assert_type(HexCodec().decode(b"61"), bytes)


def boxes() -> None:
    assert_type(encode_box({b"key": b"value"}), bytes)
    assert_type(encode_box({b"key": b"value"}, segmented=True), bytes)
    assert_type(BoxReader(segmented=True).feed(b""), list[Box])
    reader = BoxReader(Limits(max_box_bytes=1024, max_held_bytes=2048))
    assert_type(reader.feed(b"\0\3key"), list[Box])
    assert_type(reader.feed(memoryview(b"\0\5value")), list[dict[bytes, bytes]])
    assert_type(reader.pending_bytes, int)
    assert_type(Limits().max_box_bytes, int)
