"""Calling over NATS: the face of it.

Rule of this module: it says what there is, and turns boxes into answers and errors. How a box is
sent, and sent again, is the business of `NatsCalls`.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar, cast

from typing_extensions import Unpack

from typed_amp.backoff import Backoff
from typed_amp.box import ANSWER, ERROR, ERROR_CODE, TIMEOUT, printable
from typed_amp.command import make_command
from typed_amp.dispatch import LENGTH, LIMIT, TOO_LONG
from typed_amp.errors import EncodeError, TooLongError
from typed_amp.nats_calls import NatsCalls
from typed_amp.nats_link import NatsLink
from typed_amp.nats_options import check_nats_options, servers_of
from typed_amp.nats_subjects import check_names, subject_of
from typed_amp.opening import ClosedAtEnd, Opening
from typed_amp.raw import encode_raw, raw_head
from typed_amp.signature import remote_error
from typed_amp.transitions import StartTLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.counters import Counters
    from typed_amp.nats_options import NatsOptions

__all__ = ["CALL_TIMEOUT", "RESEND_AFTER", "NatsClient", "connect_nats"]

P = ParamSpec("P")
R = TypeVar("R")

CALL_TIMEOUT: Final = 30.0
"""Seconds for calls that say none: nothing tells a caller that a responder is gone."""

RESEND_AFTER: Final = 1.0
"""After how many seconds without an answer an idempotent command is sent again, unless told
otherwise."""

BACKOFF: Final = Backoff(first=0.05, maximum=2.0)
"""How long calls wait before they are sent to where nobody was, or somebody was busy."""


class NatsClient(ClosedAtEnd):
    """Calls a service in a NATS cluster, whoever of its responders answers.

    Made by `connect_nats`, never by hand. `async with` closes it at the end. To be used from the
    event loop it was made in. What becomes of a call that was under way:

    - Nobody answers the command: `NoRespondersError`, at once. Nothing was carried out.
    - The responder is closing, or has too much to do (`CLOSING`, `BUSY`): it has not carried it
      out. It is sent again, whichever command it is.
    - The responder is gone, which nobody tells: a command declared with `idempotent=True` is sent
      again when there is no answer after a while. It goes to any of the responders; to one that
      runs it already it makes no difference. Others wait until their time is over.
    - The connection to NATS is lost: an idempotent command is sent again on the next; others fail
      at once with `ConnectionLostError`, since their answers may have been lost, and their
      responders are cancelled when there is a connection again.

    While there is no connection to NATS, calls wait for one, within their time.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        service: str,
        call_timeout: float | None,
        resend_after: float | None,
        wait_for_responders: bool,
        backoff: Backoff,
        options: NatsOptions,
    ) -> None:
        self._service = service
        self._link = NatsLink(
            self,
            servers,
            options,
            on_lost=self._lost,
            on_back=self._back,
            on_ended=self.close,
        )
        self._calls = NatsCalls(
            self._link,
            service,
            call_timeout=call_timeout,
            resend_after=resend_after,
            waits=wait_for_responders,
            backoff=backoff,
        )
        self._subjects: dict[bytes, str] = {}
        self._closing: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def _open(self) -> None:
        await self._link.open()
        try:
            await self._calls.begin()
        except BaseException:
            self.close()
            await self.wait_closed()
            raise

    async def call(self, command: Command[R], *, timeout: float | None = None) -> R:
        """Have one of the responders carry out a command, and give its answer.

        As `Connection.call`. A command with `requires_answer=False` returns None once it is on its
        way, whether there is somebody to take it or not. Cancelling a call cancels its responder
        too, whoever has it; what has not begun there never does.

        Args:
            command: the command.
            timeout: seconds for all of it; `call_timeout=` of the client if left out. Within a
                responder no more than that has itself. `math.inf` waits for ever.

        Raises:
            NoRespondersError: nobody answers this command; a `ConnectionLostError` too.
            ConnectionLostError: the connection to NATS went before the answer came, or the client
                is closed.
            CallTimeoutError: the time is over.
            RemoteAmpError: as for `Connection.call`, but `CLOSING` and `BUSY`.
            Exception: an error that the command declares, as itself.
            TooLongError: the command is longer than the NATS server takes, and nothing was sent;
                or it was carried out, and its answer is.
            EncodeError: a value can't be written, or the command is one that can't work over
                NATS. Nothing was sent.
            DecodeError: the answer isn't what the command declares.
            DefinitionError: the command names classes that don't exist.
        """
        signature = command.__amp_own_signature__ or command.__amp_signature__()
        title = signature.title
        if not signature.is_plain:
            raise EncodeError(
                f"{title} can't be called over NATS: it carries file descriptors, or changes what a"
                " connection speaks"
            )
        seconds = self._calls.begin_call(title, timeout)
        subject = self._subjects.get(signature.name)
        if subject is None:
            subject = subject_of(self._service, signature.name)
            self._subjects[signature.name] = subject
        encode = signature.arguments.encode
        if not signature.requires_answer:
            data = encode(command, signature.head)
            await self._calls.tell(title, subject, data, seconds)
            return cast("R", None)
        box = await self._calls.ask(
            title,
            subject,
            signature.head,
            encode,
            command,
            seconds=seconds,
            is_idempotent=signature.idempotent,
            declared=signature.error_types,
        )
        if ERROR in box:
            if box.get(ERROR_CODE) in signature.error_types:
                raise signature.error_from(box)
            self._raise(title, box, seconds)
        answer: R = signature.decode_answer(box)
        return answer

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it: `call_remote(Repeat, text="abc", times=3)`.

        Raises:
            pydantic.ValidationError: the fields are not those of the command.
            Exception: as `call`.
        """
        return await self.call(make_command(command, *args, **kwargs))

    async def call_box(
        self,
        name: str | bytes,
        box: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        requires_answer: bool = True,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Box:
        """Call a command by its name, with a box as it is; see `Connection.call_box`.

        Args:
            name: as for `Connection.call_box`.
            box: as for `Connection.call_box`.
            requires_answer: as for `Connection.call_box`.
            idempotent: whether it may be carried out twice.
            timeout: as for `call`.

        Raises:
            Exception: as `call` and `Connection.call_box`.
        """
        head = raw_head(name)
        if head == StartTLS.__amp_signature__().head:
            raise EncodeError("StartTLS changes what a connection speaks, and NATS has none")
        raw_name = name.encode() if isinstance(name, str) else bytes(name)
        title = printable(raw_name)
        subject = subject_of(self._service, raw_name)
        seconds = self._calls.begin_call(title, timeout)
        if not requires_answer:
            await self._calls.tell(title, subject, encode_raw(box, head), seconds)
            return {}
        answer = await self._calls.ask(
            title, subject, head, encode_raw, box, seconds=seconds, is_idempotent=idempotent
        )
        if ERROR in answer:
            self._raise(title, answer, seconds)
        del answer[ANSWER]
        return answer

    def _raise(self, title: str, box: Box, seconds: float | None) -> NoReturn:
        """Raise what an error that no command declares stands for."""
        code = box.get(ERROR_CODE)
        error = remote_error(box)
        if code == TIMEOUT and seconds is not None:
            raise self._calls.timed_out(title, seconds)  # the responder's clock was first
        length, limit = box.get(LENGTH, b""), box.get(LIMIT, b"")
        if code == TOO_LONG and length.isdigit() and limit.isdigit():
            what = f"the answer to {title}"
            raise TooLongError(what, int(length[:20]), int(limit[:20]), error.description)
        raise error

    @property
    def service(self) -> str:
        """The service that it calls."""
        return self._service

    @property
    def name(self) -> str:
        """What log records call it."""
        return f"client of {self._service}"

    @property
    def counters(self) -> Counters:
        """What happened up to now, in numbers. A call that was sent twice is one."""
        return self._calls.counters

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to NATS now, as far as is known."""
        return self._link.is_up

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since it is closed, or nats-py has given up."""
        return self._calls.is_ended

    def close(self) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        Calls that wait fail with `ConnectionLostError`, and their responders are cancelled. What
        was to be sent without an answer is sent. Calling it again does nothing.
        """
        if self._closing is None:
            self._calls.end()
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def wait_closed(self) -> None:
        """Wait until it is closed, and nothing of it runs. Cancelling only stops the waiting."""
        await self._closed.wait()

    async def _close(self) -> None:
        try:
            await self._calls.finish()
            await self._link.close()
        finally:
            self._closed.set()

    def _lost(self) -> None:
        self._calls.lost()

    def _back(self) -> None:
        self._calls.back()

    def __repr__(self) -> str:
        status = "open" if self._link.is_up else "reconnecting"
        if self._closed.is_set():
            status = "closed"
        elif self._closing is not None:
            status = "closing"
        return f"<NatsClient of {self._service} at {self._link.where}, {status}>"


