"""Calls as users make them on what outlives a connection.

Rule of this module: it says what one may call, the same whether one server is behind it or many.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, ParamSpec

from typing_extensions import TypeVar

from typed_amp.box import printable
from typed_amp.command import make_command
from typed_amp.opening import ClosedAtEnd
from typed_amp.resending import Resending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.connection import Connection
    from typed_amp.supply import Supply

__all__ = ["Calling"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", default=None)


class Calling(ClosedAtEnd, Generic[S]):
    """A base of what makes calls on connections that come and go.

    Args:
        supply: has the connections.
        waits: whether calls wait for a connection while there is none.
        timeout: seconds for calls that say none.
        attempts: how often one call is tried; None for any number.
    """

    def __init__(
        self, supply: Supply[S], *, waits: bool, timeout: float | None, attempts: int | None
    ) -> None:
        self._supply = supply
        self._resending = Resending(supply, waits=waits, timeout=timeout, attempts=attempts)

    async def call(
        self,
        command: Command[R],
        *,
        timeout: float | None = None,
        wait_for_connection: bool | None = None,
    ) -> R:
        """Have the peer carry out a command, and give its answer.

        As `Connection.call`, but that it waits for a connection while there is none, and sends
        again what may be sent again; see the class. Cancelling stops that.

        Args:
            command: the command.
            timeout: seconds for all of it; `call_timeout=` of the client if left out, `math.inf`
                for no end.
            wait_for_connection: whether to wait while there is no connection, if that is to
                differ from what the client was told.

        Raises:
            ConnectionLostError: the connection went before the answer came, and the command isn't
                idempotent; or there is no connection and the call doesn't wait for one; or the
                client is closed. It says why, and since when; `was_sent` says whether a peer may
                have carried out the command.
            CallTimeoutError: the time is over. `__cause__` is what was wrong before, if anything.
            RemoteAmpError: as for `Connection.call`; `CLOSING` and `BUSY` only if `attempts` is
                used up, and `CLOSING` if a typed_amp peer passes it on from somebody else.
            Exception: as `Connection.call`.
        """
        signature = command.__amp_signature__()

        def send(connection: Connection[S], seconds: float) -> Awaitable[R]:
            return connection.call(command, timeout=seconds)

        return await self._resending.send(
            signature.title,
            send,
            is_idempotent=signature.idempotent,
            requires_answer=signature.requires_answer,
            timeout=timeout,
            waits=wait_for_connection,
        )

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it: `call_remote(Repeat, text="abc", times=3)`.

        As `Connection.call_remote`, of calls as `call` makes them.

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
        wait_for_connection: bool | None = None,
    ) -> Box:
        """Call a command by its name, with a box as it is; see `Connection.call_box`.

        Args:
            name: as for `Connection.call_box`.
            box: as for `Connection.call_box`.
            requires_answer: as for `Connection.call_box`.
            idempotent: whether it may be sent again when a connection was lost.
            timeout: as for `call`.
            wait_for_connection: as for `call`.

        Raises:
            Exception: as `call` and `Connection.call_box`.
        """
        title = printable(name.encode() if isinstance(name, str) else name)

        def send(connection: Connection[S], seconds: float) -> Awaitable[Box]:
            return connection.call_box(name, box, requires_answer=requires_answer, timeout=seconds)

        return await self._resending.send(
            title,
            send,
            is_idempotent=idempotent,
            requires_answer=requires_answer,
            timeout=timeout,
            waits=wait_for_connection,
        )

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since the client is closed or has given up."""
        return self._supply.is_closed

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        Calls that wait for a connection fail with `ConnectionLostError`, and so do new ones. Each
        connection is closed as by `Connection.close`: responders may finish. Calling it again does
        nothing, but that a shorter time holds.

        Args:
            drain_timeout: seconds for running responders to finish; 0 cancels them now. If left
                out, what was said where the client was made.
        """
        self._supply.close(drain_timeout=drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until the client is closed, and nothing of it goes on.

        Cancelling only stops the waiting.
        """
        await self._supply.wait_closed()
