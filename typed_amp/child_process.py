"""A child process with a pipe to it and a pipe from it.

Rule of this module: a process that was started is ended and reaped, whatever happens to those who
wanted it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from typed_amp.errors import ProcessEndedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = ["ChildProcess"]

_TRAMPOLINE: Final = """
import os, signal, sys

from_parent, to_parent, report, read_fd, write_fd = map(int, sys.argv[1:6])
if sys.argv[6] == "unset":
    os.environ.pop("LC_CTYPE", None)
for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
os.dup2(from_parent, read_fd)
os.dup2(to_parent, write_fd)
os.set_inheritable(report, False)
try:
    fds = map(int, os.listdir("/dev/fd"))
except OSError:
    fds = range(os.sysconf("SC_OPEN_MAX"))
for fd in fds:
    if fd > 2 and fd not in (read_fd, write_fd, report):
        try:
            os.close(fd)
        except OSError:
            pass
try:
    os.execvp(sys.argv[7], sys.argv[7:])
except OSError as error:
    os.write(report, str(error.errno).encode())
    os._exit(127)
"""
"""Gives the pipes the numbers that the program wants, closes the rest, and becomes the program.

subprocess passes descriptors on under the numbers that they have here, where the wanted ones may be
taken. A function that runs between fork and exec could renumber them, but isn't safe beside
threads. So a Python with nothing of the user's goes between. It gets descriptors with numbers above
all that it gives. It undoes what Python does to itself as it begins: it ignores some signals, and
may set LC_CTYPE. If the program can't be run it says why on a pipe; if it can, that pipe closes.
"""

_LAST_TURNS_TIMEOUT: Final = 1.0
"""How many seconds the users of a process may take when the event loop ends."""


class ChildProcess:
    """A process of ours, from its start until it is reaped. Made by `start`.

    It is expected to end by itself after `begin_to_end`; if it doesn't, it gets a SIGTERM after
    `kill_timeout` seconds, and a SIGKILL after as long again. When the event loop ends, which
    cancels all that runs on it, it is killed at once.

    Attributes:
        title: what runs, in few words.
        process_id: the system's number for it.
        exit_status: None while it runs; of one that a signal ended, the signal's number, negative.
        ended: done when it has ended and was reaped, with the error that says how.
        read_fd: what it writes can be read here. Whoever started it closes it.
        write_fd: what is written here it reads. Whoever started it closes it.
        wait_for_users: if set, waited for when the event loop ends.
    """

    def __init__(self, title: str, read_fd: int, write_fd: int, kill_timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self.title = title
        self.process_id: int = 0
        self.exit_status: int | None = None
        self.ended: asyncio.Future[Exception | None] = loop.create_future()
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.wait_for_users: Callable[[], Awaitable[None]] | None = None
        self._kill_timeout = kill_timeout
        self._is_to_end: asyncio.Future[None] = loop.create_future()
        self._guard: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | os.PathLike[str]],
        fds: tuple[int, int],
        *,
        title: str | None = None,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        kill_timeout: float,
    ) -> ChildProcess:
        """Start a program. Cancelling ends and reaps what was started.

        Args:
            argv: the program and its arguments.
            fds: the descriptors that it reads from and writes to.
            title: what messages call it; what the arguments say, if left out.
            env: its environment; ours, if left out.
            cwd: the directory that it works in; ours, if left out.
            kill_timeout: see the class.

        Raises:
            OSError: the program can't be run, or there are no descriptors left.
        """
        arguments = [os.fspath(argument) for argument in argv]
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            above = max(2, *fds)
            child_reads, write_fd = _pipe(theirs, ours, above)
            read_fd, child_writes = _pipe(ours, theirs, above)
            child = cls(title or _title(arguments), read_fd, write_fd, kill_timeout)
            directory = None if cwd is None else os.fspath(cwd)
            options: dict[str, Any] = {"env": None if env is None else dict(env), "cwd": directory}
            if not _is_open(2):
                options["stderr"] = subprocess.DEVNULL
            try:
                # uvloop leaves the child descriptors of ours, copies of its own pipes among them.
                is_asyncio = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
                if fds == (0, 1) and is_asyncio:
                    await child._spawn(arguments, stdin=child_reads, stdout=child_writes, **options)
                else:
                    pipes = child_reads, child_writes
                    await child._spawn_by_trampoline(arguments, fds, pipes, options)
            except OSError as error:
                if error.errno is None or error.filename is not None:
                    raise
                # uvloop doesn't say what was not found.
                is_there = directory is None or _is_directory(directory)
                missing = arguments[0] if is_there else directory
                raise OSError(error.errno, os.strerror(error.errno), missing) from None
            ours.pop_all()
        return child

    def begin_to_end(self) -> None:
        """The process is to end now, since its pipes are closed or about to be."""
        if not self._is_to_end.done():
            self._is_to_end.set_result(None)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        # asyncio's own way looks first whether the process has ended, and thereby may reap it, so
        # that the watch for its end finds nothing and makes up a status.
        if self.process_id and self.exit_status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, number)

    async def end_now(self) -> None:
        """Kill the process, and wait until it is reaped. Cancelling only stops the waiting."""
        self.send_signal(signal.SIGKILL)
        self.begin_to_end()
        await asyncio.wait([self.ended])

    # -- Starting --------------------------------------------------------------------------------

    async def _spawn(self, arguments: Sequence[str], **options: Any) -> None:
        loop = asyncio.get_running_loop()
        # As a task of its own, which goes on when this one is cancelled: what is half started
        # can't be ended well.
        starting = loop.create_task(
            loop.subprocess_exec(
                lambda: _Watch(self), *arguments, **{"stderr": None, "stdin": None, **options}
            )
        )
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._abandon)
            await asyncio.wait([starting])
            if self.process_id:
                await self.end_now()
            raise

    def _abandon(self, starting: asyncio.Task[Any]) -> None:
        if not starting.cancelled():
            starting.exception()  # nobody is left who wants to know
        self.send_signal(signal.SIGKILL)

    async def _spawn_by_trampoline(
        self,
        arguments: Sequence[str],
        fds: tuple[int, int],
        pipes: tuple[int, int],
        options: dict[str, Any],
    ) -> None:
        environment = os.environ if options["env"] is None else options["env"]
        with contextlib.ExitStack() as stack:
            with contextlib.ExitStack() as theirs:
                report, child_reports = _pipe(stack, theirs, max(2, *fds))
                passed = *pipes, child_reports
                await self._spawn(
                    [
                        *(sys.executable, "-I", "-S", "-c", _TRAMPOLINE),
                        *map(str, (*passed, *fds)),
                        "set" if "LC_CTYPE" in environment else "unset",
                        *arguments,
                    ],
                    stdin=subprocess.DEVNULL,
                    # Our own standard output may be a stream of boxes.
                    stdout=2 if _is_open(2) else subprocess.DEVNULL,
                    pass_fds=passed,
                    **options,
                )
            try:
                error = await _read(report)
            except BaseException:
                await self.end_now()
                raise
        if error:
            await asyncio.wait([self.ended])
            raise OSError(int(error), os.strerror(int(error)), arguments[0])

    # -- Its life --------------------------------------------------------------------------------

    def _started(self, process_id: int) -> None:
        self.process_id = process_id
        self._guard = asyncio.get_running_loop().create_task(self._stand_guard())

    def _exited(self, exit_status: int) -> None:
        self.exit_status = exit_status
        self.ended.set_result(ProcessEndedError(self.title, self.process_id, exit_status))

    async def _stand_guard(self) -> None:
        """See that the process ends when it is to end."""
        try:
            either: list[asyncio.Future[Any]] = [self.ended, self._is_to_end]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for number in (signal.SIGTERM, signal.SIGKILL):
                await asyncio.wait([self.ended], timeout=self._kill_timeout)
                if self.ended.done():
                    return
                self.send_signal(number)
            await asyncio.wait([self.ended])
        except asyncio.CancelledError:
            # Nobody has this task, so that it was the end of the event loop, as by asyncio.run.
            await self.end_now()
            if self.wait_for_users is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_TURNS_TIMEOUT):
                        await self.wait_for_users()
            raise


class _Watch(asyncio.SubprocessProtocol):
    """Told by the event loop of a process."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._child._started(self._transport.get_pid())

    def process_exited(self) -> None:
        exit_status = self._transport.get_returncode()
        self._transport.close()
        self._child._exited(cast("int", exit_status))


