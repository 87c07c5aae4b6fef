"""Guards: what they let pass, what they refuse, and where they hold."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.peers import HOST, LogCapture, joined_by, raw_client_of
from tests.peers import raw_client as raw_client_to
from typed_amp import (
    Box,
    Command,
    Connection,
    DefinitionError,
    NotAllowedError,
    RemoteAmpError,
    Router,
    StartTLS,
    SwitchProtocol,
    UnhandledCommandError,
    UnknownRemoteError,
    serve,
)
from typed_amp.testing import connection_pair


class Session:
    user: str | None = None


class Login(Command):
    user: str


class Balance(Command):
    account: int


class Transfer(Command, requires_answer=False):
    account: int


class Help(Command):
    pass


class Routers:
    """Those of a bank: public, private, and the two together."""

    def __init__(self) -> None:
        self.public: Router[Session] = Router(state=Session)
        self.private: Router[Session] = Router(state=Session)
        self.bank: Router[Session] = Router(state=Session)
        self.bank.include(self.public)
        self.bank.include(self.private)
        self.done: list[str] = []

        @self.public.responder(Login)
        async def login(command: Login, connection: Connection[Session]) -> None:
            connection.state.user = command.user

        @self.private.responder(Balance)
        async def balance(command: Balance) -> None:
            self.done.append("Balance")

        @self.private.responder(Transfer)
        async def transfer(command: Transfer) -> None:
            self.done.append("Transfer")

        self.private.guard(logged_in)


def logged_in(connection: Connection[Session]) -> None:
    if connection.state.user is None:
        raise NotAllowedError("log in first")


REFUSED = {b"_error_code": b"NOT_ALLOWED", b"_error_description": b"log in first"}


async def test_nothing_but_the_login_until_logged_in(log: LogCapture) -> None:
    routers = Routers()
    async with connection_pair(routers.bank) as (client, _):
        with pytest.raises(NotAllowedError) as caught:
            await client.call(Balance(account=1))
        assert (caught.value.code, caught.value.description) == ("NOT_ALLOWED", "log in first")
        assert isinstance(caught.value, PermissionError)
        assert isinstance(caught.value, RemoteAmpError)
        await client.call(Login(user="ann"))
        await client.call(Balance(account=1))
    assert routers.done == ["Balance"]
    assert not log.lines(logging.INFO)


async def test_arguments_of_a_command_that_is_refused_are_never_read() -> None:
    async with raw_client_of(Routers().bank) as (peer, _):
        ask = {b"_ask": b"1", b"_command": b"Balance", b"account": b"no number"}
        assert await peer.ask(ask) == {b"_error": b"1", **REFUSED}
        await peer.ask({b"_ask": b"2", b"_command": b"Login", b"user": b"ann"})
        assert (await peer.ask(ask))[b"_error_code"] == b"INVALID_ARGUMENTS"


async def test_a_command_that_wants_no_answer_is_not_carried_out_either(log: LogCapture) -> None:
    routers = Routers()
    async with connection_pair(routers.bank) as (client, _):
        await client.call(Transfer(account=1))
        await client.call(Login(user="ann"))
        assert routers.done == []
        await client.call(Transfer(account=1))
        await client.call(Balance(account=1))
        assert routers.done == ["Transfer", "Balance"]
    assert not log.lines(logging.INFO)


async def test_one_connection_is_not_let_in_by_another() -> None:
    routers = Routers()
    async with (
        serve(routers.bank, HOST, 0) as server,
        raw_client_to(server) as ann,
        raw_client_to(server) as bob,
    ):
        await ann.ask({b"_ask": b"1", b"_command": b"Login", b"user": b"ann"})
        ask = {b"_ask": b"2", b"_command": b"Balance", b"account": b"1"}
        assert await ann.ask(ask) == {b"_answer": b"2"}
        assert await bob.ask(ask) == {b"_error": b"2", **REFUSED}


async def test_commands_that_waited_for_the_hooks_are_guarded_too() -> None:
    routers = Routers()

    @routers.bank.on_connect
    async def connected(connection: Connection[Session]) -> None:
        await connection.call(Help())
        connection.state.user = "a friend of the house"

    async with raw_client_of(routers.bank) as (peer, _):
        await peer.send({b"_ask": b"1", b"_command": b"Balance", b"account": b"1"})
        greeting = await peer.receive()
        assert await peer.ask({b"_answer": greeting[b"_ask"]}) == {b"_answer": b"1"}
    assert routers.done == ["Balance"]


# -- Where guards hold ----------------------------------------------------------------------------


class Bell:
    """A guard that says where it rang, and lets pass."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    def __call__(self, connection: Connection[Any]) -> None:
        self._log.append(self._name)


async def rung(router: Router[Any], log: list[str], command: Command[Any]) -> list[str]:
    """Give the guards that a command meets, in their order."""
    log.clear()
    async with connection_pair(router) as (client, _):
        await client.call(command)
    return list(log)


async def help_(command: Help) -> None:
    pass


async def log_in(command: Login) -> None:
    pass


