"""Who is admitted, who is refused, and what becomes of those in between."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text
from tests.peers import HOST, LogCapture, RawPeer, port_of, raw_client, settled, until
from typed_amp import (
    Connection,
    ConnectionLostError,
    Limits,
    Router,
    Server,
    connect,
    connect_unix,
    encode_box,
    serve,
    serve_unix,
)

ASK = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"}
ANSWER = {b"_answer": b"1", b"text": b"abab"}


class House:
    """A router that notes all that happens on its connections."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.router: Router[str] = Router(state=self._new_state)

        @self.router.on_connect
        async def connected(connection: Connection[str]) -> None:
            self.log.append("connected")

        @self.router.on_disconnect
        async def disconnected(connection: Connection[str]) -> None:
            self.log.append("disconnected")

        @self.router.responder(Repeat)
        async def repeat(command: Repeat) -> Text:
            self.log.append("asked")
            return Text(text=command.text * 2)

    def _new_state(self) -> str:
        self.log.append("state")
        return "new"


LIVED = ["state", "connected", "asked", "disconnected"]


async def is_let_go(peer: RawPeer) -> bool:
    """Say whether the other end closes without a byte."""
    try:
        return await peer.read() == b""
    except ConnectionResetError:  # what was sent is thrown away
        return True


async def ended(server: Server[Any, Any]) -> None:
    await until(lambda: not server._connections)


def admits(connection: Connection[str]) -> bool:
    return True


async def admits_later(connection: Connection[str]) -> bool:
    await settled()
    return True


class Admitting:
    async def __call__(self, connection: Connection[str]) -> bool:
        return True


@pytest.mark.parametrize("admit", [admits, admits_later, Admitting(), lambda _: admits_later(_)])
async def test_admitted_connection_lives_as_others_do(admit: Any, log: LogCapture) -> None:
    house = House()
    async with serve(house.router, HOST, 0, admit=admit) as server:
        async with raw_client(server) as peer:
            assert await peer.ask(ASK) == ANSWER
        await ended(server)
    assert house.log == LIVED
    assert not log.lines(logging.INFO)


def refuses(connection: Connection[str]) -> bool:
    return False


async def refuses_later(connection: Connection[str]) -> bool:
    await settled()
    return False


def fails(connection: Connection[str]) -> bool:
    raise LookupError("no such list")


async def fails_later(connection: Connection[str]) -> bool:
    await settled()
    raise LookupError("no such list")


async def times_out_by_itself(connection: Connection[str]) -> bool:
    raise TimeoutError("no list in time")


def forgets_to_say(connection: Connection[str]) -> Any:
    pass


async def forgets_to_say_later(connection: Connection[str]) -> Any:
    return "yes"


async def is_cancelled(connection: Connection[str]) -> bool:
    raise asyncio.CancelledError


REFUSALS = [
    (refuses, "refuses", "returned False"),
    (refuses_later, "refuses_later", "returned False"),
    (fails, "fails", "raised LookupError"),
    (fails_later, "fails_later", "raised LookupError"),
    (times_out_by_itself, "times_out_by_itself", "raised TimeoutError"),
    (forgets_to_say, "forgets_to_say", "returned a NoneType, which is neither True nor False"),
    (forgets_to_say_later, "forgets_to_say_later", "returned a str, which is neither"),
    (is_cancelled, "is_cancelled", "was cancelled"),
]


@pytest.mark.parametrize(("admit", "name", "reason"), REFUSALS)
async def test_refused_connection_is_let_go_and_never_heard(
    admit: Callable[[Connection[str]], bool], name: str, reason: str, log: LogCapture
) -> None:
    house = House()
    async with serve(house.router, HOST, 0, admit=admit) as server:
        async with raw_client(server) as peer:
            await peer.send(ASK)
            host, port = peer.socket.getsockname()
            assert await is_let_go(peer)
        await ended(server)
        assert not server.connections
    assert not house.log
    *failures, line = log.lines(logging.INFO)
    assert line.startswith(f"refused {host}:{port}: tests.test_admission.{name} (")
    assert reason in line
    assert log.records[-1].levelno == logging.INFO
    assert len(failures) == reason.startswith("raised")
    assert all("admit= failed" in failure and "Traceback" in failure for failure in failures)


async def test_caller_that_is_refused_learns_that_the_connection_is_lost() -> None:
    house = House()
    async with (
        serve(house.router, HOST, 0, admit=refuses) as server,
        connect(HOST, port_of(server)) as client,
    ):
        with pytest.raises(ConnectionLostError):
            await client.call(Repeat(text="ab"))
        await client.wait_closed()


async def test_one_refusal_costs_the_others_nothing() -> None:
    house = House()
    peers: list[Any] = []

    def first_two(connection: Connection[str]) -> bool:
        peers.append(connection.remote_address)
        return len(peers) <= 2

    async with (
        serve(house.router, HOST, 0, admit=first_two) as server,
        connect(HOST, port_of(server)) as one,
        connect(HOST, port_of(server)) as two,
        raw_client(server) as three,
    ):
        assert await is_let_go(three)
        assert peers[2] == three.socket.getsockname()
        for client in (one, two):
            assert (await client.call(Repeat(text="ab"))).text == "abab"
        assert len(server.connections) == 2


# -- Meanwhile ------------------------------------------------------------------------------------


