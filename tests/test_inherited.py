from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import HOST, until
from typed_amp import Client, connect, connect_unix, serve_sockets
from typed_amp.listening import listen_unix


def listener() -> socket.socket:
    return socket.create_server((HOST, 0))


@pytest.mark.usefixtures("nothing_left")
async def test_sockets_of_both_kinds_are_served_and_their_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listener() as tcp, listen_unix(path) as unix:
        port = tcp.getsockname()[1]
        async with serve_sockets(example_router(), [tcp.dup(), unix.dup()]) as server:
            assert list(server.addresses) == [(HOST, port), str(path)]
            async with connect(HOST, port) as one, connect_unix(path) as other:
                assert await one.call(Repeat(text="a")) == Text(text="a")
                assert await other.call(Repeat(text="b")) == Text(text="b")
        assert path.is_socket()
        async with serve_sockets(example_router(), [unix.dup()]), connect_unix(path) as again:
            assert await again.call(Repeat(text="c")) == Text(text="c")


@pytest.mark.usefixtures("nothing_left")
async def test_what_does_not_listen_is_refused_and_closed() -> None:
    silent = socket.socket()
    with pytest.raises(OSError, match="does not listen; call listen"):
        await serve_sockets(example_router(), [silent])
    assert silent.fileno() == -1
    with pytest.raises(ValueError, match="no socket to serve on"):
        await serve_sockets(example_router(), [])


@pytest.mark.usefixtures("nothing_left")
async def test_one_server_takes_the_place_of_another_and_no_call_is_lost() -> None:
    old, new = Gate(), Gate()
    with listener() as sock:
        port = sock.getsockname()[1]
        first = await serve_sockets(old.router, [sock.dup()])
        async with Client(HOST, port) as client:
            running = asyncio.create_task(client.call(Wait(key=1)))
            await old.holds(1)
            async with serve_sockets(new.router, [sock.dup()]):
                await first.stop_accepting()
                staying = asyncio.create_task(client.call(Wait(key=2)))  # on the same connection
                await old.holds(2)
                async with connect(HOST, port) as late:
                    asking = asyncio.create_task(late.call(Wait(key=3)))
                    await new.holds(1)
                    first.close()
                    old.waiting[1].set_result("old")
                    old.waiting[2].set_result("old")
                    new.waiting[3].set_result("new")
                    answers = await asyncio.gather(running, staying, asking)
                    assert [answer.text for answer in answers] == ["old", "old", "new"]
                await first.wait_closed()
                moved = asyncio.create_task(client.call(Wait(key=4)))
                await new.holds(2)
                new.waiting[4].set_result("new")
                assert await moved == Text(text="new")


@pytest.mark.usefixtures("nothing_left")
async def test_handshakes_under_way_go_on_when_nothing_more_is_accepted(
    certificates: Certificates,
) -> None:
    with listener() as sock:
        port = sock.getsockname()[1]
        server = await serve_sockets(example_router(), [sock.dup()], ssl=certificates.server)
        connecting = asyncio.create_task(connect(HOST, port, ssl=certificates.client)._coroutine)
        await until(lambda: not server._acceptor.is_idle)
        stopping = asyncio.create_task(server.stop_accepting())
        async with await connecting as connection:
            assert await connection.call(Repeat(text="a")) == Text(text="a")
            await stopping
            server.close()
            await server.wait_closed()