def _pipe(
    readers: contextlib.ExitStack, writers: contextlib.ExitStack, above: int
) -> tuple[int, int]:
    """Make a pipe whose numbers are above one, and leave the closing of its ends to stacks."""
    with contextlib.ExitStack() as stack:
        ends = os.pipe()
        for fd in ends:
            stack.callback(os.close, fd)
        read_fd, write_fd = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + 1) for fd in ends)
    readers.callback(os.close, read_fd)
    writers.callback(os.close, write_fd)
    return read_fd, write_fd


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_directory(path: str) -> bool:
    return Path(path).is_dir()


async def _read(fd: int) -> bytes:
    """Wait until something can be read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    is_readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not is_readable.done():
            is_readable.set_result(None)

    loop.add_reader(fd, tell)
    try:
        await is_readable
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 100)


def _title(arguments: Sequence[str]) -> str:
    """Say what a command line runs: its program, or what it has Python run."""
    program, *rest = arguments
    name = Path(program).name
    if not re.fullmatch(r"python[\d.]*", name):
        return name
    words = iter(rest)
    for word in words:
        if word == "-m":
            return next(words, name)
        if word in ("-W", "-X"):
            next(words, None)
        elif word.startswith("-c"):
            return name
        elif not word.startswith("-"):
            return Path(word).name
    return name
