"""What holds for a connection from its beginning to its end.

Rule of this module: nothing here changes, so that all connections of a server share one object of
it. What is a connection's own is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic

from typing_extensions import TypeVar

from typed_amp.limits import DEFAULT_LIMITS
from typed_amp.options import DRAIN_TIMEOUT, KEEPALIVE
from typed_amp.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typed_amp.admission import Verdict
    from typed_amp.budget import Budget
    from typed_amp.connection import Connection
    from typed_amp.limits import Limits

__all__ = ["Settings"]

S = TypeVar("S", default=None)

_NO_ROUTER: Final[Router[Any]] = Router()
"""Of connections that answer nothing."""


class Settings(Generic[S]):
    """What holds for a connection, or for all of a server's.

    Args:
        router: answers what the peer asks; if left out, nothing is answered.
        limits: how much the peer can make this side hold.
        drain_timeout: seconds that responders may go on when it is closed.
        call_timeout: seconds of calls that are given none; None for ever.
        extensions: whether there is more than plain AMP, with peers that know of it.
        keepalive: seconds of silence after which the peer is asked whether it is there.
        budget: how many responders may run, on this connection and others.
        is_server: whether this side was connected to.
        server_hostname: the name that was connected to, if any.
        on_opened: called when there is a transport, before hooks and state; says whether to admit
            the peer, now or later.
        on_ended: called when all is over.
        peer: what messages call the peer; if left out, its address.
        exit_status: gives the exit status of the peer's process, where that is known.
    """

    __slots__ = (
        "budget",
        "call_timeout",
        "drain_timeout",
        "exit_status",
        "has_extensions",
        "is_server",
        "keepalive",
        "limits",
        "on_ended",
        "on_opened",
        "peer",
        "router",
        "server_hostname",
    )

    def __init__(
        self,
        router: Router[S] | None = None,
        *,
        limits: Limits | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
        call_timeout: float | None = None,
        extensions: bool = True,
        keepalive: float | None = KEEPALIVE,
        budget: Budget | None = None,
        is_server: bool = False,
        server_hostname: str | None = None,
        on_opened: Callable[[Connection[S]], Verdict] | None = None,
        on_ended: Callable[[Connection[S]], None] | None = None,
        peer: str | None = None,
        exit_status: Callable[[], int | None] | None = None,
    ) -> None:
        self.router: Router[S] = router or _NO_ROUTER
        self.router.begin_serving()
        self.limits: Limits = limits or DEFAULT_LIMITS
        self.drain_timeout: float = drain_timeout
        self.call_timeout: float | None = call_timeout
        self.has_extensions: bool = extensions
        self.keepalive: float | None = keepalive
        self.budget: Budget | None = budget
        self.is_server: bool = is_server
        self.server_hostname: str | None = server_hostname
        self.on_opened: Callable[[Connection[S]], Verdict] | None = on_opened
        self.on_ended: Callable[[Connection[S]], None] | None = on_ended
        self.peer: str | None = peer
        self.exit_status: Callable[[], int | None] | None = exit_status
