"""`typed-amp serve`: its arguments, and what it does before the supervisor begins.

Rule of this module: what can be refused is refused before anything listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer itself reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from typed_amp.addresses import address_of, shown
from typed_amp.completion import complete_router
from typed_amp.listening import SocketFile, listen_tcp, listen_unix
from typed_amp.occupancy import MAX_CONNECTIONS
from typed_amp.options import DRAIN_TIMEOUT
from typed_amp.serve_settings import ServeSettings, log_as
from typed_amp.supervisor import Supervisor
from typed_amp.terminal import fail, forget_output
from typed_amp.tls_files import TLSFileTrouble, server_context
from typed_amp.watching import changes_of
from typed_amp.worker_pool import START_TIMEOUT

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_logger = logging.getLogger("typed_amp")

__all__ = ["SERVE_HELP", "LogLevel", "serve"]

SERVE_HELP = """
Serve a router, with as many processes as you want.

ROUTER is a module and the name of a Router in it, such as shop.server:router. Modules are found
as `python -m` finds them, in the current directory first.

One process, the supervisor, listens and starts the workers, which accept connections and answer. A
worker that ends is started again. All end with the supervisor.

\b
Signals to the supervisor:
  SIGHUP           load everything anew: new workers load the code and the certificates that
                   there are now; when all are ready they serve, and the old ones drain.
                   No call of a reconnecting client fails. If one can't begin, all of the old
                   ones go on, and none of the new.
  SIGTERM, SIGINT  drain: accept nothing more, let running responders finish, end. Another of
                   them ends all at once.

\b
Examples:
  typed-amp serve shop.server:router
  typed-amp serve shop.server:router --host 0.0.0.0 --port 8000 --workers 4
  typed-amp serve shop.server:router --unix /run/shop.sock
  typed-amp serve shop.server:router --tls-cert server.pem --tls-key server.key
  typed-amp serve shop.server:router --reload

Exit codes: 0 if it has drained, 1 if calls were cut off at the end, 2 if it can't serve what it was
told to, or not there.
"""


class LogLevel(StrEnum):
    """What is logged, and what is worse."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    router: Annotated[
        str,
        typer.Argument(
            metavar="ROUTER", help="package.module:router", autocompletion=complete_router
        ),
    ],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A name or an address to listen at. May be given several times.",
            show_default="localhost",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="The port; 0 takes a free one.",
            show_default="8000, or none with --unix",
        ),
    ] = None,
    unix: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Listen at a Unix socket, in the clear; at a port too only if one is given.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Speak TLS, with this certificate and those between it and its authority's.",
            show_default=False,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The certificate's private key, if it is not in the same file.",
            show_default=False,
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Clients must show a certificate that one of these authorities has signed.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", "-w", min=1, max=1_000, help="How many processes answer; one per core."
        ),
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Load everything anew whenever a Python file of the package changes, or one beside"
            " the module if it is in no package.",
        ),
    ] = False,
    max_connections: Annotated[
        int, typer.Option(min=1, help="How many connections each worker may have.")
    ] = MAX_CONNECTIONS,
    drain_timeout: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long running responders may go on at the end."
        ),
    ] = DRAIN_TIMEOUT,
    start_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long a worker may take until it has loaded ROUTER and is ready.",
        ),
    ] = START_TIMEOUT,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged on standard error.", case_sensitive=False)
    ] = LogLevel.INFO,
    pid_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write the supervisor's process ID here while it serves.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a router; see its help."""
    if not all(router.partition(":")):
        fail(f"{router!r} is no router; say package.module:router")
    if tls_cert is None and (tls_key or tls_ca):
        fail(f"{'--tls-key' if tls_key else '--tls-ca'} needs --tls-cert too")
    if not start_timeout > 0:
        fail(f"--start-timeout must be positive, not {start_timeout:g}")
    settings = ServeSettings(
        router,
        drain_timeout=drain_timeout,
        max_connections=max_connections,
        start_timeout=start_timeout,
        log_level=log_level.name,
        tls_certificate=_as_text(tls_cert),
        tls_key=_as_text(tls_key),
        tls_authority=_as_text(tls_ca),
    )
    if settings.tls_certificate is not None:
        try:
            server_context(settings.tls_certificate, settings.tls_key, settings.tls_authority)
        except TLSFileTrouble as trouble:
            fail(str(trouble))
    log_as("supervisor", settings.log_level)
    is_tcp = unix is None or port is not None or host is not None
    where = (host or ["localhost"], 8000 if port is None else port) if is_tcp else None
    supervising = _supervise(settings, where, unix, pid_file, count=workers, reloads=reload)
    code = asyncio.run(supervising)
    forget_output()
    raise typer.Exit(code)


async def _supervise(
    settings: ServeSettings,
    where: tuple[list[str], int] | None,
    unix: Path | None,
    pid_file: Path | None,
    *,
    count: int,
    reloads: bool,
) -> int:
    changes = changes_of(settings.target) if reloads else None
    supervisor = Supervisor(settings, count, changes)
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        try:
            if where is not None:
                sockets += map(stack.enter_context, await listen_tcp(*where))
            if unix is not None:
                sockets.append(stack.enter_context(listen_unix(unix)))
                if file := SocketFile.of(sockets[-1]):
                    stack.callback(file.remove)
        except OSError as error:
            fail(f"can't listen: {error}")
        stack.enter_context(_process_id_in(pid_file))
        _say_where(settings, sockets)
        return await supervisor.run(sockets)


def _say_where(settings: ServeSettings, sockets: list[socket.socket]) -> None:
    places = ", ".join(shown(address_of(sock.getsockname())) for sock in sockets)
    tls = ", with TLS" if settings.tls_certificate is not None else ""
    _logger.info("listening at %s%s, for %s", places, tls, settings.target)


@contextlib.contextmanager
def _process_id_in(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    own = f"{os.getpid()}\n"
    try:
        path.write_text(own)
    except OSError as error:
        fail(f"can't write {path}: {error.strerror}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == own:  # another one may have begun meanwhile
                path.unlink()


def _as_text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