def connect_nats(
    servers: str | Sequence[str],
    *,
    service: str,
    call_timeout: float | None = CALL_TIMEOUT,
    resend_after: float | None = RESEND_AFTER,
    wait_for_responders: bool = False,
    backoff: Backoff | None = None,
    **options: Unpack[NatsOptions],
) -> Opening[NatsClient]:
    """Connect to NATS, to call a service: `await connect_nats(...)`, or with `async with`.

    Args:
        servers: `"nats://localhost:4222"`, or several servers of one cluster.
        service: the service's name, as it was said to `serve_nats`.
        call_timeout: seconds that each call waits which isn't given a `timeout` of its own; 30, if
            left out. None for ever: a call that isn't idempotent then waits for ever if its
            responder is gone.
        resend_after: after how many seconds without an answer an idempotent command is sent again.
            Each further time after twice as long, and never longer than 30 seconds. Longer than
            its responders usually take, or many run it twice. None for never.
        wait_for_responders: whether calls wait, within their time, where nobody answers; if not
            they fail at once.
        backoff: how long calls wait before they are sent again where nobody was, or where
            somebody was busy or closing: at first 0.05 and at most 2 seconds, if left out.
        options: see `NatsOptions`: TLS, credentials.

    Raises:
        ConnectionLostError: no server can be reached, or will have this program.
        ValueError: the service's name is none, there is no server, or seconds make no sense.
        TypeError: there is no such option.
        ImportError: the extra `typed_amp[nats]` isn't installed.
    """
    check_nats_options(options)
    check_names(service)
    for name, seconds in (("call_timeout", call_timeout), ("resend_after", resend_after)):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"{name} must be positive, or None for never, not {seconds}")
    found = servers_of(servers)

    async def open_client() -> NatsClient:
        client = NatsClient(
            found,
            service=service,
            call_timeout=call_timeout,
            resend_after=resend_after,
            wait_for_responders=wait_for_responders,
            backoff=backoff or BACKOFF,
            options=options,
        )
        await client._open()
        return client

    return Opening(open_client())
