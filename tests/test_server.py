from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from logging.handlers import QueueHandler
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.example_commands import Log, Repeat, Text, Wait, example_router
from tests.peers import HOST, RawPeer, port_of, raw_client, settled, until
from typed_amp import (
    Connection,
    ConnectionLostError,
    RemoteAmpError,
    Router,
    UnknownRemoteError,
    connect,
    connect_unix,
    run,
    serve,
    serve_unix,
)


async def test_awaited() -> None:
    server = await serve(example_router(), HOST, 0)
    async with connect(HOST, port_of(server)) as client:
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError):
        await connect(HOST, port_of(server))


async def test_entered() -> None:
    async with serve(example_router(), HOST, 0) as server:
        client = await connect(HOST, port_of(server))
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
    await client.wait_closed()
    with pytest.raises(OSError):
        await connect(HOST, port_of(server))


async def test_entered_when_it_is_there() -> None:
    async with await serve(example_router(), HOST, 0) as server:
        assert server.addresses
    with pytest.raises(OSError):
        await connect(HOST, port_of(server))


async def test_addresses_are_the_real_ones() -> None:
    async with serve(Router(), HOST, 0) as server:
        ((host, port),) = server.addresses
        assert host == HOST
        assert isinstance(port, int)
        assert port > 0
        with pytest.raises(OSError):
            await serve(Router(), HOST, port)


async def test_several_hosts() -> None:
    async with serve(example_router(), [HOST, "127.0.0.2"], 0) as server:
        assert sorted(str(address[0]) for address in server.addresses) == [HOST, "127.0.0.2"]
        assert len(server.addresses) == 2
        for host, port in server.addresses:
            async with connect(host, int(port)) as client:
                assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_all_hosts() -> None:
    async with serve(example_router(), None, 0) as server:
        for host, port in server.addresses:
            async with connect("::1" if ":" in host else HOST, int(port)) as client:
                assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_connections() -> None:
    async with serve(example_router(), HOST, 0) as server:
        assert not server.connections
        async with connect(HOST, port_of(server)) as first, connect(HOST, port_of(server)) as other:
            await asyncio.gather(*(client.call(Repeat(text="")) for client in (first, other)))
            assert len(server.connections) == 2
            assert all(isinstance(connection, Connection) for connection in server.connections)
        await until(lambda: not server.connections)


async def test_connection_counts_until_its_hooks_are_done() -> None:
    gate = asyncio.Event()
    router = Router()

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        await gate.wait()

    async with serve(router, HOST, 0) as server:
        async with raw_client(server):
            await until(lambda: server.connections)
        (connection,) = server.connections
        await until(lambda: connection.is_closed)
        await settled()
        assert server.connections == (connection,)
        gate.set()
        await until(lambda: not server.connections)


async def test_repr() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as client,
    ):
        await client.call(Repeat(text=""))
        assert repr(server) == f"<Server at {HOST}:{port_of(server)}, 1 connections>"
    assert repr(server) == f"<Server at {HOST}:{port_of(server)}, closing>"


# -- Closing -----------------------------------------------------------------------------------


async def test_closing_twice_and_again_afterwards() -> None:
    async with serve(Router(), HOST, 0) as server:
        server.close()
        server.close()
        await server.wait_closed()
        server.close(drain_timeout=0)
        await server.wait_closed()


def waiting_router(gate: asyncio.Event) -> Router:
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await gate.wait()
        return Text(text="drained")

    return router


async def test_closing_lets_responders_finish() -> None:
    gate = asyncio.Event()
    async with (
        serve(waiting_router(gate), HOST, 0, drain_timeout=60) as server,
        connect(HOST, port_of(server)) as client,
    ):
        call = asyncio.create_task(client.call(Wait()))
        await until(lambda: server.connections and server.connections[0]._link.responses.running)
        server.close()
        with pytest.raises(OSError):
            await connect(HOST, port_of(server))
        gate.set()
        assert await call == Text(text="drained")
        await server.wait_closed()


@pytest.mark.parametrize("how", ["serve", "close", "close again"])
async def test_closing_cancels_responders_that_take_too_long(how: str) -> None:
    gate = asyncio.Event()
    async with (
        serve(
            waiting_router(gate), HOST, 0, drain_timeout=0.01 if how == "serve" else 60
        ) as server,
        connect(HOST, port_of(server)) as client,
    ):
        call = asyncio.create_task(client.call(Wait()))
        await until(lambda: server.connections and server.connections[0]._link.responses.running)
        if how != "close":
            server.close()
        if how != "serve":
            server.close(drain_timeout=0)
        with pytest.raises(UnknownRemoteError):
            await call
        await server.wait_closed()


