"""Serving a router over NATS.

Rule of this module: it opens, and ends decently. What can't work without a connection is refused
before anything is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Unpack

from typed_amp.errors import DefinitionError
from typed_amp.functions import place_of
from typed_amp.limits import DEFAULT_LIMITS
from typed_amp.nats_discovery import Discovery, check_metadata, check_version, metadata_of
from typed_amp.nats_link import NatsLink, flush
from typed_amp.nats_options import check_nats_options, servers_of
from typed_amp.nats_requests import Endpoint, NatsRequests
from typed_amp.nats_subjects import (
    QUEUE,
    any_subject,
    cancel_subject,
    check_names,
    endpoint_name,
    subject_of,
)
from typed_amp.opening import ClosedAtEnd, Opening
from typed_amp.options import DRAIN_TIMEOUT
from typed_amp.raw import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typed_amp.counters import Counters
    from typed_amp.limits import Limits
    from typed_amp.nats_options import NatsOptions
    from typed_amp.router import Responder, Router

__all__ = ["NatsService", "serve_nats"]

_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})

_UNSUBSCRIBE_TIMEOUT: Final = 5.0
"""Seconds that the server has to confirm that it sends nothing more."""


class NatsService(ClosedAtEnd):
    """A program that answers the commands of a service in a NATS cluster, beside others.

    Made by `serve_nats`, never by hand. `async with` closes it at the end. When nats-py gives up
    connecting, it is closed by itself, and responders that run are cancelled.
    """

    def __init__(
        self,
        router: Router[Any],
        servers: Sequence[str],
        *,
        service: str,
        queue: str,
        version: str,
        description: str,
        metadata: Mapping[str, str],
        limits: Limits,
        drain_timeout: float,
        options: NatsOptions,
    ) -> None:
        self._service = service
        self._queue = queue
        self._id = secrets.token_hex(11)
        self._drain_timeout = drain_timeout
        self._loop = asyncio.get_running_loop()
        self._link = NatsLink(
            self,
            servers,
            options,
            on_lost=lambda: None,  # what runs may be answered when there is a connection again
            on_back=lambda: None,
            on_ended=self._ended,
        )
        self._requests = NatsRequests(self, router, self._link, limits)
        self._endpoints = [self._endpoint(each) for each in router.all_responders()]
        self._discovery = Discovery(
            self._link.client,
            service=service,
            instance=self._id,
            version=version,
            description=description,
            metadata=metadata,
            queue=queue,
            endpoints=self._endpoints,
        )
        self._subscriptions: list[Any] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._closing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    def _endpoint(self, responder: Responder) -> Endpoint:
        signature = responder.signature
        subject = any_subject(self._service)
        name = "any"
        if signature is not RAW:
            subject = subject_of(self._service, signature.name)
            name = endpoint_name(signature.name)
        return Endpoint(self._requests, name, subject, metadata_of(responder))

    async def _open(self) -> None:
        await self._link.open()
        client = self._link.client
        try:
            # Each is told, whoever has the call; until the end, since what runs can be cancelled.
            await client.subscribe(cancel_subject(self._service), cb=self._requests.take_cancel)
            for endpoint in self._endpoints:
                self._subscriptions.append(
                    await client.subscribe(endpoint.subject, queue=self._queue, cb=endpoint.receive)
                )
            await self._discovery.begin()
            await flush(client)  # whoever asks from now on finds it
        except BaseException:
            self.close(drain_timeout=0)
            await self.wait_closed()
            raise

    @property
    def id(self) -> str:
        """By what NATS micro tells it from other programs with this service."""
        return self._id

    @property
    def name(self) -> str:
        """What log records call it: the service's name, and its `id`."""
        return f"{self._service} {self._id}"

    @property
    def subjects(self) -> Sequence[str]:
        """The subjects where its commands are asked for."""
        return [each.subject for each in self._endpoints]

    @property
    def counters(self) -> Counters:
        """What happened up to now, in numbers."""
        return self._requests.counters

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to NATS now, as far as is known."""
        return self._link.is_up

    @property
    def is_closed(self) -> bool:
        """Whether nothing is answered any more. False while `close` lets responders finish."""
        return self._closed.is_set()

    async def serve_forever(self) -> None:
        """Serve until somebody closes it, or nats-py gives up. It serves without this too.

        Cancelling closes it, waits until that is done, and goes on as cancelled.
        """
        try:
            await self._closed.wait()
        finally:
            self.close()
            await self.wait_closed()

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        NATS is told to send nothing more. What it has sent is carried out, what waits among it, and
        answered. When that is done, or was cancelled because the time is over, the connection ends.
        Calling it again does nothing, but that a shorter time holds.

        Args:
            drain_timeout: seconds for responders to finish; 0 cancels them now. If left out, what
                was said to `serve_nats`.
        """
        if self._closed.is_set():
            return
        if drain_timeout is None:
            drain_timeout = self._drain_timeout
        self._timers.append(self._loop.call_later(drain_timeout, self._requests.cancel))
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def wait_closed(self) -> None:
        """Wait until it is closed, and nothing of it runs. Cancelling only stops the waiting."""
        await self._closed.wait()

    async def _close(self) -> None:
        try:
            if self._link.is_up:
                await self._unsubscribe()
            # What comes all the same is refused: nats-py subscribes anew when a link is back.
            self._requests.close()
            await self._requests.wait_idle()
            await self._link.close()
        finally:
            for timer in self._timers:
                timer.cancel()
            self._closed.set()

    async def _unsubscribe(self) -> None:
        drains = [each.drain() for each in self._subscriptions]
        with contextlib.suppress(Exception):  # the connection may go at any time
            async with asyncio.timeout(_UNSUBSCRIBE_TIMEOUT):
                await asyncio.gather(*drains, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_UNSUBSCRIBE_TIMEOUT):
                await self._discovery.end()

    def _ended(self) -> None:
        if self._closing is None:
            self.close(drain_timeout=0)

    def __repr__(self) -> str:
        status = "open"
        if self._closed.is_set():
            status = "closed"
        elif self._closing is not None:
            status = "closing"
        elif not self._link.is_up:
            status = "reconnecting"
        return f"<NatsService {self.name} at {self._link.where}, {status}>"


