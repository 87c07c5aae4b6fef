"""TLS on a transport in the clear: what is refused before, and bytes that came before."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Certificates
from typed_amp import StartTLSError
from typed_amp.tls import check_context, feed_protocol


class Whole(asyncio.Protocol):
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)


class InPieces(asyncio.BufferedProtocol):
    """Gives buffers of whatever sizes, more than is asked for among them."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._buffer = bytearray()
        self.received = b""

    def get_buffer(self, sizehint: int) -> bytearray:
        self._buffer = bytearray(self._sizes.pop() if self._sizes else sizehint)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]


@given(st.binary(min_size=1, max_size=100), st.lists(st.integers(1, 50)))
def test_either_kind_of_protocol_gets_all_bytes(data: bytes, sizes: list[int]) -> None:
    whole, in_pieces = Whole(), InPieces(sizes)
    feed_protocol(whole, data)
    feed_protocol(in_pieces, data)
    assert whole.pieces == [data]
    assert in_pieces.received == data


class Transport(asyncio.Transport):
    """Can't carry TLS, as a pipe can't."""


class SocketTransport(asyncio.Transport):
    """Says that it can, as asyncio's do."""

    _start_tls_compatible = True


async def test_a_transport_that_cant_carry_tls(certificates: Certificates) -> None:
    with pytest.raises(StartTLSError, match="Transport can't carry TLS"):
        check_context(Transport(), certificates.server, is_server=True, server_hostname=None)


@pytest.mark.parametrize(
    ("protocol", "is_server", "name", "reason"),
    [
        (ssl.PROTOCOL_TLS_CLIENT, True, None, "this side is the connection's server"),
        (ssl.PROTOCOL_TLS_SERVER, False, "localhost", "this side is the connection's client"),
        (ssl.PROTOCOL_TLS_CLIENT, False, None, "give server_hostname="),
        (ssl.PROTOCOL_TLS_CLIENT, False, "", "give server_hostname="),
        (ssl.PROTOCOL_TLS_CLIENT, False, ".org", "no handshake can begin"),
        (ssl.PROTOCOL_TLS_CLIENT, False, "x" * 64 + ".org", "no handshake can begin"),
    ],
)
async def test_a_context_that_does_not_fit(
    protocol: Any, is_server: bool, name: str | None, reason: str
) -> None:
    transport = SocketTransport()
    with pytest.raises(StartTLSError, match=reason):
        check_context(
            transport, ssl.SSLContext(protocol), is_server=is_server, server_hostname=name
        )


async def test_contexts_that_fit(certificates: Certificates) -> None:
    transport = SocketTransport()
    check_context(transport, certificates.server, is_server=True, server_hostname=None)
    check_context(transport, certificates.client, is_server=False, server_hostname="localhost")
    check_context(transport, certificates.client, is_server=False, server_hostname="::1")
    check_context(transport, certificates.unnamed_client(), is_server=False, server_hostname=None)
