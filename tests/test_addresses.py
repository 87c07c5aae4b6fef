from __future__ import annotations

import socket
from pathlib import Path

import pytest

from typed_amp.addresses import address_from, address_of, shown


def test_tcp_address_is_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = listener.getsockname()
        assert address_of(name) == ("127.0.0.1", name[1])
        assert shown(address_of(name)) == f"127.0.0.1:{name[1]}"


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6_address_is_host_and_port_too() -> None:
    # What a socket of this family calls its address has two more elements.
    assert address_of(("::1", 8000, 0, 0)) == ("::1", 8000)
    assert shown(("::1", 8000)) == "[::1]:8000"


def test_unix_address_is_its_path(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert address_of(listener.getsockname()) == str(path)
        assert shown(str(path)) == str(path)


def test_client_of_a_unix_socket_has_an_empty_path() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert address_of(left.getpeername()) == ""
    assert shown("") == "a peer without an address"


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux has abstract names")
def test_abstract_name_is_shown_escaped() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0typed_amp \xff test")
        address = address_of(listener.getsockname())
    assert address == "\0typed_amp \udcff test"
    assert shown(address) == r"\x00typed_amp \udcff test"


@pytest.mark.parametrize("name", [None, 7, object()])
def test_what_is_no_address_is_none(name: object) -> None:
    assert address_of(name) is None
    assert shown(None) == "a peer without an address"


def test_address_as_a_list_is_an_address() -> None:
    assert address_of(["localhost", "8000"]) == ("localhost", 8000)


@pytest.mark.parametrize(
    ("path", "text"),
    [("/tmp/a\nb", r"/tmp/a\nb"), ("/tmp/größe", r"/tmp/gr\xf6\xdfe"), ("/tmp/it's", "/tmp/it's")],
)
def test_path_never_breaks_a_line(path: str, text: str) -> None:
    assert shown(path) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8000", ("localhost", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("unix:/run/shop.sock", "/run/shop.sock"),
        ("unix:shop.sock", "./shop.sock"),
        ("unix:80", ("unix", 80)),  # a host of this name
    ],
)
def test_what_is_typed_is_an_address(text: str, address: object) -> None:
    assert address_from(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":8000", "localhost:", "localhost:0", "localhost:65536", "unix:", "a:x"],
)
def test_what_is_typed_may_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no address; say HOST:PORT"):
        address_from(text)


def test_an_address_with_colons_needs_brackets() -> None:
    with pytest.raises(ValueError, match=r"write \[::1\]:8000, if that is meant"):
        address_from("::1:8000")
