"""Routers: which function answers which command.

Rule of this module: what can't work is refused when it is registered, with the places in the code
that are to be mended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, cast, overload

from typing_extensions import TypeVar

from typed_amp.box import printable
from typed_amp.errors import DefinitionError
from typed_amp.functions import check_function, is_async, place_of
from typed_amp.guards import Guard
from typed_amp.plain_functions import run_in_thread
from typed_amp.raw import RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from typed_amp.box import Box
    from typed_amp.command import CommandType
    from typed_amp.connection import Connection
    from typed_amp.signature import Signature

__all__ = ["ConnectionHook", "Responder", "ResponderDecorator", "Router"]

C = TypeVar("C")
R = TypeVar("R")
S = TypeVar("S", default=None)

Place: TypeAlias = Literal["loop", "thread", "worker"]
PlainRunner: TypeAlias = "Callable[..., Coroutine[Any, Any, Any]]"


class ConnectionHook(Protocol[S]):
    """What `Router.on_connect` and `Router.on_disconnect` take."""

    def __call__(self, connection: Connection[S], /) -> Coroutine[Any, Any, None]:
        """Run for a connection that has come, or gone."""
        ...


class ResponderDecorator(Protocol[C, R, S]):
    """What `Router.responder` gives: it registers a function and returns it unchanged.

    The function is async, or a plain one; see there.
    """

    @overload
    def __call__(
        self, function: Callable[[C], Coroutine[Any, Any, R]], /
    ) -> Callable[[C], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self, function: Callable[[C, Connection[S]], Coroutine[Any, Any, R]], /
    ) -> Callable[[C, Connection[S]], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, function: Callable[[C], R], /) -> Callable[[C], R]: ...

    @overload
    def __call__(
        self, function: Callable[[C, Connection[S]], R], /
    ) -> Callable[[C, Connection[S]], R]: ...


@dataclass(frozen=True, slots=True)
class Responder:
    """A registered function.

    Attributes:
        signature: the command it answers, or all of them.
        function: the function; async, once `Router.find` has given it.
        takes_connection: whether it wants the connection beside the command.
        guards: what must let a command pass before it is looked at, in their order.
        runs_in: where it runs: on the event loop, as an async function does; in a thread; or
            wherever plain functions run that say nothing of it.
    """

    signature: Signature[Any, Any]
    function: Callable[..., Any]
    takes_connection: bool
    guards: tuple[Guard, ...] = ()
    runs_in: Place = "loop"


class Router(Generic[S]):
    """A set of responders, one for a command.

    ::

        router = Router()

        @router.responder(Repeat)
        async def repeat(command: Repeat) -> RepeatResult: ...

    It may be shared by any number of servers and connections, and may grow while they run. Twisted
    has `CommandLocator` for this.

    Args:
        state: makes the `Connection.state` of each connection, when that begins; a class without
            required arguments, for example. Left out, the state is None.
    """

    @overload
    def __init__(self: Router[None]) -> None: ...

    @overload
    def __init__(self, *, state: Callable[[], S]) -> None: ...

    def __init__(self, *, state: Callable[[], S] | None = None) -> None:
        self._state = state
        self._responders: dict[bytes, Responder] = {}
        self._connect_hooks: list[ConnectionHook[Any]] = []
        self._disconnect_hooks: list[ConnectionHook[Any]] = []
        self._fallback: Responder | None = None
        self._guards: list[Guard] = []
        self._found: dict[bytes, Responder] = {}
        """The responders that were asked for so far, with all the guards that they have here."""
        self._found_fallback: Responder | None = None
        self._included: list[Router[Any]] = []
        self._includers: list[Router[Any]] = []
        self._run_plain: PlainRunner | None = None
        self._is_served = False
        self.has_transitions: bool = False
        """Whether it answers commands that change what a connection speaks."""

    def responder(
        self, command: CommandType[C, R], *, thread: bool = False
    ) -> ResponderDecorator[C, R, S]:
        """Register the responder of a command; a decorator.

        The function is `async` and takes the command, or the command and the `Connection` that it
        came on. It returns what the command declares. It may be a bound method, a
        `functools.partial` or an object with an `async def __call__`; for an optional second
        parameter nothing is passed. Each call runs as a task of its own, beside all others, and is
        cancelled when the connection goes.

        It may be a plain function, one with `def` alone, where that holds up nobody: in the
        processes of a `WorkerPool`. To serve a router with such a one from this process is an
        error. With `thread=True` it runs in a thread, and may be served everywhere. It can't be
        cancelled then: its answer is dropped. Of the connection it may read what there is; all
        else is for the event loop.

        Args:
            command: the class.
            thread: whether the function is a plain one that runs in a thread of the event loop's
                executor, see `asyncio.to_thread`. It must stand that others run beside it.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            DefinitionError: the command can't work, or has a responder already; or the function
                takes neither one argument nor two, or is a generator; or is async and to run in a
                thread; or is not async, not to run in a thread, and the router is being served.
        """
        signature_of = getattr(command, "__amp_signature__", None)
        if signature_of is None or not isinstance(command, type):
            raise DefinitionError(f"responder() takes a subclass of Command, not {command!r}")
        signature: Signature[C, R] = signature_of()

        def register(function: Any) -> Any:
            arity = check_function(
                function,
                f"the responder of {signature.title}",
                {1: "the command", 2: "the command and the connection"},
                plain_since="It is to run in a thread, where nothing awaits it" if thread else None,
                may_be_plain=not thread,
            )
            runs_in: Place = "thread" if thread else "loop" if is_async(function) else "worker"
            self._add(Responder(signature, function, takes_connection=arity == 2, runs_in=runs_in))
            return function

        return register

    @overload
    def fallback(
        self, function: Callable[[Box], Coroutine[Any, Any, Box]], /
    ) -> Callable[[Box], Coroutine[Any, Any, Box]]: ...

    @overload
    def fallback(
        self, function: Callable[[Box, Connection[S]], Coroutine[Any, Any, Box]], /
    ) -> Callable[[Box, Connection[S]], Coroutine[Any, Any, Box]]: ...

    def fallback(self, function: Any, /) -> Any:
        """Register what answers every command that has no responder; a decorator.

        For proxies and tools, which handle commands that they don't know. The function is `async`
        and takes the box as it came, with the command's name in `_command`, and with `_ask` in it
        if the caller wants an answer; or that and the `Connection`. It returns the pairs of the
        answer. A `RemoteAmpError` that it raises travels as it is, with its code, description and
        fields, so that errors pass a proxy unchanged::

            @router.fallback
            async def forward(box: Box) -> Box:
                return await upstream.call_box(
                    box[b"_command"], box, requires_answer=b"_ask" in box
                )

        Returns:
            The function unchanged.

        Raises:
            DefinitionError: there is one already; or the function is not async, or takes neither
                one argument nor two.
        """
        arity = check_function(
            function, "the fallback", {1: "the box", 2: "the box and the connection"}
        )
        self._set_fallback(Responder(RAW, function, takes_connection=arity == 2))
        return function

    @overload
    def guard(
        self, function: Callable[[Connection[S]], None], /
    ) -> Callable[[Connection[S]], None]: ...

    @overload
    def guard(
        self, function: Callable[[Connection[S], str], None], /
    ) -> Callable[[Connection[S], str], None]: ...

    def guard(self, function: Any, /) -> Any:
        """Register what decides whether a command may be carried out; a decorator.

        ::

            @private.guard
            def logged_in(connection: Connection[Session]) -> None:
                if connection.state.user is None:
                    raise NotAllowedError("log in first")

        It holds for the responders and the fallback of this router and of those that it includes,
        also later ones; not for those of routers that include it. Where there are several, those
        of outer routers come first, and each router's in the order of their registration.

        It runs before the arguments are read, so that nothing is parsed of what a peer sends that
        may not send it. The function is not `async`, and takes the connection, or that and the
        command's name. It returns None to let the command pass. If it raises `NotAllowedError`, the
        caller gets that, with its text; for anything else that it raises or returns the caller
        gets `UnknownRemoteError`, and the log a traceback.

        Returns:
            The function unchanged.

        Raises:
            DefinitionError: the function is async, or takes neither one argument nor two.
        """
        self._guards.append(Guard.of(function))
        self._forget_found()
        return function

    def on_connect(self, hook: ConnectionHook[S]) -> ConnectionHook[S]:
        """Run an async function for each connection that begins; a decorator.

        Hooks run in the order of their registration. They may call the peer. Commands of the
        peer's wait until all hooks are done, and so does `connect`. If a hook fails, the
        connection is closed.

        Raises:
            DefinitionError: the function is not async, or doesn't take one argument.
        """
        check_function(hook, "the on_connect hook", {1: "the connection"})
        self._connect_hooks.append(hook)
        return hook

    def on_disconnect(self, hook: ConnectionHook[S]) -> ConnectionHook[S]:
        """Run an async function for each connection that ended; a decorator.

        Hooks run in the opposite order of their registration, as what `on_connect` built up is
        taken down. They run once the responders of the connection are done, and only if the hooks
        of `on_connect` began. Calls on the connection fail by then. If a hook fails, that is
        logged and the others still run. `wait_closed` waits for them, however long they take: bound
        what may last with `asyncio.timeout`.

        Raises:
            DefinitionError: the function is not async, or doesn't take one argument.
        """
        check_function(hook, "the on_disconnect hook", {1: "the connection"})
        self._disconnect_hooks.append(hook)
        return hook

    def include(self, router: Router[S] | Router[None]) -> None:
        """Take over all responders, hooks and the fallback of another router, also later ones.

        Args:
            router: with the same state, or with none.

        Raises:
            DefinitionError: both have a responder for one command, or a fallback; the other has a
                different state, or it includes this one.
        """
        if router._state is not None and router._state is not self._state:
            raise DefinitionError(
                f"the router to include makes its state with {place_of(router._state)}, this one"
                f" with {place_of(self._state) if self._state else 'nothing'}; a connection has one"
            )
        if router in self._with_includers():
            raise DefinitionError("a router can't include itself, not even by way of another")
        if router in self._included:
            return
        for responder in router._responders.values():
            self._check_free(responder)
        if router._fallback is not None:
            self._set_fallback(router._fallback)
        for responder in router._responders.values():
            self._add(responder)
        router._includers.append(self)
        self._included.append(router)
        self._forget_found()

    def find(self, name: bytes) -> Responder | None:
        """Give the responder of a command, by its name on the wire; else the fallback, if any."""
        return self._found.get(name) or self._look_up(name)

    def all_responders(self) -> Sequence[Responder]:
        """Give what `find` finds there is now: the responders, and last the fallback, if any."""
        found = [self._with_guards(each) for each in self._responders.values()]
        return found if self._fallback is None else [*found, self._with_guards(self._fallback)]

    def _look_up(self, name: bytes) -> Responder | None:
        responder = self._responders.get(name)
        if responder is not None:
            self._found[name] = responder = self._runnable(self._with_guards(responder))
            return responder
        if self._found_fallback is None and self._fallback is not None:
            self._found_fallback = self._with_guards(self._fallback)
        return self._found_fallback

    def _runnable(self, responder: Responder) -> Responder:
        if responder.runs_in == "loop":
            return responder
        run = self._run_plain if responder.runs_in == "worker" else run_in_thread
        assert run is not None
        return replace(responder, function=partial(run, responder.function))

    def run_plain_functions(self, run: PlainRunner) -> None:
        """Have plain functions that don't say where they run be run by a function; for workers.

        Args:
            run: an async function that is given the function and its arguments.
        """
        self._run_plain = run
        self._forget_found()

    def begin_serving(self) -> None:
        """Be served from now on, by a server or a connection.

        Raises:
            DefinitionError: a responder is a plain function, and nothing says where it may run.
        """
        if not self._is_served:
            for responder in self._responders.values():
                self._check_runs(responder)
            self._is_served = True

    def _check_runs(self, responder: Responder) -> None:
        if responder.runs_in == "worker" and self._run_plain is None:
            raise DefinitionError(
                f"the responder of {responder.signature.title}, {place_of(responder.function)}, is"
                " a plain function, which holds up all connections of this process while it runs."
                " Make it async, or register it with thread=True, or let a WorkerPool serve the"
                " router"
            )

    def _with_guards(self, responder: Responder) -> Responder:
        routers = dict.fromkeys(self._on_the_way_to(responder))
        guards = [guard for router in routers for guard in router._guards]
        return replace(responder, guards=tuple(guards)) if guards else responder

    def _on_the_way_to(self, responder: Responder) -> list[Router[Any]]:
        """Give this router and, by whichever ways, those within it that have the responder."""
        name = responder.signature.name
        way: list[Router[Any]] = [self]
        for router in self._included:
            if responder is router._responders.get(name) or responder is router._fallback:
                way += router._on_the_way_to(responder)
        return way

    def _forget_found(self) -> None:
        for router in self._with_includers():
            router._found.clear()
            router._found_fallback = None

    def new_state(self) -> S:
        """Make the state of a new connection."""
        state: S = cast("S", None) if self._state is None else self._state()
        return state

    def connect_hooks(self) -> Sequence[ConnectionHook[Any]]:
        """Give the hooks of `on_connect`, included ones first."""
        return [hook for router in self._with_included() for hook in router._connect_hooks]

    def disconnect_hooks(self) -> Sequence[ConnectionHook[Any]]:
        """Give the hooks of `on_disconnect`, in the order opposite to that of `on_connect`."""
        hooks = [hook for router in self._with_included() for hook in router._disconnect_hooks]
        return hooks[::-1]

    def _with_included(self) -> list[Router[Any]]:
        routers = [inner for router in self._included for inner in router._with_included()]
        return list(dict.fromkeys([*routers, self]))

    def _with_includers(self) -> set[Router[Any]]:
        routers: set[Router[Any]] = {self}
        for router in self._includers:
            routers |= router._with_includers()
        return routers

    def _check_free(self, responder: Responder) -> None:
        name = responder.signature.name
        for router in self._with_includers():
            other = router._responders.get(name)
            if other is not None and other is not responder:
                raise DefinitionError(
                    f"{printable(name)} has two responders: {place_of(other.function)} and"
                    f" {place_of(responder.function)}"
                )
            if router._is_served:
                router._check_runs(responder)

    def _add(self, responder: Responder) -> None:
        self._check_free(responder)
        for router in self._with_includers():
            router._responders[responder.signature.name] = responder
            router.has_transitions |= responder.signature.transition is not None

    def _set_fallback(self, fallback: Responder) -> None:
        routers = self._with_includers()
        for router in routers:
            other = router._fallback
            if other is not None and other is not fallback:
                raise DefinitionError(
                    f"there are two fallbacks: {place_of(other.function)} and"
                    f" {place_of(fallback.function)}"
                )
        for router in routers:
            router._fallback = fallback