class Gate:
    """Admits when it is opened, and says who waits."""

    def __init__(self, *, says: bool = True) -> None:
        self.opened = asyncio.Event()
        self.waiting: list[Connection[str]] = []
        self.cancelled = 0
        self._says = says

    async def __call__(self, connection: Connection[str]) -> bool:
        self.waiting.append(connection)
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._says


async def test_nothing_is_read_until_it_is_decided() -> None:
    house, gate = House(), Gate()
    async with serve(house.router, HOST, 0, admit=gate) as server, raw_client(server) as peer:
        await peer.send(ASK)
        await until(lambda: gate.waiting)
        await settled()
        assert not house.log
        assert not server.connections
        # What the system takes for this side is bounded: nobody reads it.
        rest = flood = encode_box(ASK) * 1000
        while sent := peer.write_now(rest):
            rest = rest[sent:] or flood
            await settled()
        gate.opened.set()
        assert await peer.receive() == ANSWER
        assert server.connections == (gate.waiting[0],)
        peer.reset()
        await ended(server)


@pytest.mark.usefixtures("nothing_left")
async def test_peer_that_goes_meanwhile() -> None:
    house, gate = House(), Gate()
    async with serve(house.router, HOST, 0, admit=gate) as server:
        async with raw_client(server) as peer:
            await until(lambda: gate.waiting)
            peer.reset()
        gate.opened.set()
        await ended(server)
    assert house.log in ([], ["state", "connected", "disconnected"])  # it is seen when it is read


@pytest.mark.usefixtures("nothing_left")
async def test_server_that_closes_meanwhile() -> None:
    house, gate = House(), Gate()
    async with serve(house.router, HOST, 0, admit=gate) as server, raw_client(server) as peer:
        await until(lambda: gate.waiting)
        server.close()
        await server.wait_closed()
        assert gate.cancelled == 1
        assert await is_let_go(peer)
    assert not house.log


async def test_too_slow_a_decision_is_a_refusal(log: LogCapture) -> None:
    house, gate = House(), Gate()
    limits = Limits(handshake_timeout=0.01)
    async with (
        serve(house.router, HOST, 0, admit=gate, limits=limits) as server,
        raw_client(server) as peer,
    ):
        assert await is_let_go(peer)
        await ended(server)
    assert gate.cancelled == 1
    assert not house.log
    (line,) = log.lines(logging.INFO)
    assert "tests.test_admission.Gate" in line
    assert line.endswith("took more than 0.01 seconds")


async def test_a_function_may_close_the_connection_by_itself() -> None:
    house = House()

    def closes(connection: Connection[str]) -> bool:
        connection.close()
        return True

    async def closes_later(connection: Connection[str]) -> bool:
        connection.close()
        return True

    for admit in (closes, closes_later):
        async with serve(house.router, HOST, 0, admit=admit) as server, raw_client(server) as peer:
            assert await is_let_go(peer)
            await ended(server)
    assert not house.log


# -- By what --------------------------------------------------------------------------------------


def email_of(connection: Connection[str]) -> str | None:
    certificate = connection.peer_certificate
    names = certificate["subjectAltName"] if certificate else ()
    return next((name for kind, name in names if kind == "email"), None)


@pytest.mark.parametrize("is_async", [False, True])
async def test_by_certificate(is_async: bool, certificates: Certificates, tmp_path: Path) -> None:
    house = House()
    seen: list[str | None] = []

    def by_email(connection: Connection[str]) -> bool:
        seen.append(email_of(connection))
        return seen[-1] == wanted

    async def by_email_later(connection: Connection[str]) -> bool:
        return by_email(connection)

    async with serve(
        house.router,
        HOST,
        0,
        ssl=certificates.strict_server,
        admit=by_email_later if is_async else by_email,
    ) as server:
        wanted = "client@example.org"
        async with connect(HOST, port_of(server), ssl=certificates.named_client) as client:
            assert (await client.call(Repeat(text="ab"))).text == "abab"
        wanted = "ann@example.org"
        async with connect(HOST, port_of(server), ssl=certificates.named_client) as client:
            with pytest.raises(ConnectionLostError):
                await client.call(Repeat(text="ab"))
            await client.wait_closed()
        await ended(server)
    assert seen == ["client@example.org"] * 2
    assert house.log == LIVED


@pytest.mark.skipif(sys.platform != "linux", reason="no other system is asked")
@pytest.mark.parametrize("with_tls", [False, True])
async def test_by_the_user_of_a_unix_socket(
    with_tls: bool, certificates: Certificates, tmp_path: Path, log: LogCapture
) -> None:
    house = House()
    user_id = os.geteuid()

    def by_user(connection: Connection[str]) -> bool:
        credentials = connection.peer_credentials
        return credentials is not None and credentials.user_id == user_id

    path = str(tmp_path / "amp")
    async with serve_unix(
        house.router, path, ssl=certificates.server if with_tls else None, admit=by_user
    ) as server:
        tls: dict[str, Any] = {}
        if with_tls:
            tls = {"ssl": certificates.client, "server_hostname": "localhost"}
        async with connect_unix(path, **tls) as client:
            assert (await client.call(Repeat(text="ab"))).text == "abab"
        await ended(server)
        user_id += 1
        async with connect_unix(path, **tls) as client:
            with pytest.raises(ConnectionLostError):
                await client.call(Repeat(text="ab"))
            await client.wait_closed()
        await ended(server)
    assert house.log == LIVED
    (line,) = log.lines(logging.INFO)
    who = f"(process {os.getpid()}, user {os.geteuid()}, group {os.getegid()})"
    assert line.startswith(f"refused a peer without an address {who}: tests.test_admission.")
