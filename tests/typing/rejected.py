"""Uses that type checkers must reject.

A use is a line that ends in an ignore for mypy and one for pyright, each with the code of the
error that it must give. Both checkers refuse an ignore that nothing needs, so each line here is
an error to both of them, or `tests/test_typing.py` fails. Nothing here runs.
"""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable

from pydantic import BaseModel

import typed_amp
from tests.typing.commands import (
    Add,
    Awkward,
    Discontinued,
    Fetch,
    FetchNumbers,
    HexCodec,
    Log,
    OutOfStock,
    Page,
    Ping,
    Repeat,
    RepeatResult,
    Session,
    Store,
    Sum,
    SwitchToChat,
)
from typed_amp import (
    Backoff,
    Box,
    BoxReader,
    Client,
    Codec,
    Command,
    CommandError,
    Connection,
    Key,
    Large,
    Limits,
    NotAllowedError,
    RemoteAmpError,
    Router,
    Server,
    StartTLS,
    connect,
    connect_unix,
    encode_box,
    serve,
    serve_unix,
)
from typed_amp.testing import connection_pair


def fields_of_commands() -> None:
    Repeat()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Repeat(text=b"ab")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Repeat(text="ab", times="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Repeat(text="ab", volume=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Repeat("ab")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Fetch[int](first="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FetchNumbers(first="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Store(from_="a", digest="b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Store(from_="a", digest=b"b", labels=["c"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Store(digest=b"b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Log(line=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def calls(connection: Connection) -> None:
    await connection.call(Repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call(RepeatResult(text="ab"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call("Repeat")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call(Repeat(text="ab"), timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call(Repeat(text="ab"), 1.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call(Repeat(text="ab"), deadline=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    number: Sum = await connection.call(Repeat(text="ab"))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    result = await connection.call(Repeat(text="ab"))
    print(result.txt)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    result.text = 1  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    print(connection.call(Repeat(text="ab")).text)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    connection.call(Repeat(text="ab"))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    rows: list[str] = (await connection.call(FetchNumbers(first=1))).rows  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(number, rows)


async def calls_by_class_and_fields(connection: Connection) -> None:
    await connection.call_remote(Repeat)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call_remote(Repeat, text=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call_remote(Repeat, text="ab", times="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call_remote(Repeat, text="ab", volume=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call_remote(Repeat, "ab")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call_remote(Repeat, text="ab", timeout=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call_remote(Repeat(text="ab"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await connection.call_remote(RepeatResult, text="ab")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call_remote("Repeat", text="ab")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await connection.call_remote(Fetch[int], first="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call_remote(Awkward, name="a", command="b", errors=1, timeout=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    number: Sum = await connection.call_remote(Repeat, text="ab")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(number)


async def takes_another_command(command: Add) -> RepeatResult:
    return RepeatResult(text="")


async def gives_another_answer(command: Repeat) -> Sum:
    return Sum(total=0)


async def gives_no_answer(command: Repeat) -> None: ...


async def gives_text(command: Repeat) -> str:
    return command.text


async def may_give_nothing(command: Repeat) -> RepeatResult | None:
    return None


async def gives_an_answer_to_ping(command: Ping) -> RepeatResult:
    return RepeatResult(text="")


async def gives_a_base_of_the_answer(command: Repeat) -> BaseModel:
    return RepeatResult(text="")


def is_plain(command: Repeat) -> RepeatResult:
    return RepeatResult(text="")


def is_plain_and_gives_text(command: Repeat) -> str:
    return ""


def is_plain_and_gives_nothing(command: Repeat) -> None: ...


def is_plain_and_gives_an_answer_to_ping(command: Ping) -> RepeatResult:
    return RepeatResult(text="")


def is_plain_and_takes_another_command(command: Ping) -> RepeatResult:
    return RepeatResult(text="")


def is_plain_and_wants_a_session(command: Repeat, connection: Connection[Session]) -> RepeatResult:
    return RepeatResult(text="")


def gives_a_future(command: Repeat) -> Awaitable[RepeatResult]:
    return asyncio.Future()


async def takes_nothing() -> RepeatResult:
    return RepeatResult(text="")


async def takes_too_much(command: Repeat, connection: Connection, more: int) -> RepeatResult:
    return RepeatResult(text="")


async def takes_fields(text: str, times: int) -> RepeatResult:
    return RepeatResult(text="")


async def wants_keyword(command: Repeat, *, separator: str) -> RepeatResult:
    return RepeatResult(text="")


async def wants_a_session(command: Repeat, connection: Connection[Session]) -> RepeatResult:
    return RepeatResult(text="")


async def wants_no_state(command: Repeat, connection: Connection) -> RepeatResult:
    return RepeatResult(text="")


async def takes_a_subclass(command: FetchNumbers) -> RepeatResult:
    return RepeatResult(text="")


async def takes_the_connection_first(connection: Connection, command: Repeat) -> RepeatResult:
    return RepeatResult(text="")


async def yields_its_answer(command: Repeat) -> AsyncIterator[RepeatResult]:
    yield RepeatResult(text="")


async def fetches_texts(command: Fetch[int]) -> Page[str]:
    return Page(rows=[])


class Greeter:
    async def repeat(self, command: Repeat) -> RepeatResult:
        return RepeatResult(text="")

    async def add(self, command: Repeat) -> Sum:
        return Sum(total=0)


def responders() -> None:
    router = Router()
    router.responder(Repeat)(takes_another_command)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(gives_another_answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(gives_no_answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(gives_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(may_give_nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(gives_a_base_of_the_answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Ping)(gives_an_answer_to_ping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(is_plain_and_gives_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(is_plain_and_gives_nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Ping)(is_plain_and_gives_an_answer_to_ping)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(is_plain_and_takes_another_command)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(is_plain_and_wants_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat, thread=True)(is_plain_and_gives_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat, threads=True)(is_plain)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    router.responder(Repeat)(gives_a_future)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(takes_nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(takes_too_much)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(takes_fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(wants_keyword)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(wants_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Router(state=Session).responder(Repeat)(wants_no_state)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Router(state=dict[str, int]).responder(Repeat)(wants_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(takes_the_connection_first)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(yields_its_answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(takes_a_subclass)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Fetch[int])(fetches_texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(Greeter.repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(Greeter().add)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(Greeter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat)(functools.partial(gives_text))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(Repeat(text="ab"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.responder(RepeatResult)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.responder("Repeat")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.responder()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    router.responder(gives_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def is_an_async_guard(connection: Connection) -> None: ...


def says_yes_or_no(connection: Connection) -> bool:
    return connection.is_closed


def guards_a_session(connection: Connection[Session]) -> None: ...


def guards_by_the_command(command: Repeat) -> None: ...


def guards_by_bytes(connection: Connection, name: bytes) -> None: ...


def guards() -> None:
    router = Router()
    router.guard(is_an_async_guard)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.guard(says_yes_or_no)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.guard(guards_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.guard(guards_by_the_command)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.guard(guards_by_bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    NotAllowedError()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def admits_by_the_command(command: Repeat) -> bool:
    return True


async def says_nothing(connection: Connection) -> None: ...


def admission(router: Router) -> None:
    serve(router, "localhost", 0, admit=admits_by_the_command)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    serve_unix(router, "/run/amp", admit=says_nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    typed_amp.run(router, "localhost", 8000, admit=guards_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def responders_below_the_decorator() -> None:
    router = Router()

    @router.responder(Repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def other_command(command: Add) -> RepeatResult:
        raise NotImplementedError

    @router.responder(Repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def other_answer(command: Repeat) -> Sum:
        raise NotImplementedError

    @router.responder(Repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def sync(command: Repeat) -> Sum:
        raise NotImplementedError

    @router.responder  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def bare(command: Repeat) -> RepeatResult:
        raise NotImplementedError


async def responders_called_directly() -> None:
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> RepeatResult:
        return RepeatResult(text="")

    repeat(Repeat(text="ab"))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await repeat(Ping())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await repeat(text="ab")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def states(router: Router[Session], connection: Connection[Session]) -> None:
    Router(state=Session())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Router(Session)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    plain: Router = Router(state=Session)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(connection.state.usr)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    connection.state.user = 1  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    connection.state = Session()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Router().include(router)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.include(Router(state=dict[str, int]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.include(connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    other: Connection = connection  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(plain, other)


def sync_hook(connection: Connection) -> None: ...


async def hook_of_a_session(connection: Connection[Session]) -> None: ...


async def hook_with_two(connection: Connection, more: int) -> None: ...


async def hook_without() -> None: ...


async def hook_with_a_result(connection: Connection) -> int:
    return 1


def hooks() -> None:
    router = Router()
    router.on_connect(sync_hook)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_disconnect(sync_hook)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_connect(hook_of_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_disconnect(hook_of_a_session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_connect(hook_with_two)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_connect(hook_without)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_connect(hook_with_a_result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    router.on_connect()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def clients(tls: ssl.SSLContext) -> None:
    await connect("localhost", "8000")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect(("localhost", 8000))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await connect(b"localhost", 8000)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect("localhost")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await connect("localhost", 8000, Router())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await connect("localhost", 8000, router=Router)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await connect("localhost", 8000, router=Repeat)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await connect("localhost", 8000, ssl="certificate.pem")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect("localhost", 8000, limits=1024)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect("localhost", 8000, drain_timeout="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect_unix(8000)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect_unix(b"/run/amp")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    await connect_unix("/run/amp", ssl=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    connection: Connection[Session] = await connect("localhost", 8000)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    stateful: Connection = await connect("localhost", 8000, router=Router(state=Session))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    connect("localhost", 8000).call(Ping())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    print((await connect("localhost", 8000)).state.user)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    with connect("localhost", 8000):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(connection, stateful)


async def servers() -> None:
    await serve(Session, "localhost", 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await serve(host="localhost", port=8000)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await serve(Router(), 8000, "localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await serve(Router(), "localhost", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await serve(Router(), "localhost", 0, ssl=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await serve_unix(Router(), 8000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(serve(Router(), "localhost", 0).addresses)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    server: Server = await serve(Router(state=Session), "localhost", 0)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(server.addresses[0].host)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    server.addresses = []  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    server.connections.append(None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await server.connections  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    typed_amp.run(Router, "localhost", 8000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def connections(connection: Connection) -> None:
    await connection.close()  # type: ignore[func-returns-value, misc]  # pyright: ignore[reportGeneralTypeIssues]
    connection.close(timeout=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    connection.close(1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    connection.is_closed()  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    connection.is_closed = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(connection.remote_address[0])  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
    print(connection.peer_certificate["subject"])  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
    await connection.wait_closed(timeout=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with connection:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def changes_of_what_is_spoken(connection: Connection, tls: ssl.SSLContext) -> None:
    await connection.start_tls("certificate.pem")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.start_tls(tls, "localhost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.start_tls(command=Ping())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.switch_protocol(Ping(), asyncio.Protocol)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.switch_protocol(SwitchToChat(room="a"), asyncio.Protocol())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.switch_protocol(SwitchToChat(room="a"), Session)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    await connection.switch_protocol(SwitchToChat(room="a"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.call_box(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await connection.call_box("Repeat", {"text": "ab"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    text: str = (await connection.call_box("Repeat"))[b"text"]  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)


async def gives_no_context(command: StartTLS) -> None: ...


async def gives_a_protocol_class(command: SwitchToChat) -> type[asyncio.Protocol]:
    return asyncio.Protocol


async def gives_texts(box: Box) -> dict[str, str]:
    return {}


async def takes_a_command(command: Repeat) -> Box:
    return {}


async def takes_another_connection(box: Box, connection: Connection[Session]) -> Box:
    return box


def responders_that_change_what_is_spoken() -> None:
    router = Router()
    router.responder(StartTLS)(gives_no_context)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.responder(SwitchToChat)(gives_a_protocol_class)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.fallback(gives_texts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.fallback(takes_a_command)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    router.fallback(takes_another_connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def pairs_in_memory() -> None:
    await connection_pair(Router())  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    connection_pair()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    connection_pair(Router(), Router())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    async with connection_pair(Router(state=Session)) as (client, server):
        print(client.state.user)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        plain: Connection = server  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        print(plain)


def errors_with_fields() -> None:
    OutOfStock()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OutOfStock("A1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OutOfStock(sku=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OutOfStock(sku="A1", left="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    OutOfStock(sku="A1", right=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Discontinued(sku="A1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(OutOfStock(sku="A1").right)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    text: str = OutOfStock(sku="A1").left  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
    RemoteAmpError("UNKNOWN")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def commands_of_ones_own() -> None:
    # Wrong class keywords are missing here: where a class has a metaclass, as pydantic's have,
    # checkers don't look at them. They are a `DefinitionError` when the class is made.
    class WrongDefault(Command):
        times: int = "1"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    class WrongErrorDefault(CommandError):
        left: int = "0"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    class TwoAnswers(Command[RepeatResult, Sum]):  # type: ignore[type-arg]  # pyright: ignore[reportInvalidTypeArguments]
        pass

    Key(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Key()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def large_values() -> None:
    Large(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Large(slice_bytes="10000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Large(max_bytes=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Large(compressed="zlib")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Large(numbered_from=0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class TextCodec(Codec[str]):
    def encode(self, value: int) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return b""

    def decode(self, data: bytes) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return data


class HalfCodec(Codec[str]):
    def encode(self, value: str) -> bytes:
        return b""


class StrCodec(Codec[str]):
    def encode(self, value: str) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return value

    def decode(self, data: str) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return data


def codecs() -> None:
    HexCodec().encode("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    HexCodec().decode("61")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: Codec[str] = HexCodec()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
    HalfCodec()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    Codec()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


def boxes() -> None:
    encode_box({"key": b"value"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    encode_box({b"key": "value"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    encode_box([(b"key", b"value")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BoxReader().feed("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BoxReader(limits=1024)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BoxReader(None, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BoxReader(1024)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = BoxReader().feed(b"")[0][b"key"]  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
    Limits(1024)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Limits(max_keys="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limits(max_boxes=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Limits().max_keys = 10  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def clients_that_come_back(client: Client, router: Router[Session]) -> None:
    async def log_in(connection: Connection[Session]) -> None: ...

    def not_async(connection: Connection) -> None: ...

    Client("localhost", "8000")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Client([8000])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    Client("localhost", 8000, on_connect=log_in)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client("localhost", 8000, on_connect=not_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client("localhost", 8000, backoff=0.1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    Client("localhost", 8000, tries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Backoff(first="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.call(Repeat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.call_remote(Repeat, text=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.state.status = None  # type: ignore[misc, assignment]  # pyright: ignore[reportAttributeAccessIssue]
    _ = (await client.call(Repeat(text="ab"))).total  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