@pytest.mark.parametrize("with_tls", [False, True], ids=["tcp", "tls"])
async def test_what_was_answered_arrives_though_the_peer_goes_on_sending(
    with_tls: bool, certificates: Certificates
) -> None:
    gate = asyncio.Event()
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await gate.wait()
        return Text(text="x" * 60_000)

    async def go_on(client: Connection) -> None:
        with contextlib.suppress(ConnectionLostError):
            while True:
                await client.call(Log(line=bytes(1000)))
                await asyncio.sleep(0)

    async with (
        serve(
            router, HOST, 0, ssl=certificates.server if with_tls else None, drain_timeout=60
        ) as server,
        connect(HOST, port_of(server), ssl=certificates.client if with_tls else None) as client,
    ):
        calls = [asyncio.create_task(client.call(Wait())) for _ in range(50)]
        await until(
            lambda: server.connections and server.connections[0]._link.responses.running == 50
        )
        going_on = asyncio.create_task(go_on(client))
        server.close()
        await settled()
        gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
        await going_on


async def test_serve_forever_ends_when_somebody_closes() -> None:
    async with serve(Router(), HOST, 0) as server:
        serving = asyncio.create_task(server.serve_forever())
        await settled()
        assert not serving.done()
        server.close()
        await serving


async def test_serve_forever_cancelled_closes() -> None:
    server = await serve(example_router(), HOST, 0)
    serving = asyncio.create_task(server.serve_forever())
    async with connect(HOST, port_of(server)) as client:
        await client.call(Repeat(text=""))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await client.wait_closed()
    assert not server.connections
    await server.wait_closed()


async def test_peer_that_connects_while_it_closes_is_let_go(certificates: Certificates) -> None:
    met: list[Connection] = []
    router = example_router()

    @router.on_connect
    async def meet(connection: Connection) -> None:
        met.append(connection)

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        met.append(connection)

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificates.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with (
        serve(router, HOST, 0, ssl=certificates.server) as server,
        raw_client(server) as peer,
    ):
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await peer.write(outgoing.read())
        loop = asyncio.get_running_loop()
        incoming.write(await loop.sock_recv(peer.socket, 65_536))
        # The server has accepted it, and the handshake is half done.
        server.close()
        await server.wait_closed()
        await through_handshake_to_end(tls, incoming, outgoing, peer)
        await until(lambda: not server.connections)
        assert not met


async def through_handshake_to_end(
    tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, peer: RawPeer
) -> None:
    loop = asyncio.get_running_loop()
    data = b"not yet"
    while data:
        try:
            tls.do_handshake()
            await peer.write(outgoing.read())
            data = tls.read()
        except ssl.SSLWantReadError:
            data = await loop.sock_recv(peer.socket, 65_536)
            incoming.write(data)
    peer.socket.close()


# -- Unix sockets ------------------------------------------------------------------------------


async def test_unix_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve_unix(Router(), path) as server:
        assert path.is_socket()
        assert repr(server) == f"<Server at {path}, 0 connections>"
    assert not path.exists()


async def test_unix_socket_that_an_earlier_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with serve_unix(example_router(), path), connect_unix(path) as client:
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_unix_socket_that_another_server_has_taken_over_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve_unix(Router(), path) as old, serve_unix(example_router(), path):
        old.close()
        await old.wait_closed()
        assert path.is_socket()
        async with connect_unix(path) as client:
            assert await client.call(Repeat(text="ab")) == Text(text="ab")
    assert not path.exists()