def serve_nats(
    router: Router[Any],
    servers: str | Sequence[str],
    *,
    service: str,
    queue: str = QUEUE,
    version: str = "0.0.0",
    description: str = "",
    metadata: Mapping[str, str] = _NO_METADATA,
    limits: Limits | None = None,
    drain_timeout: float = DRAIN_TIMEOUT,
    **options: Unpack[NatsOptions],
) -> Opening[NatsService]:
    """Serve a router over NATS: `await serve_nats(...)` or `async with serve_nats(...)`.

    Each command is asked for at `service.command`. Programs that serve the same service share its
    calls: each goes to one of them. What the router has now is served; what is registered later
    isn't.

    There is no connection between who asks and who answers. So what needs one is refused: a
    responder that takes the connection, guards, hooks of `on_connect` and `on_disconnect`, file
    descriptors, `StartTLS` and other changes of the protocol. The router's state is never made. A
    *fatal* error travels as any other.

    Args:
        router: answers what is asked. May serve elsewhere too, at the same time.
        servers: `"nats://localhost:4222"`, or several servers of one cluster.
        service: the service's name: letters and digits of ASCII, `-` and `_`.
        queue: the queue group. Programs of different groups each get every call.
        version: told to who looks for the service: three numbers, as Semantic Versioning has it.
        description: likewise, for people.
        metadata: likewise, for programs.
        limits: `max_requests` says how many responders run at a time. Beyond it messages wait,
            `max_held_bytes` of them, and are then refused with the code `BUSY`. `max_keys` holds
            too; how long a message may be is said by the server.
        drain_timeout: seconds that responders may go on when it is closed.
        options: see `NatsOptions`: TLS, credentials.

    Raises:
        ConnectionLostError: no server can be reached, or will have this program.
        DefinitionError: the router has what can't work over NATS.
        TooLongError: a command's name is too long for NATS.
        ValueError: a name or the version is none, or there is no server.
        TypeError: there is no such option, or metadata are not texts.
        ImportError: the extra `typed_amp[nats]` isn't installed.
    """
    check_nats_options(options)
    check_names(service, queue)
    check_version(version)
    check_metadata(metadata)
    if not drain_timeout >= 0:
        raise ValueError(f"drain_timeout must not be negative, as {drain_timeout} is")
    found = servers_of(servers)
    _check_router(router)

    async def open_service() -> NatsService:
        made = NatsService(
            router,
            found,
            service=service,
            queue=queue,
            version=version,
            description=description,
            metadata=metadata,
            limits=limits or DEFAULT_LIMITS,
            drain_timeout=drain_timeout,
            options=options,
        )
        await made._open()
        return made

    return Opening(open_service())


def _check_router(router: Router[Any]) -> None:
    router.begin_serving()
    for hook in [*router.connect_hooks(), *router.disconnect_hooks()]:
        raise DefinitionError(
            f"{place_of(hook)} is run for connections, and over NATS there is none. Serve a router"
            " without hooks"
        )
    for responder in router.all_responders():
        signature = responder.signature
        of = f"the responder of {signature.title}, {place_of(responder.function)},"
        if signature is RAW:
            of = f"the fallback, {place_of(responder.function)},"
        if responder.guards:
            guard = place_of(responder.guards[0].function)
            raise DefinitionError(
                f"{of} is behind the guard {guard}, which decides by the connection, and over NATS"
                " there is none. Say in the NATS servers' permissions who may ask for what, or"
                " serve a router without guards"
            )
        if responder.takes_connection:
            raise DefinitionError(
                f"{of} takes the connection, and over NATS there is none. What it is to call can be"
                " a service of its own"
            )
        if signature.transition is not None:
            raise DefinitionError(f"{of} changes what a connection speaks, and NATS has none")
        if signature.has_attachments or signature.answer_has_attachments:
            raise DefinitionError(f"{of} takes or gives file descriptors; NATS carries bytes alone")
