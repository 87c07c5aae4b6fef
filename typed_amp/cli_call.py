"""`typed-amp call`: its arguments, and what it prints.

Rule of this module: answers go to standard output, and all else to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path  # noqa: TC003 - typer itself reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from typed_amp.addresses import address_from, shown
from typed_amp.call_arguments import ArgumentTrouble, command_from
from typed_amp.command_error import CommandError
from typed_amp.completion import complete_command, complete_field
from typed_amp.connecting import CONNECT_TIMEOUT
from typed_amp.errors import (
    AmpError,
    CallTimeoutError,
    ConnectionLostError,
    DecodeError,
    EncodeError,
    RemoteAmpError,
)
from typed_amp.load import Load, code_of
from typed_amp.named import NameTrouble, named_command
from typed_amp.reconnecting import Client
from typed_amp.rendering import as_plain
from typed_amp.server import loop_factory
from typed_amp.tables import answer_as_table, result_as_plain, result_as_table
from typed_amp.terminal import fail, flush, prepare_output, show
from typed_amp.tls_files import TLSFileTrouble, client_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

    from typed_amp.command import Command
    from typed_amp.load import Result

__all__ = ["CALL_HELP", "call"]

CALL_HELP = """
Call a command, and print its answer.

ADDRESS is HOST:PORT, [::1]:PORT or unix:PATH. COMMAND is a module and the name of a Command in it,
such as shop.commands:Buy. Modules are found as `python -m` finds them, in the current directory
first. The fields follow as NAME=VALUE, and the command's model reads them: text as it is, numbers,
dates and so on as pydantic reads them from text, and lists, rows and models as JSON. @FILE stands
for what is in a file, @- for standard input, and @@ for an @ at the beginning.

With --repeat the call is made many times, by a client that reconnects, and the answers are not
printed, but how many came in a second, how long they took, and what failed.

\b
Examples:
  typed-amp call localhost:8000 shop.commands:Repeat text=abc times=3
  typed-amp call localhost:8000 shop.commands:Add 'numbers=[1,2]' --json
  typed-amp call unix:/run/shop.sock shop.commands:Upload data=@photo.jpg --timeout 5
  typed-amp call shop.example.org:8000 shop.commands:Repeat text=abc --tls
  typed-amp call localhost:8000 shop.commands:Repeat text=abc --repeat 100000 --in-flight 50

\b
Exit codes:
  0  it was answered
  1  the peer answered with an error, or with what the command doesn't declare; with --repeat: at
     least one call failed
  2  the arguments are wrong, and nothing was sent
  3  there is no connection, or it was lost
  4  no answer came within the time
  130  it was interrupted by Ctrl-C
