"""The two peers: Twisted's, as a process, and ours, as a router."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from tests.interop import commands
from tests.interop.commands import Answer, Echo, Row
from typed_amp import Connection, Router

T = TypeVar("T")

ROOT = Path(__file__).parents[2]


class TwistedProcess:
    """`twisted_peer` in a process of its own, which ends with its stdin."""

    def __init__(self, role: str, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.twisted_peer", role, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.places: dict[str, Any] = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the Twisted process ended with {self.process.wait()}"
        message: dict[str, Any] = json.loads(line)
        return message

    async def play(self, scenario: str, where: dict[str, Any], **arguments: Any) -> Any:
        """Have the client connect to `where`, play a scenario, and say what came of it."""
        request = {"scenario": scenario, "where": where, "arguments": arguments}
        answer = await asyncio.to_thread(self._exchange, json.dumps(request))
        assert "failure" not in answer, answer["failure"]
        return answer["result"]

    async def call(self, where: dict[str, Any], *calls: tuple[str, dict[str, Any]]) -> Any:
        """Have the client make calls, one after the other."""
        return await self.play("call", where, calls=calls)

    def _exchange(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(10)


@dataclass(frozen=True)
class Certificates:
    """PEM files by the names of whom they are for: `authority`, `server`, `client`."""

    directory: Path

    def for_start_tls(
        self, purpose: ssl.Purpose, certificate: str, authority: str
    ) -> ssl.SSLContext:
        """Make a context that shows a certificate and verifies by an authority, or doesn't."""
        context = ssl.create_default_context(purpose)
        context.check_hostname = bool(authority) and purpose is ssl.Purpose.SERVER_AUTH
        context.verify_mode = ssl.CERT_REQUIRED if authority else ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(self.directory / f"{certificate}.pem")
        if authority:
            context.load_verify_locations(self.directory / f"{authority}.pem")
        return context

    def server_context(self, *, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.directory / "server.pem")
        if mutual:
            context.load_verify_locations(self.directory / "authority.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, certificate: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.directory / "authority.pem")
        if certificate:
            context.load_cert_chain(self.directory / f"{certificate}.pem")
        return context


@dataclass
class Session:
    """What our side keeps of one connection."""

    notes: list[str] = field(default_factory=list)
    noted: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    gathered: list[asyncio.Future[None]] = field(default_factory=list)


router = Router(state=Session)


def echo_as(answer: type[Answer[T]]) -> Callable[[Echo[T]], Coroutine[Any, Any, Answer[T]]]:
    async def echo(command: Echo[T]) -> Answer[T]:
        return answer(value=command.value)

    return echo


router.responder(commands.EchoInteger)(echo_as(Answer[int]))
router.responder(commands.EchoString)(echo_as(Answer[bytes]))
router.responder(commands.EchoUnicode)(echo_as(Answer[str]))
router.responder(commands.EchoFloat)(echo_as(Answer[float]))
router.responder(commands.EchoBoolean)(echo_as(Answer[bool]))
router.responder(commands.EchoDecimal)(echo_as(Answer[Decimal]))
router.responder(commands.EchoDateTime)(echo_as(Answer[datetime]))
router.responder(commands.EchoPath)(echo_as(Answer[Path]))
router.responder(commands.EchoIntegers)(echo_as(Answer[list[int]]))
router.responder(commands.EchoStrings)(echo_as(Answer[tuple[bytes, ...]]))
router.responder(commands.EchoDateTimes)(echo_as(Answer[list[datetime]]))
router.responder(commands.EchoPaths)(echo_as(Answer[list[Path]]))
router.responder(commands.EchoNested)(echo_as(Answer[list[list[list[str]]]]))
router.responder(commands.EchoRows)(echo_as(Answer[list[Row]]))
router.responder(commands.EchoRow)(echo_as(Answer[Row]))
router.responder(commands.EchoLargeBytes)(echo_as(Answer[commands.LargeBytes]))
router.responder(commands.EchoLargeText)(echo_as(Answer[commands.LargeText]))
router.responder(commands.EchoCompressedBytes)(echo_as(Answer[commands.CompressedBytes]))


@router.responder(commands.EchoOptionals)
async def echo_optionals(command: commands.EchoOptionals) -> commands.Optionals:
    return commands.Optionals(**dict(command))


@router.responder(commands.EchoLetter)
async def echo_letter(command: commands.EchoLetter) -> commands.Letter:
    return commands.Letter(from_=command.from_, message_id=command.message_id)


@router.responder(commands.Strict)
async def be_strict(command: commands.Strict) -> Answer[int]:
    return Answer[int](value=command.value)


@router.responder(commands.Ping)
async def pong(command: commands.Ping) -> commands.Nothing:
    return commands.Nothing()


@router.responder(commands.Fail)
async def fail(command: commands.Fail) -> None:
    match command.error:
        case "OutOfStockError":
            raise commands.OutOfStockError(sku="A1", left=2)
        case "SoldOutError":
            raise commands.SoldOutError(since="noon")
    error_type = getattr(commands, command.error, None) or getattr(builtins, command.error)
    raise error_type("said the peer, é")


@router.responder(commands.Wait)
async def wait(command: commands.Wait) -> None:
    await asyncio.get_running_loop().create_future()


@router.responder(commands.Note)
async def note(command: commands.Note, connection: Connection[Session]) -> None:
    connection.state.notes.append(command.line)
    connection.state.noted.put_nowait(command.line)


@router.responder(commands.Notes)
async def list_notes(command: commands.Notes, connection: Connection[Session]) -> Answer[list[str]]:
    return Answer[list[str]](value=connection.state.notes)


@router.responder(commands.Gather)
async def gather(command: commands.Gather, connection: Connection[Session]) -> Answer[int]:
    gathered = connection.state.gathered
    gathered.append(asyncio.get_running_loop().create_future())
    if len(gathered) == command.total:
        for future in reversed(gathered):
            future.set_result(None)
    await gathered[command.number]
    return Answer[int](value=command.number)


@router.responder(commands.Bounce)
async def bounce(command: commands.Bounce, connection: Connection[Session]) -> Answer[int]:
    if command.left == 0:
        return Answer[int](value=1)
    answer = await connection.call(commands.Bounce(left=command.left - 1))
    return Answer[int](value=answer.value + 1)


@router.responder(commands.WhoAmI)
async def who_am_i(command: commands.WhoAmI, connection: Connection[Session]) -> Answer[str]:
    return Answer[str](value=common_name(connection))


@router.responder(commands.Introduce)
async def introduce(command: commands.Introduce, connection: Connection[Session]) -> Answer[str]:
    return await connection.call(commands.WhoAmI())


@router.responder(commands.OpenFile)
async def open_file(command: commands.OpenFile) -> commands.File:
    return commands.File(descriptor=os.open(command.path, os.O_RDONLY))


@router.responder(commands.WriteTo)
async def write_to(command: commands.WriteTo) -> None:
    os.write(command.descriptor, command.text.encode())
    os.close(command.descriptor)


@router.responder(commands.WriteToAll)
async def write_to_all(command: commands.WriteToAll) -> None:
    for row in command.rows:
        await write_to(commands.WriteTo(descriptor=row.descriptor, text=row.text))
    if command.last is not None:
        await write_to(commands.WriteTo(descriptor=command.last, text="the end"))


def common_name(connection: Connection[Any]) -> str:
    """Give the name in the certificate that the peer showed."""
    certificate = connection.peer_certificate
    assert certificate is not None
    names: dict[str, str] = dict(pair for pairs in certificate["subject"] for pair in pairs)
    return names["commonName"]
