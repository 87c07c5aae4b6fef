"""A worker of `typed-amp serve`: what runs in its process.

Rule of this module: it ends when the supervisor says so, and when the supervisor is gone, whatever
the router's code does meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from typed_amp.errors import DefinitionError
from typed_amp.inherited import serve_sockets
from typed_amp.named import NameTrouble, find_modules_here, named_router
from typed_amp.serve_settings import Assignment, log_as
from typed_amp.server import loop_factory
from typed_amp.shared_counts import SharedCount
from typed_amp.tls_files import TLSFileTrouble, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ssl import SSLContext

    from typed_amp.router import Router
    from typed_amp.server import Server

__all__ = ["Control", "main", "serve"]

_logger = logging.getLogger("typed_amp")

_CANNOT_SERVE: Final = 2
"""The exit status of a worker that can't begin."""


class Control:
    """The line to the supervisor. A thread listens, so that the event loop may be stuck.

    Args:
        sock: the socket.
        patience: how many seconds this process may live on without a supervisor.
    """

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self._socket = sock
        self._patience = patience
        self._hear: Callable[[str], object] | None = None
        self._unheard: list[str] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def say(self, **what: Any) -> None:
        """Tell the supervisor something."""
        with contextlib.suppress(OSError):  # it is gone, and the thread knows
            self._socket.sendall(json.dumps(what).encode() + b"\n")

    def hear(self, hear: Callable[[str], object]) -> None:
        """Have all that the supervisor says, also before now, passed on, in the event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._hear = lambda word: loop.call_soon_threadsafe(hear, word)
            for word in self._unheard:
                self._hear(word)

    def _listen(self) -> None:
        try:
            with self._socket.makefile(encoding="ascii") as lines:
                for line in lines:
                    self._pass_on(line.strip())
        except OSError:
            pass  # reset: the supervisor was killed with something unread
        if self._hear is None:
            os._exit(1)  # nobody is served yet
        self._pass_on("orphaned")
        time.sleep(self._patience)
        os._exit(1)

    def _pass_on(self, word: str) -> None:
        with self._lock:
            if self._hear is None:
                if word == "give up":
                    _say_where_it_is()
                    os._exit(1)
                self._unheard.append(word)
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so does the process
                self._hear(word)


def _say_where_it_is() -> None:
    """Log what the main thread is doing, from another thread."""
    frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
    own = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
    _logger.error(
        "not ready in time; it is here:\n%s", "".join(traceback.format_list(own)).rstrip()
    )


class _Serving:
    """The servers of this process, and what they are told.

    Args:
        servers: those servers.
        balance: where this process says how many connections it has.
    """

    def __init__(self, servers: Sequence[Server[Any, Any]], balance: SharedCount | None) -> None:
        self._servers = servers
        self._balance = balance
        self._retiring: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        for server in servers:
            if balance is not None:
                server._share(balance)

    async def obey(self, told: asyncio.Queue[str]) -> None:
        """Do what is said, until cancelled.

        Args:
            told: gives the words.
        """
        while True:
            word = await told.get()
            if word == "signal":
                word = "drain" if self._draining is None else "stop"
            if self._balance is not None:
                self._balance.withdraw()
            if word == "retire" and self._retiring is None:
                self._retiring = asyncio.create_task(self._retire())
            elif word == "drain" and self._draining is None:
                self._draining = asyncio.create_task(self._drain())
            elif word == "stop":
                self._close(drain_timeout=0)
            elif word == "orphaned":
                _logger.error("the supervisor is gone; draining")
                self._close()

    async def wait_closed(self) -> None:
        """Wait until all servers are closed, and nothing of them goes on."""
        for server in self._servers:
            await server.wait_closed()
        for task in filter(None, (self._retiring, self._draining)):
            await task

    async def _retire(self) -> None:
        stopping = (server.stop_accepting() for server in self._servers)
        for error in await asyncio.gather(*stopping, return_exceptions=True):
            if error is not None:
                _logger.error("it could not stop accepting as it should", exc_info=error)

    async def _drain(self) -> None:
        if self._retiring is not None:
            await self._retiring
        self._close()

    def _close(self, drain_timeout: float | None = None) -> None:
        for server in self._servers:
            server.close(drain_timeout=drain_timeout)


async def serve(
    assignment: Assignment, router: Router[Any], context: SSLContext | None, control: Control
) -> None:
    """Say that all is ready, and serve from when the supervisor wants it until it is enough.

    The supervisor or a signal says when that is.

    Args:
        assignment: what to do.
        router: what to serve.
        context: for TLS over TCP. Unix sockets are in the clear.
        control: the line to the supervisor.
    """
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[str] = asyncio.Queue()
    control.hear(told.put_nowait)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.put_nowait, "signal")
    # What the program is made of stays; see `run`.
    gc.collect()
    gc.freeze()
    control.say(ready=True)
    if await told.get() != "serve":
        return  # nobody is served yet
    serving = _Serving(
        await _open_servers(assignment, router, context),
        None if assignment.place is None else SharedCount(assignment.balance, assignment.place),
    )
    control.say(serving=True)
    obeying = loop.create_task(serving.obey(told))
    await serving.wait_closed()
    obeying.cancel()


async def _open_servers(
    assignment: Assignment, router: Router[Any], context: SSLContext | None
) -> list[Server[Any, Any]]:
    """Serve on the sockets that were inherited: those for TCP, and those for Unix."""
    settings = assignment.settings
    sockets = [socket.socket(fileno=fd) for fd in assignment.sockets]
    servers: list[Server[Any, Any]] = []
    for is_unix in (False, True):
        own = [sock for sock in sockets if (sock.family == socket.AF_UNIX) == is_unix]
        if own:
            opening = serve_sockets(
                router,
                own,
                ssl=None if is_unix else context,
                max_connections=settings.max_connections,
                drain_timeout=settings.drain_timeout,
            )
            servers.append(await opening)
    return servers


def main() -> None:
    """Be a worker, as the arguments of the process say, and end it."""
    assignment = Assignment.from_json(sys.argv[2])
    for fd in (assignment.control, assignment.balance, *assignment.sockets):
        os.set_inheritable(fd, False)  # programs that responders start are no workers
    settings = assignment.settings
    control = Control(socket.socket(fileno=assignment.control), settings.patience)
    # It is for the supervisor, but some send it to all. A function, since programs that
    # responders start would ignore it with us.
    signal.signal(signal.SIGHUP, lambda *_: None)
    log_as(f"worker {assignment.number}", settings.log_level)
    find_modules_here()
    try:
        router = named_router(settings.target)
        router.begin_serving()
        context = None
        if settings.tls_certificate is not None:
            context = server_context(
                settings.tls_certificate, settings.tls_key, settings.tls_authority
            )
    except (NameTrouble, DefinitionError, TLSFileTrouble) as trouble:
        control.say(failed=str(trouble))
        sys.exit(_CANNOT_SERVE)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(assignment, router, context, control))


if __name__ == "__main__":
    main()