"""

_REMOTE: Final = 1
_NO_CONNECTION: Final = 3
_TIMEOUT: Final = 4
_INTERRUPTED: Final = 130

_ATTEMPTS: Final = 5
"""How often in a row a client under load may fail to connect, and how often it makes a call."""


def call(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="HOST:PORT or unix:PATH")],
    command: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND", help="package.module:Command", autocompletion=complete_command
        ),
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE",
            help="The command's fields.",
            show_default=False,
            autocompletion=complete_field,
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, errors too, for other programs.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            help="How long to wait for each answer.",
            show_default="as long as it takes",
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Speak TLS; so it is with the other --tls options.")
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The authority that must have signed the server's certificate.",
            show_default="the system's",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show this certificate.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Its private key, if not in the same file.", show_default=False
        ),
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name that must be in the server's certificate.",
            show_default="HOST",
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Make the call so often.", show_default=False),
    ] = None,
    in_flight: Annotated[
        int, typer.Option(min=1, metavar="M", help="With --repeat: how many calls at a time.")
    ] = 1,
    connections: Annotated[
        int, typer.Option(min=1, metavar="K", help="With --repeat: on how many connections.")
    ] = 1,
) -> None:
    """Call a command; see its help."""
    logging.getLogger("typed_amp").addHandler(logging.NullHandler())  # all is told here
    if repeat is None and (in_flight > 1 or connections > 1):
        fail(f"{'--in-flight' if in_flight > 1 else '--connections'} needs --repeat too")
    try:
        where = address_from(address)
        made = command_from(named_command(command), fields or [])
        context = None
        if tls or tls_ca or tls_cert or tls_key or server_name:
            if tls_key and not tls_cert:
                fail("--tls-key needs --tls-cert too")
            context = client_context(*map(_as_text, (tls_ca, tls_cert, tls_key)))
    except ArgumentTrouble as trouble:
        fail(f"{command}: " + f"\ntyped-amp: {command}: ".join(str(trouble).splitlines()))
    except (NameTrouble, TLSFileTrouble, ValueError) as trouble:
        fail(str(trouble))
    if context is not None and isinstance(where, str) and not server_name:
        fail("TLS over a Unix socket needs --server-name, the name in the server's certificate")
    prepare_output()
    calling = _Calling(made, where, context, server_name, timeout, as_json=as_json)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            if repeat is None:
                runner.run(calling.once())
            else:
                runner.run(calling.often(repeat, in_flight, min(connections, in_flight, repeat)))
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


class _Calling:
    """One command that is to be called, and where."""

    def __init__(
        self,
        command: Command[Any],
        address: tuple[str, int] | str,
        context: SSLContext | None,
        server_name: str | None,
        timeout: float | None,
        *,
        as_json: bool,
    ) -> None:
        self._command = command
        self._address = address
        self._context = context
        self._server_name = server_name
        self._timeout = timeout
        self._as_json = as_json

    async def once(self) -> None:
        async with await self._connected(attempts=1) as client:
            try:
                answer = await client.call(self._command, timeout=self._timeout)
            except Exception as error:
                self._fail(error)
        if self._as_json:
            show(json.dumps(as_plain(answer)))
        elif answer is not None:
            show(answer_as_table(answer))
        flush()

    async def often(self, repeat: int, in_flight: int, connections: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(await self._connected(attempts=_ATTEMPTS))
                for _ in range(connections)
            ]
            load = Load(
                clients, self._command, repeat=repeat, in_flight=in_flight, timeout=self._timeout
            )
            is_interrupted = False
            try:
                async with _progress(load.result, repeat):
                    await load.run()
            except asyncio.CancelledError:
                is_interrupted = True  # what there is by now is worth showing
            except Exception as error:
                self._fail(error)
        result = load.result
        show(json.dumps(result_as_plain(result)) if self._as_json else result_as_table(result))
        flush()
        if is_interrupted:
            raise typer.Exit(_INTERRUPTED)
        if result.errors:
            raise typer.Exit(_REMOTE)

    async def _connected(self, attempts: int) -> Client[None]:
        seconds = CONNECT_TIMEOUT if self._timeout is None else min(self._timeout, CONNECT_TIMEOUT)
        client = Client(
            self._address,
            ssl=self._context,
            server_hostname=self._server_name,
            attempts=attempts,
            connect_timeout=seconds,
        )
        try:
            return await client
        except (AmpError, OSError, ValueError) as error:
            cause = error.__cause__ or error
            self._say("NO_CONNECTION", f"can't connect to {shown(self._address)}: {cause}")
            raise typer.Exit(_NO_CONNECTION) from error

    def _fail(self, error: Exception) -> NoReturn:
        """Say why there is no answer, and end."""
        signature = self._command.__amp_signature__()
        if isinstance(error, EncodeError):
            fail(str(error))
        is_declared = signature.declared(error) is not None
        if not (is_declared or isinstance(error, AmpError)):
            raise error
        description = error.description if isinstance(error, RemoteAmpError) else str(error)
        fields = as_plain(_fields(error)) if isinstance(error, CommandError) else {}
        self._say(code_of(self._command, error), description, fields)
        if is_declared or isinstance(error, (RemoteAmpError, DecodeError)):
            raise typer.Exit(_REMOTE) from error
        if isinstance(error, CallTimeoutError):
            raise typer.Exit(_TIMEOUT) from error
        assert isinstance(error, ConnectionLostError), error
        raise typer.Exit(_NO_CONNECTION) from error

    def _say(self, code: str, description: str, fields: dict[str, Any] | None = None) -> None:
        """Write an error to standard error. A peer may have chosen what is in it."""
        if self._as_json:
            told = {"code": code, "description": description, "fields": fields or {}}
            typer.echo(json.dumps({"error": told}), err=True)
        else:
            plain = f"typed-amp: {code}: {description}"
            typer.echo("".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain), err=True)


def _fields(error: CommandError) -> dict[str, Any]:
    return {field.name: getattr(error, field.name) for field in error.__amp_fields_plan__().fields}


def _as_text(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path)


@contextlib.asynccontextmanager
async def _progress(result: Result, repeat: int) -> AsyncIterator[None]:
    """Show how far it is, on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} calls/s, {task.fields[errors]} errors"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("calls", total=repeat, rate="", errors=0)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def move() -> None:
            while True:
                await asyncio.sleep(0.1)
                rate = result.done / (loop.time() - began)
                errors = result.errors.total()
                progress.update(bar, completed=result.done, rate=f"{rate:,.0f}", errors=errors)

        moving = asyncio.create_task(move())
        try:
            yield
        finally:
            moving.cancel()
            await asyncio.wait([moving])
