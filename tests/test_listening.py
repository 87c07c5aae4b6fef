from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from tests.peers import HOST
from typed_amp.listening import listen_tcp, listen_unix


async def test_a_name_stands_for_all_its_addresses() -> None:
    sockets = await listen_tcp(None, 0)
    try:
        families = {each.family for each in sockets}
        assert socket.AF_INET in families
        assert len(families) == len(sockets)
        for each in sockets:
            assert each.getsockname()[1] > 0
            assert each.getblocking() is False
    finally:
        for each in sockets:
            each.close()


async def test_several_names_share_a_port_each_address_once() -> None:
    sockets = await listen_tcp([HOST, "localhost", HOST], 0)
    try:
        addresses = [each.getsockname()[0] for each in sockets]
        assert HOST in addresses
        assert len(set(addresses)) == len(addresses)
    finally:
        for each in sockets:
            each.close()


async def test_an_address_in_use_is_named_and_nothing_stays_open() -> None:
    (first,) = await listen_tcp(HOST, 0)
    port = first.getsockname()[1]
    with first, pytest.raises(OSError, match=rf"{port}") as caught:
        await listen_tcp(["127.0.0.2", HOST], port)
    assert caught.value.errno == errno.EADDRINUSE
    (again,) = await listen_tcp("127.0.0.2", port)
    again.close()


async def test_a_name_that_is_unknown() -> None:
    with pytest.raises(socket.gaierror):
        await listen_tcp("no-such-host.invalid", 0)


async def test_a_socket_left_behind_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen_unix(path).close()
    assert path.is_socket()
    listen_unix(path).close()
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(OSError, match="file"):
        listen_unix(file)
    assert file.read_text() == "kept"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        listen_unix(tmp_path / "nowhere" / "socket")


def test_an_abstract_name() -> None:
    listener = listen_unix("\0typed_amp test of an abstract name")
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