async def test_guards_run_from_the_outside_in_and_in_the_order_of_their_registration() -> None:
    log: list[str] = []
    inner, middle, outer = Router(), Router(), Router()
    inner.responder(Help)(help_)
    middle.responder(Login)(log_in)
    outer.include(middle)
    middle.include(inner)
    for router, name in ((inner, "inner"), (middle, "middle"), (outer, "outer")):
        router.guard(Bell(log, f"{name} 1"))
        router.guard(Bell(log, f"{name} 2"))

    upper = ["outer 1", "outer 2", "middle 1", "middle 2"]
    assert await rung(outer, log, Login(user="ann")) == upper
    assert await rung(outer, log, Help()) == [*upper, "inner 1", "inner 2"]
    assert await rung(middle, log, Login(user="ann")) == ["middle 1", "middle 2"]
    assert await rung(inner, log, Help()) == ["inner 1", "inner 2"]


async def test_the_first_guard_that_refuses_is_the_last_that_is_asked() -> None:
    log: list[str] = []
    router = Routers().private
    router.guard(Bell(log, "after"))
    async with connection_pair(router) as (client, _):
        with pytest.raises(NotAllowedError):
            await client.call(Balance(account=1))
    assert log == []


async def test_what_is_registered_and_included_later_is_guarded_from_then_on() -> None:
    log: list[str] = []
    inner, outer = Router(), Router()
    inner.responder(Help)(help_)
    assert await rung(inner, log, Help()) == []
    outer.guard(Bell(log, "outer"))
    outer.include(inner)
    assert await rung(outer, log, Help()) == ["outer"]
    inner.guard(Bell(log, "inner"))
    assert await rung(outer, log, Help()) == ["outer", "inner"]
    assert await rung(inner, log, Help()) == ["inner"]
    inner.responder(Login)(log_in)
    assert await rung(outer, log, Login(user="ann")) == ["outer", "inner"]


async def test_an_open_connection_is_guarded_by_a_guard_that_comes_later() -> None:
    router = Router()
    router.responder(Help)(help_)

    def closed(connection: Connection) -> None:
        raise NotAllowedError("closed for today")

    async with connection_pair(router) as (client, _):
        await client.call(Help())
        router.guard(closed)
        with pytest.raises(NotAllowedError, match="closed for today"):
            await client.call(Help())


async def test_no_way_to_a_responder_goes_around_a_guard_of_another() -> None:
    log: list[str] = []
    inner, guarded, outer = Router(), Router(), Router()
    inner.responder(Help)(help_)
    inner.guard(Bell(log, "inner"))
    guarded.guard(Bell(log, "guarded"))
    outer.include(inner)
    assert await rung(outer, log, Help()) == ["inner"]
    guarded.include(inner)
    outer.include(guarded)
    outer.include(guarded)
    assert await rung(outer, log, Help()) == ["inner", "guarded"]


async def test_the_fallback_is_guarded_as_responders_are() -> None:
    log: list[str] = []
    inner, outer = Router(), Router()

    @inner.fallback
    async def anything(box: Box) -> Box:
        return {}

    outer.include(inner)
    async with connection_pair(outer) as (client, _):
        await client.call_box("Anything")
        inner.guard(Bell(log, "inner"))
        outer.guard(Bell(log, "outer"))
        await client.call_box("Anything")
        await client.call_box("Anything")
    assert log == ["outer", "inner"] * 2


async def test_a_command_that_nobody_answers_is_unhandled_and_asks_no_guard() -> None:
    routers = Routers()
    async with connection_pair(routers.bank) as (client, _):
        with pytest.raises(UnhandledCommandError):
            await client.call(Help())


# -- What guards are given, and what else they do -------------------------------------------------


async def test_a_guard_may_take_the_name_of_the_command() -> None:
    seen: list[tuple[Any, str]] = []
    router = Router()

    @router.guard
    def only_help(connection: Connection, name: str) -> None:
        seen.append((connection, name))
        if name != "Help":
            raise NotAllowedError(f"no {name} here")

    @router.fallback
    async def anything(box: Box) -> Box:
        return {}

    async with connection_pair(router) as (client, server):
        await client.call(Help())
        for name, text in ((b"Hilfe, \xc4\x85", "no Hilfe, ą here"), (b"\xff", r"no \xff here")):
            with pytest.raises(NotAllowedError) as caught:
                await client.call_box(name)
            assert caught.value.description == text
        assert seen[0] == (server, "Help")


def test_the_decorator_gives_the_function_back() -> None:
    assert Router(state=Session).guard(logged_in) is logged_in


def broken(connection: Connection[Any]) -> None:
    raise KeyError("a secret")


def says_no(connection: Connection[Any]) -> Any:
    return False