async def test_unix_socket_that_is_gone_already(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve_unix(Router(), path):
        path.unlink()


async def test_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(OSError):
        await serve_unix(Router(), path)
    assert path.read_text() == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
async def test_abstract_unix_socket() -> None:
    name = f"\0typed_amp.{os.getpid()}"
    async with serve_unix(example_router(), name) as server, connect_unix(name) as client:
        assert server.addresses == (name,)
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        assert "\0" not in repr(server)
        assert "\0" not in repr(client)


async def test_unix_path_in_messages_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31mä"
    async with serve_unix(Router(), path) as server, connect_unix(path) as client:
        for shown in (repr(server), repr(client)):
            assert shown.isascii()
            assert shown.isprintable()
    with pytest.raises(ConnectionLostError) as caught:
        await client.call(Repeat(text=""))
    assert str(caught.value).isprintable()


# -- run() -------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, logging, sys
import typed_amp
from tests.example_commands import Log, Repeat, Text, Wait

if "without-uvloop" in sys.argv:
    sys.modules["uvloop"] = None
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
router = typed_amp.Router()

@router.responder(Repeat)
async def repeat(command: Repeat) -> Text:
    return Text(text=type(asyncio.get_running_loop()).__module__.partition(".")[0])

@router.responder(Wait)
async def wait(command: Wait, connection: typed_amp.Connection) -> Text:
    print("waiting", flush=True)
    return await connection.call(Repeat(text="may I go on"))

@router.responder(Log)
async def note(command: Log) -> None:
    print("noting", flush=True)
    await asyncio.Event().wait()

typed_amp.run(router, "127.0.0.1", 0, drain_timeout=60)
print("done", flush=True)
"""


class Program:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    async def ends(self) -> tuple[int, str]:
        """Wait for its end; give the exit code and what it still said."""
        output, _ = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, output.decode().strip()


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", PROGRAM, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parent.parent,
    )
    started = Program(process)
    try:
        while not (line := await started.line()).startswith("typed_amp serving at 127.0.0.1:"):
            assert line, "it ended"
        started.port = int(line.rpartition(":")[2])
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_run_ends_at_a_signal(number: signal.Signals) -> None:
    async with program() as server, connect(HOST, server.port) as client:
        await client.call(Repeat(text=""))
        server.process.send_signal(number)
        assert await server.ends() == (0, "done")
        await client.wait_closed()


@pytest.mark.parametrize(("arguments", "module"), [([], "uvloop"), (["without-uvloop"], "asyncio")])
async def test_run_uses_uvloop_where_it_is_installed(arguments: list[str], module: str) -> None:
    if module == "uvloop":
        pytest.importorskip("uvloop")
    async with program(*arguments) as server, connect(HOST, server.port) as client:
        assert await client.call(Repeat(text="")) == Text(text=module)
        server.process.terminate()
        assert await server.ends() == (0, "done")


@pytest.mark.parametrize("arguments", [[], ["without-uvloop"]], ids=["uvloop", "asyncio"])
async def test_run_drains(arguments: list[str]) -> None:
    may_go_on = asyncio.Event()
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        await may_go_on.wait()
        return Text(text="drained")

    async with (
        program(*arguments) as server,
        connect(HOST, server.port, router=router) as client,
    ):
        call = asyncio.create_task(client.call(Wait()))
        assert await server.line() == "waiting"
        server.process.terminate()
        await refuses(client)
        may_go_on.set()
        assert await call == Text(text="drained")
        assert await server.ends() == (0, "done")


async def refuses(client: Connection) -> None:
    """Wait until the server has seen its signal."""
    code = ""
    while code != "CLOSING":
        try:
            await client.call(Repeat(text=""))
        except RemoteAmpError as error:
            code = error.code


@pytest.mark.parametrize("arguments", [[], ["without-uvloop"]], ids=["uvloop", "asyncio"])
async def test_second_signal_cancels_what_still_runs(arguments: list[str]) -> None:
    router = Router()

    @router.responder(Repeat)
    async def never(command: Repeat) -> Text:
        await asyncio.Event().wait()
        return Text(text="")

    async with (
        program(*arguments) as server,
        connect(HOST, server.port, router=router, drain_timeout=0) as client,
    ):
        call = asyncio.create_task(client.call(Wait()))
        assert await server.line() == "waiting"
        server.process.terminate()
        await refuses(client)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(UnknownRemoteError):
            await call
        assert await server.ends() == (0, "done")


async def test_second_signal_cancels_what_runs_for_a_client_that_is_gone() -> None:
    async with (
        program() as server,
        connect(HOST, server.port) as other,
        connect(HOST, server.port) as client,
    ):
        await client.call(Log(line=b""))
        assert await server.line() == "noting"
        client.close()
        await client.wait_closed()
        server.process.terminate()
        await other.wait_closed()
        server.process.terminate()
        async with asyncio.timeout(10):
            assert await server.ends() == (0, "done")


@pytest.mark.parametrize("module", ["uvloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_in_this_process(
    module: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = QueueHandler(records)
    logger = logging.getLogger("typed_amp")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    router = Router()

    @router.responder(Repeat)
    async def stop(command: Repeat) -> Text:
        signal.raise_signal(number)
        return Text(text=type(asyncio.get_running_loop()).__module__.partition(".")[0])

    async def call() -> str:
        # The one line that is logged says where it listens.
        port = int(records.get().getMessage().rpartition(":")[2])
        async with connect(HOST, port) as client:
            answer = await client.call(Repeat(text=""))
            await client.wait_closed()
            return answer.text

    try:
        with ThreadPoolExecutor(1) as pool:
            called = pool.submit(asyncio.run, call())
            run(router, HOST, 0)
            assert called.result() == module
    finally:
        logger.removeHandler(handler)
