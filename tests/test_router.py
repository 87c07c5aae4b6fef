"""Routers: registering responders, finding them, including other routers."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel

from tests.typed_values import Page
from typed_amp import Box, Command, Connection, DefinitionError, Router, StartTLS
from typed_amp.testing import connection_pair

T = TypeVar("T")


class Text(BaseModel):
    text: str


class Repeat(Command[Text]):
    text: str


class Ping(Command):
    pass


class Fetch(Command[Page[T]], Generic[T]):
    pass


class Session:
    user = "nobody"


async def ping(command: Ping) -> None:
    pass


async def other_ping(command: Ping) -> None:
    pass


def line_of(function: Any) -> str:
    return f'"{inspect.getsourcefile(function)}", line {inspect.getsourcelines(function)[1]}'


def register(router: Router[Any], function: Any, command: Any = Ping) -> Any:
    """Register with no type checker looking."""
    return router.responder(command)(function)


async def answer(function: Any, *, router: Router[Any] | None = None) -> Text:
    """Call `Repeat` over a connection whose other end has this responder."""
    router = router or Router()
    register(router, function, Repeat)
    async with connection_pair(router) as (client, _):
        return await client.call(Repeat(text="ab"))


# What may be a responder.


class Repeater:
    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    async def method(self, command: Repeat) -> Text:
        return Text(text=command.text + self.suffix)

    async def method_with_connection(self, command: Repeat, connection: Connection) -> Text:
        assert not connection.is_closed
        return Text(text=command.text + self.suffix)

    async def __call__(self, command: Repeat) -> Text:
        return await self.method(command)

    @classmethod
    async def of_class(cls, command: Repeat) -> Text:
        return await cls("!").method(command)

    @staticmethod
    async def static(command: Repeat) -> Text:
        return await Repeater("!").method(command)


async def with_suffix(suffix: str, command: Repeat) -> Text:
    return Text(text=command.text + suffix)


async def with_defaults(command: Repeat, suffix: str = "!", *, more: str = "") -> Text:
    return Text(text=command.text + suffix + more)


async def with_anything(*arguments: Any, **keywords: Any) -> Text:
    [command] = arguments
    return Text(text=command.text + "!")


def traced(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(command: Any) -> Any:
        return await function(command)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        Repeater("!").method,
        Repeater("!").method_with_connection,
        Repeater("!"),
        Repeater.of_class,
        Repeater.static,
        functools.partial(with_suffix, "!"),
        functools.partial(functools.partial(with_suffix), "!"),
        functools.partial(Repeater("!")),
        with_defaults,
        with_anything,
        traced(Repeater("!")),
    ],
)
async def test_what_may_be_a_responder(function: Any) -> None:
    assert await answer(function) == Text(text="ab!")


class Shouter(Repeater):
    async def method(self, command: Repeat) -> Text:
        return Text(text=command.text.upper() + self.suffix)


class LoudShouter(Shouter):
    pass


@pytest.mark.parametrize(
    ("service", "text"), [(Repeater, "ab!"), (Shouter, "AB!"), (LoudShouter, "AB!")]
)
async def test_methods_are_overridden_and_inherited_as_methods_are(
    service: type[Repeater], text: str
) -> None:
    assert await answer(service("!").method) == Text(text=text)
    assert await answer(service("!")) == Text(text=text)


async def test_a_responder_of_two_parameters_gets_the_connection() -> None:
    router = Router(state=Session)

    async def function(command: Repeat, connection: Connection[Session]) -> Text:
        return Text(text=connection.state.user)

    assert await answer(function, router=router) == Text(text="nobody")


def test_the_decorator_gives_the_function_back() -> None:
    router = Router()
    assert router.responder(Ping)(ping) is ping
    responder = router.find(b"Ping")
    assert responder is not None
    assert responder.function is ping
    assert not responder.takes_connection


def test_a_command_without_a_responder_is_not_found() -> None:
    assert Router().find(b"Ping") is None


# What may not.


def not_async(command: Ping) -> None:
    pass


async def a_generator(command: Ping) -> Any:
    yield 1


async def no_parameters() -> None:
    pass


async def three_parameters(command: Ping, connection: Connection, more: int) -> None:
    pass


async def keyword_needed(command: Ping, *, more: int) -> None:
    pass


class NotAsync:
    def __call__(self, command: Ping) -> None:
        pass


class NeedsStore:
    def __init__(self, store: Any) -> None:
        pass

    async def __call__(self, command: Ping) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (a_generator, "must be an async function or a plain one"),
        (functools.partial(a_generator), "must be an async function or a plain one"),
        (5, "must be a function, not 5"),
        (None, "must be a function, not None"),
        (no_parameters, "takes the command, or the command and the connection, but"),
        (three_parameters, "takes the command, or the command and the connection, but"),
        (keyword_needed, "written as (command: "),
        (functools.partial(no_parameters), "takes the command"),
        (Repeater.method, "register the method of an instance, not of the class"),
        (Repeater.method_with_connection, "register the method of an instance"),
        (NeedsStore, "a function|instance"),
    ],
)
def test_what_may_not_be_a_responder(function: Any, problem: str) -> None:
    router = Router()
    with pytest.raises(DefinitionError) as caught:
        register(router, function)

    message = str(caught.value)
    assert message.startswith("the responder of Ping ")
    assert any(part in message for part in problem.split("|"))
    assert router.find(b"Ping") is None


@pytest.mark.parametrize("function", [a_generator, three_parameters, Repeater.method])
def test_the_place_to_mend_is_named(function: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        register(Router(), function)

    assert f"{function.__module__}.{function.__qualname__}" in str(caught.value)
    assert line_of(function) in str(caught.value)


def test_a_function_without_a_source_is_named_all_the_same() -> None:
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec("def function(): pass", namespace)
    with pytest.raises(DefinitionError, match=r"nowhere\.function is written as"):
        register(Router(), namespace["function"])


@pytest.mark.parametrize("command", [None, int, "Ping", Ping(), BaseModel], ids=str)
def test_what_is_no_command_is_refused(command: Any) -> None:
    with pytest.raises(DefinitionError, match=r"^responder\(\) takes a subclass of Command, not "):
        Router().responder(command)


def test_a_command_that_cant_be_used_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^Fetch can't be used yet"):
        Router().responder(Fetch)


def test_each_parametrization_has_its_responder() -> None:
    router = Router()

    async def integers(command: Fetch[int]) -> Page[int]:
        return Page[int](items=[1])

    async def texts(command: Fetch[str]) -> Page[str]:
        return Page[str](items=["a"])

    router.responder(Fetch[int])(integers)
    router.responder(Fetch[str])(texts)

    assert found(router, b"Fetch[int]") is integers
    assert found(router, b"Fetch[str]") is texts


def found(router: Router[Any], name: bytes = b"Ping") -> Any:
    responder = router.find(name)
    return None if responder is None else responder.function


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ping, other_ping),
        (functools.partial(ping), other_ping),
        (ping, ping),
    ],
)
def test_two_responders_of_one_command_are_both_named(first: Any, second: Any) -> None:
    router = Router()
    register(router, first)
    with pytest.raises(DefinitionError) as caught:
        register(router, second)

    message = str(caught.value)
    assert message.startswith("Ping has two responders: tests.test_router.ping (")
    assert line_of(ping) in message
    assert line_of(second) in message
    assert found(router) is first


def test_the_second_responder_may_be_an_object() -> None:
    router = Router()
    router.responder(Ping)(ping)
    with pytest.raises(DefinitionError) as caught:
        register(router, Repeater("!"))
    assert f"tests.test_router.Repeater ({line_of(Repeater)})" in str(caught.value)


def test_two_commands_of_one_name_are_refused() -> None:
    class Pong(Command, name="Ping"):
        pass

    async def pong(command: Pong) -> None:
        pass

    router = Router()
    router.responder(Ping)(ping)
    with pytest.raises(DefinitionError, match="Ping has two responders"):
        router.responder(Pong)(pong)


# Including other routers.


def test_an_included_router_gives_what_it_has_and_what_it_gets() -> None:
    inner, outer = Router(), Router()
    inner.responder(Ping)(ping)
    outer.include(inner)
    register(inner, with_anything, Repeat)

    assert found(outer) is ping
    assert found(outer, b"Repeat") is with_anything


def test_an_including_router_gives_nothing_back() -> None:
    inner, outer = Router(), Router()
    outer.include(inner)
    outer.responder(Ping)(ping)
    assert found(inner) is None


def test_inclusion_goes_through_many_routers() -> None:
    inner, middle, outer = Router(), Router(), Router()
    outer.include(middle)
    middle.include(inner)
    inner.responder(Ping)(ping)
    assert found(outer) is ping


def test_a_router_may_be_included_twice_and_by_two_ways() -> None:
    inner, left, right, outer = Router(), Router(), Router(), Router()
    inner.responder(Ping)(ping)
    for side in (left, right):
        side.include(inner)
        side.include(inner)
        outer.include(side)
    register(inner, with_anything, Repeat)

    assert found(outer) is ping
    assert found(outer, b"Repeat") is with_anything


def test_two_responders_by_inclusion_are_both_named_and_nothing_changes() -> None:
    inner, outer = Router(), Router()
    register(inner, with_anything, Repeat)
    inner.responder(Ping)(ping)
    outer.responder(Ping)(other_ping)

    with pytest.raises(DefinitionError) as caught:
        outer.include(inner)

    assert line_of(ping) in str(caught.value)
    assert line_of(other_ping) in str(caught.value)
    assert found(outer, b"Repeat") is None
    register(inner, with_defaults, Fetch[int])
    assert found(outer, b"Fetch[int]") is None


def test_a_later_responder_of_an_included_router_may_clash_too() -> None:
    inner, outer = Router(), Router()
    outer.include(inner)
    outer.responder(Ping)(other_ping)

    with pytest.raises(DefinitionError, match="Ping has two responders"):
        inner.responder(Ping)(ping)

    assert found(inner) is None
    assert found(outer) is other_ping


def test_a_router_cant_include_itself() -> None:
    inner, middle, outer = Router(), Router(), Router()
    outer.include(middle)
    middle.include(inner)

    for router in (inner, middle):
        with pytest.raises(DefinitionError, match="can't include itself"):
            router.include(outer)
    with pytest.raises(DefinitionError, match="can't include itself"):
        outer.include(outer)


class OtherSession:
    pass


def test_a_router_of_another_state_cant_be_included() -> None:
    inner = Router(state=OtherSession)
    including: list[Router[Any]] = [Router(state=Session), Router()]
    for router, state in zip(including, ["tests.test_router.Session", "nothing"], strict=True):
        with pytest.raises(DefinitionError) as caught:
            router.include(inner)
        assert line_of(OtherSession) in str(caught.value)
        assert f"this one with {state}" in str(caught.value)


def test_a_router_of_the_same_state_or_of_none_can_be_included() -> None:
    same, none, outer = Router(state=Session), Router(), Router(state=Session)
    none.responder(Ping)(ping)
    outer.include(same)
    outer.include(none)
    assert found(outer) is ping


# State.


def test_each_connection_gets_a_state_of_its_own() -> None:
    router = Router(state=Session)
    one, other = router.new_state(), router.new_state()
    assert isinstance(one, Session)
    assert one is not other


def test_a_state_may_be_made_by_any_function() -> None:
    assert Router(state=lambda: 5).new_state() == 5


def test_without_a_state_it_is_none() -> None:
    router: Router[Any] = Router()
    assert router.new_state() is None


# Hooks.


def hooks(log: list[str], name: str) -> Router:
    router = Router()

    @router.on_connect
    async def connected(connection: Connection) -> None:
        log.append(f"{name} connected")

    @router.on_disconnect
    async def disconnected(connection: Connection) -> None:
        log.append(f"{name} disconnected")

    return router


async def test_hooks_of_included_routers_run_within_those_that_include_them() -> None:
    log: list[str] = []
    outer, first, second = hooks(log, "outer"), hooks(log, "first"), hooks(log, "second")
    outer.include(first)
    outer.include(second)

    async with connection_pair(outer) as (_, server):
        pass
    await server.wait_closed()

    begun = ["first connected", "second connected", "outer connected"]
    assert log[:3] == begun
    assert log[3] == "outer disconnected"
    assert sorted(log[4:]) == ["first disconnected", "second disconnected"]


async def test_what_was_connected_last_is_disconnected_first() -> None:
    log: list[str] = []
    outer, first, second = hooks(log, "outer"), hooks(log, "first"), hooks(log, "second")
    outer.include(first)
    outer.include(second)

    async with connection_pair(outer) as (_, server):
        pass
    await server.wait_closed()

    assert log[4:] == ["second disconnected", "first disconnected"]


async def test_hooks_run_in_the_order_of_their_registration() -> None:
    log: list[int] = []
    router = Router()
    for number in range(3):

        @router.on_connect
        async def connected(connection: Connection, number: int = number) -> None:
            log.append(number)

    async with connection_pair(router):
        assert log == [0, 1, 2]


async def test_hooks_of_a_router_that_is_included_by_two_ways_run_once() -> None:
    log: list[str] = []
    inner, left, right, outer = hooks(log, "inner"), Router(), Router(), Router()
    for side in (left, right):
        side.include(inner)
        outer.include(side)

    async with connection_pair(outer) as (_, server):
        pass
    await server.wait_closed()

    assert log == ["inner connected", "inner disconnected"]


@pytest.mark.parametrize("kind", ["on_connect", "on_disconnect"])
@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (not_async, "must be an async function"),
        (no_parameters, "takes the connection, but"),
        (three_parameters, "takes the connection, but"),
        (Repeater.method, "register the method of an instance"),
    ],
)
def test_what_may_not_be_a_hook(kind: str, function: Any, problem: str) -> None:
    router: Any = Router()
    with pytest.raises(DefinitionError) as caught:
        getattr(router, kind)(function)

    assert str(caught.value).startswith(f"the {kind} hook ")
    assert problem in str(caught.value)
    assert line_of(function) in str(caught.value)
    assert not [*router.connect_hooks(), *router.disconnect_hooks()]


def test_the_hooks_decorator_gives_the_function_back() -> None:
    router = Router()

    async def hook(connection: Connection) -> None:
        pass

    assert router.on_connect(hook) is hook
    assert router.on_disconnect(hook) is hook


async def test_a_router_is_shared_and_may_grow_while_it_is_in_use() -> None:
    router = Router()
    async with connection_pair(router) as (first, _), connection_pair(router) as (second, _):
        register(router, with_anything, Repeat)
        assert await first.call(Repeat(text="a")) == await second.call(Repeat(text="a"))


# The fallback.


async def answer_anything(box: Box) -> Box:
    return box


async def answer_anything_too(box: Box, connection: Connection) -> Box:
    return box


def test_a_fallback_is_found_where_nothing_else_is() -> None:
    router = Router()
    register(router, with_anything, Repeat)
    assert router.find(b"Other") is None
    assert router.fallback(answer_anything) is answer_anything

    found, other = router.find(b"Repeat"), router.find(b"Other")
    assert found is not None
    assert found.function is with_anything
    assert other is not None
    assert other.function is answer_anything
    assert not other.takes_connection


def test_a_fallback_is_included_before_and_after_it_is_registered() -> None:
    for is_included_first in (True, False):
        inner, outer = Router(), Router()
        if is_included_first:
            outer.include(inner)
        inner.fallback(answer_anything_too)
        outer.include(inner)
        found = outer.find(b"Any")
        assert found is not None
        assert found.takes_connection


def test_there_is_one_fallback() -> None:
    inner, outer = Router(), Router()
    inner.fallback(answer_anything)
    outer.fallback(answer_anything_too)
    with pytest.raises(DefinitionError, match="there are two fallbacks"):
        outer.include(inner)
    with pytest.raises(DefinitionError, match="there are two fallbacks") as caught:
        inner.fallback(answer_anything_too)
    assert line_of(answer_anything) in str(caught.value)


@pytest.mark.parametrize("function", [not_async, no_parameters, three_parameters])
def test_what_may_not_be_a_fallback(function: Any) -> None:
    router: Any = Router()
    with pytest.raises(DefinitionError, match="the fallback "):
        router.fallback(function)
    assert router.find(b"Any") is None


def test_a_router_knows_whether_it_changes_what_a_connection_speaks() -> None:
    inner, outer = Router(), Router()
    outer.include(inner)
    assert not outer.has_transitions

    @inner.responder(StartTLS)
    async def start_tls(command: StartTLS) -> Any:
        raise NotImplementedError

    assert inner.has_transitions
    assert outer.has_transitions
    other = Router()
    other.include(inner)
    assert other.has_transitions
