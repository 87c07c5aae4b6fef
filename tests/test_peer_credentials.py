"""Which process is at the other end."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.peers import HOST, joined, until
from tests.programs import program
from typed_amp import PeerCredentials, Router, connect_unix, serve_unix
from typed_amp.peer_credentials import credentials_of
from typed_amp.testing import connection_pair

linux_alone = pytest.mark.skipif(sys.platform != "linux", reason="no other system is asked")

CLIENT = """
import asyncio, os, sys
from typed_amp import connect_unix

async def main():
    async with connect_unix(sys.argv[1]) as connection:
        print(os.getpid(), os.geteuid(), os.getegid(), flush=True)
        await connection.wait_closed()

asyncio.run(main())
"""


@linux_alone
async def test_the_server_sees_the_client_which_is_another_process(tmp_path: Path) -> None:
    path = str(tmp_path / "amp")
    async with serve_unix(Router(), path) as server:
        async with program("-c", CLIENT, path, directory=tmp_path) as client:
            numbers = [int(word) for word in (await client.line()).split()]
            await until(lambda: server.connections)
            (connection,) = server.connections
            assert connection.peer_credentials == tuple(numbers)
            assert numbers[0] != os.getpid()
            server.close()
            await client.rest()
        await server.wait_closed()
        assert connection.peer_credentials == tuple(numbers)  # the connection has ended


@linux_alone
@pytest.mark.parametrize("with_tls", [False, True])
async def test_both_ends_see_each_other(
    with_tls: bool, certificates: Certificates, tmp_path: Path
) -> None:
    path = str(tmp_path / "amp")
    this_process = PeerCredentials(os.getpid(), os.geteuid(), os.getegid())
    async with (
        serve_unix(Router(), path, ssl=certificates.server if with_tls else None) as server,
        connect_unix(
            path,
            ssl=certificates.client if with_tls else None,
            server_hostname="localhost" if with_tls else None,
        ) as client,
    ):
        await until(lambda: server.connections)
        (connection,) = server.connections
        assert connection.peer_credentials == client.peer_credentials == this_process


async def test_there_are_none_where_the_system_tells_none() -> None:
    async with joined(Router()) as pair:
        assert [connection.peer_credentials for connection in pair] == [None, None]
    async with connection_pair(Router()) as pair:
        assert [connection.peer_credentials for connection in pair] == [None, None]


def test_sockets_of_all_kinds() -> None:
    assert credentials_of(None) is None
    with socket.create_server((HOST, 0)) as listener:
        assert credentials_of(listener) is None
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        expected = (os.getpid(), os.geteuid(), os.getegid()) if sys.platform == "linux" else None
        assert credentials_of(one) == expected
    assert credentials_of(one) is None  # it is closed
