"""Accepting connections: a few in each turn of the event loop, and handshakes within a limit.

Rule of this module: it turns sockets into transports, and knows nothing of what is spoken on them.

asyncio's own server accepts as many as wait, up to a hundred in one turn, while everybody else
waits, and lets any number of TLS handshakes wait for their clients, each with its buffers of some
300 kB.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import TYPE_CHECKING, Final

from typed_amp.addresses import address_of, shown
from typed_amp.log import LOGGER
from typed_amp.unix_transport import UnixTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ssl import SSLContext

    from typed_amp.shared_counts import SharedCount

__all__ = ["MAX_HANDSHAKES", "Acceptor"]

MAX_HANDSHAKES: Final = 100
"""How many TLS handshakes may be under way, unless told otherwise."""

_ACCEPTED_PER_TURN: Final = 2
"""How many connections are accepted before others have their turn.

Each of them costs about as much as ten calls before it is served.
"""

_PAUSE: Final = 1.0
"""How many seconds to wait where the system has no descriptor left for a connection."""

_YIELD: Final = 0.001
"""How many seconds to wait before looking whether another process has accepted."""

_PATIENCE: Final = 0.01
"""How many seconds another process has to accept, at the most, before this one does it.

Half as many each time that none did, since they may be stuck; twice as many when one did.
"""

_RECOVERY: Final = 1.0
"""After how many seconds others are thought to be well again."""


class Acceptor:
    """Accepts connections on sockets that listen.

    Args:
        sockets: those sockets, which don't block. They are the acceptor's from now on.
        protocol_factory: makes the protocol of each connection.
        context: a server's context for TLS, if there is to be TLS.
        handshake_timeout: how many seconds a TLS handshake may take; None without TLS.
        max_handshakes: how many may be under way; for one more the oldest is given up.
        on_idle: called when the last handshake is over, once it is closed.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *,
        context: SSLContext | None,
        handshake_timeout: float | None,
        max_handshakes: int,
        on_idle: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._protocol_factory = protocol_factory
        self._context = context
        self._handshake_timeout = handshake_timeout
        self._max_handshakes = max_handshakes
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._unbegun: dict[asyncio.Task[None] | None, socket.socket] = {}
        """The sockets of those whose tasks have not had their first step."""
        self._beginning: set[asyncio.Task[None]] = set()
        """Those that have no transport yet."""
        self._handshakes: dict[asyncio.Task[None], None] = {}
        """Those of them that are not given up, the oldest first."""
        self._balance: SharedCount | None = None
        self._patience = _PATIENCE
        self._missed = -math.inf
        """When nobody took what was left to others."""
        self._yielding_since: dict[socket.socket, float] = {}
        self._is_listening = True
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether no connection is on its way to a transport."""
        return not self._beginning

    @property
    def pending(self) -> int:
        """How many connections are on their way to a transport."""
        return len(self._beginning)

    def share(self, balance: SharedCount) -> None:
        """Let other processes that accept on the same sockets go first while they have less."""
        self._balance = balance

    def begin(self) -> None:
        """Accept from now on."""
        for listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def stop(self) -> None:
        """Accept no more. Handshakes under way go on."""
        if not self._is_listening:
            return
        self._is_listening = False
        for timer in self._pauses.values():
            timer.cancel()
        for listener in self._sockets:
            self._loop.remove_reader(listener)
            listener.close()

    async def wait_idle(self) -> None:
        """Wait until no connection is on its way to a transport. Cancelling only stops that."""
        while self._beginning:
            await asyncio.wait(self._beginning)

    def close(self) -> None:
        """Accept no more, and give up the handshakes under way."""
        if self._is_closed:
            return
        self._is_closed = True
        self.stop()
        # Connections without a handshake have their transport in a turn or two. Given up in the
        # very turn in which they get it, their protocols would never hear of the end from uvloop.
        for task in self._handshakes:
            task.cancel()

    def _accept(self, listener: socket.socket) -> None:
        if self._balance is not None and self._yields(listener, self._balance):
            return
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                accepted, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._patience = min(_PATIENCE, 2 * self._patience)
                return
            except OSError as error:
                self._pause(listener, error)
                return
            accepted.setblocking(False)
            self._take(accepted)

    def _yields(self, listener: socket.socket, balance: SharedCount) -> bool:
        """Let another process go first, if it has less and hasn't had its time."""
        now = self._loop.time()
        if not balance.has_more or now - self._missed > _RECOVERY:
            self._patience = _PATIENCE
        if not balance.has_more or self._patience < _YIELD:
            return False
        since = self._yielding_since.get(listener, now)
        if now - since > 2 * _PATIENCE:  # that was another connection, which somebody took
            since = now
        if now - since >= self._patience:
            del self._yielding_since[listener]
            self._patience /= 2
            self._missed = now
            return False
        self._yielding_since[listener] = since
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(_YIELD, self._go_on, listener)
        return True

    def _take(self, accepted: socket.socket) -> None:
        if accepted.family == socket.AF_UNIX and self._context is None:
            UnixTransport(self._loop, accepted, self._protocol_factory())
            return
        task = self._loop.create_task(self._make_transport(accepted), name="accepting")
        self._beginning.add(task)
        self._unbegun[task] = accepted
        task.add_done_callback(self._begun)
        if self._context is None:
            return
        self._handshakes[task] = None
        if len(self._handshakes) > self._max_handshakes:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()

    async def _make_transport(self, accepted: socket.socket) -> None:
        # No variable for the task: it would hold itself, and the handshake's buffers with it, by
        # the traceback of its end.
        del self._unbegun[asyncio.current_task()]
        try:
            name = accepted.getpeername()
        except OSError:
            accepted.close()  # it has gone already
            return
        try:
            await self._loop.connect_accepted_socket(
                self._protocol_factory,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_timeout,
            )
        except OSError as error:
            self._log_failure(name, str(error) or type(error).__name__)
        except asyncio.CancelledError:
            is_given_up = asyncio.current_task() not in self._handshakes
            if self._context is not None and is_given_up and not self._is_closed:
                told = f"as many as max_handshakes={self._max_handshakes} are under way"
                self._log_failure(name, told, amp_limit="max_handshakes")
            raise

    def _log_failure(self, name: object, reason: str, **attributes: str) -> None:
        extra = {"amp_event": "tls_failed", **attributes}
        told = "%s: the TLS handshake failed: %s"
        LOGGER.info(told, shown(address_of(name)), reason, extra=extra)

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self._handshakes.pop(task, None)
        accepted = self._unbegun.pop(task, None)
        if accepted is not None:
            accepted.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            told = "a connection could not begin"
            LOGGER.error(told, exc_info=error, extra={"amp_event": "accept_failed"})
        if self._is_closed and self.is_idle:
            self._on_idle()

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Wait until there may be descriptors again: the socket would say at once that it waits."""
        told = "no connection can be accepted for %g s: %s"
        LOGGER.error(told, _PAUSE, error, extra={"amp_event": "accept_failed"})
        self._loop.remove_reader(listener)
        self._pauses[listener] = self._loop.call_later(_PAUSE, self._go_on, listener)

    def _go_on(self, listener: socket.socket) -> None:
        del self._pauses[listener]
        self._loop.add_reader(listener, self._accept, listener)