def says_yes(connection: Connection[Any]) -> Any:
    return True


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (broken, "KeyError: 'a secret'"),
        (says_no, 'says_no ("{file}", line {line}) returned a bool'),
        (says_yes, 'says_yes ("{file}", line {line}) returned a bool'),
    ],
)
async def test_what_a_guard_does_otherwise_is_a_refusal_and_in_the_log(
    guard: Any, reason: str, log: LogCapture
) -> None:
    routers = Routers()
    routers.private.guard(guard)
    async with connection_pair(routers.bank) as (client, _):
        await client.call(Login(user="ann"))
        with pytest.raises(UnknownRemoteError) as caught:
            await client.call(Balance(account=1))
        assert str(caught.value) == "UNKNOWN: Unknown Error"
        await client.call(Login(user="ann"))
    assert routers.done == []
    line = log.only_line()
    assert "a guard of Balance failed" in line
    assert "Traceback" in line
    place = {"file": inspect.getsourcefile(guard), "line": inspect.getsourcelines(guard)[1]}
    assert reason.format(**place) in line


async def an_async_function(connection: Connection[Any]) -> None:
    pass


def a_generator(connection: Connection[Any]) -> Any:
    yield


class AsyncObject:
    async def __call__(self, connection: Connection[Any]) -> None:
        pass


def takes_nothing() -> None:
    pass


def takes_three(connection: Connection[Any], name: str, box: Box) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (an_async_function, "must be a plain function"),
        (functools.partial(an_async_function), "would be overtaken by those that came after it"),
        (AsyncObject(), "must be a plain function"),
        (a_generator, "is async or a generator"),
        (takes_nothing, "takes the connection, or the connection and the command's name, but"),
        (takes_three, "takes the connection, or the connection and the command's name, but"),
        (AsyncObject, "is a class"),
        ("logged_in", "must be a function"),
    ],
)
def test_what_may_not_be_a_guard(function: Any, problem: str) -> None:
    router: Any = Router()
    router.responder(Help)(help_)
    with pytest.raises(DefinitionError, match=r"^the guard ") as caught:
        router.guard(function)
    assert problem in str(caught.value)
    assert router.find(b"Help").guards == ()


# -- Commands that change what is spoken ----------------------------------------------------------


class Chat(SwitchProtocol):
    pass


@pytest.mark.parametrize("kind", ["tcp", "memory"])
async def test_tls_is_guarded_like_any_other_command(kind: str, certificates: Certificates) -> None:
    routers = Routers()

    @routers.private.responder(StartTLS)
    async def start_tls(command: StartTLS) -> Any:
        return certificates.server

    async with joined_by(kind, routers.bank) as (client, _):
        context = certificates.unnamed_client()
        with pytest.raises(NotAllowedError, match="log in first"):
            await client.start_tls(context)
        await client.call(Login(user="ann"))
        await client.start_tls(context)
        await client.call(Balance(account=1))
        assert client.peer_certificate


async def test_another_protocol_is_guarded_like_any_other_command() -> None:
    routers = Routers()

    @routers.private.responder(Chat)
    async def chat(command: Chat) -> asyncio.Protocol:
        return asyncio.Protocol()

    async with joined_by("tcp", routers.bank) as (client, _):
        with pytest.raises(NotAllowedError, match="log in first"):
            await client.switch_protocol(Chat(), asyncio.Protocol)
        await client.call(Login(user="ann"))
        transport, _ = await client.switch_protocol(Chat(), asyncio.Protocol)
        transport.close()


# -- Refusals of responders -----------------------------------------------------------------------


async def test_a_responder_may_refuse_without_declaring_it(log: LogCapture) -> None:
    router = Router()

    @router.responder(Balance)
    async def balance(command: Balance) -> None:
        raise NotAllowedError("not your account")

    async with connection_pair(router) as (client, _):
        with pytest.raises(NotAllowedError, match="not your account"):
            await client.call(Balance(account=1))
    assert not log.lines(logging.INFO)


async def test_a_refusal_that_a_responder_received_is_no_refusal_of_its_own(
    log: LogCapture,
) -> None:
    router = Router()

    async with connection_pair(Routers().bank) as (upstream, _):

        @router.responder(Help)
        async def help_by_others(command: Help) -> None:
            await upstream.call(Balance(account=1))

        async with connection_pair(router) as (client, _):
            with pytest.raises(UnknownRemoteError):
                await client.call(Help())
    assert "NotAllowedError: NOT_ALLOWED: log in first" in log.only_line()


async def test_a_refusal_passes_a_proxy_unchanged() -> None:
    router = Router()

    async with connection_pair(Routers().bank) as (upstream, _):

        @router.fallback
        async def forward(box: Box) -> Box:
            return await upstream.call_box(box[b"_command"], box)

        async with connection_pair(router) as (client, _):
            with pytest.raises(NotAllowedError, match="log in first"):
                await client.call(Balance(account=1))


async def test_what_the_command_declares_comes_first() -> None:
    class Declared(Command, errors={PermissionError: "DENIED"}):
        pass

    router = Router()

    @router.responder(Declared)
    async def declared(command: Declared) -> None:
        raise NotAllowedError("no")

    async with connection_pair(router) as (client, _):
        with pytest.raises(PermissionError) as caught:
            await client.call(Declared())
        assert type(caught.value) is PermissionError
