"""Starting a program and speaking AMP with it.

Rule of this module: it starts a process, joins the pipes to it and hands them to a `Connection`;
nothing else differs from a server at the other end of a socket, but that the process ends with it.
"""

from __future__ import annotations

import asyncio
import resource
import signal
from typing import TYPE_CHECKING, Final, overload

from typing_extensions import TypeVar, Unpack

from typed_amp.child_process import ChildProcess
from typed_amp.connection import Connection
from typed_amp.lifetime import greeted
from typed_amp.opening import Opening
from typed_amp.options import check_options
from typed_amp.pipe_transport import join_pipes
from typed_amp.protocol import LinkProtocol
from typed_amp.settings import Settings

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["KILL_TIMEOUT", "ProcessConnection", "connect_process", "open_process"]

S = TypeVar("S", default=None)

KILL_TIMEOUT: Final = 5.0
"""How many seconds a process has to end when its pipes are closed, unless told otherwise."""


class ProcessConnection(Connection[S]):
    """A connection to a child process, made by `connect_process`.

    When it is closed, so is the pipe that the process reads from, and the process is to end. One
    that goes on gets a SIGTERM after `kill_timeout` seconds, and a SIGKILL after as long again. The
    same happens to one that closes its pipes itself. `wait_closed` returns when it has ended.

    Also after a switch to another protocol: `close`, and so the end of `async with`, closes the
    transport of that, and `wait_closed` waits for the process.
    """

    def __init__(
        self,
        child: ChildProcess,
        router: Router[S] | None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        super().__init__(
            Settings(
                router,
                peer=f"{child.title} (process {child.process_id})",
                exit_status=lambda: child.exit_status,
                **options,
            )
        )
        self._child = child

    def close(self, *, drain_timeout: float | None = None) -> None:
        super().close(drain_timeout=drain_timeout)
        if self.is_closed:  # by a switch, maybe, which leaves the pipes open
            self._link.transport.close()

    async def wait_closed(self) -> None:
        await super().wait_closed()
        await asyncio.wait([self._child.ended])

    @property
    def process_id(self) -> int:
        """The system's number for the process. Others may have it when the process has ended."""
        return self._child.process_id

    @property
    def exit_status(self) -> int | None:
        """The exit status of the process; the negative number of the signal if one ended it.

        None while it runs.
        """
        return self._child.exit_status

    def terminate(self) -> None:
        """Ask the process to end, by SIGTERM. Does nothing if it has ended."""
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process, by SIGKILL. Does nothing if it has ended."""
        self._child.send_signal(signal.SIGKILL)


@overload
def connect_process(
    program: str | os.PathLike[str],
    /,
    *arguments: str | os.PathLike[str],
    fds: tuple[int, int] = (0, 1),
    router: None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    kill_timeout: float = KILL_TIMEOUT,
    **options: Unpack[ConnectionOptions],
) -> Opening[ProcessConnection[None]]: ...


@overload
def connect_process(
    program: str | os.PathLike[str],
    /,
    *arguments: str | os.PathLike[str],
    fds: tuple[int, int] = (0, 1),
    router: Router[S],
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    kill_timeout: float = KILL_TIMEOUT,
    **options: Unpack[ConnectionOptions],
) -> Opening[ProcessConnection[S]]: ...


def connect_process(
    program: str | os.PathLike[str],
    /,
    *arguments: str | os.PathLike[str],
    fds: tuple[int, int] = (0, 1),
    router: Router[S] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    kill_timeout: float = KILL_TIMEOUT,
    **options: Unpack[ConnectionOptions],
) -> Opening[ProcessConnection[S]]:
    """Start a program and speak AMP with it over pipes: `async with connect_process(...)`.

    Its standard error is ours. With other `fds` than 0 and 1 its standard input is empty, and what
    it prints goes to standard error too. It gets no other descriptor of ours. The hooks of
    `router.on_connect` are done when the connection is there. Cancelling kills and reaps the
    process.

    When the process ends, calls that wait fail with a `ConnectionLostError` that has its exit
    status. When this program is killed, the process sees its pipe end; one that serves with
    `serve_stdio` or `serve_fds` ends then. Twisted has `reactor.spawnProcess` for this.

    Args:
        program: the name of a program, which is looked for along PATH, or the path to it.
        arguments: what it is told.
        fds: the descriptors that the program reads from and writes to. Twisted's children often
            use 3 and 4.
        router: answers what the process asks.
        env: its environment; ours, if left out.
        cwd: the directory that it works in; ours, if left out.
        options: see `ConnectionOptions`.
        kill_timeout: seconds that the process may go on when its pipes are closed, and again when
            it was sent a SIGTERM.

    Raises:
        ValueError: no program can have such `fds`.
        OSError: the program can't be found or executed.
        ConnectionLostError: a hook failed, or the process ended meanwhile.
    """
    if len(set(fds)) != 2 or min(fds) < 0 or 2 in fds:
        raise ValueError(
            f"fds={fds!r}: a process reads from one descriptor and writes to another,"
            " and 2 is its standard error"
        )
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if max(fds) + 1 >= limit != resource.RLIM_INFINITY:  # our ends have numbers above these
        raise ValueError(
            f"fds={fds!r}: {max(fds):,} is too high where a process may have"
            f" {limit:,} descriptors (see `ulimit -n`)"
        )

    check_options(options)
    argv = program, *arguments
    return Opening(
        open_process(
            *(argv, fds), router=router, env=env, cwd=cwd, kill_timeout=kill_timeout, **options
        )
    )


async def open_process(
    argv: Sequence[str | os.PathLike[str]],
    fds: tuple[int, int] = (0, 1),
    *,
    title: str | None = None,
    router: Router[S] | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    kill_timeout: float,
    **options: Unpack[ConnectionOptions],
) -> ProcessConnection[S]:
    """Do what `connect_process` says, with options that were checked.

    Args:
        argv: the program and its arguments.
        fds: as for `connect_process`.
        title: what messages call the program; what the arguments say, if left out.
        router: as for `connect_process`.
        env: as for `connect_process`.
        cwd: as for `connect_process`.
        kill_timeout: as for `connect_process`.
        options: as for `connect_process`.
    """
    child = await ChildProcess.start(
        argv, fds, title=title, env=env, cwd=cwd, kill_timeout=kill_timeout
    )
    connection = ProcessConnection(child, router, **options)
    try:
        await join_pipes(
            LinkProtocol(connection),
            child.read_fd,
            child.write_fd,
            peer_ended=child.ended,
            on_closing=child.begin_to_end,
        )
    except BaseException:
        await child.end_now()
        raise
    child.wait_for_users = connection.wait_closed
    try:
        await greeted(connection._link)
    except BaseException:
        connection.close(drain_timeout=0)
        await child.end_now()
        raise
    return connection
