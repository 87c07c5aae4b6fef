"""A Twisted server and a Twisted client for the whole run; a connection and a server per test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.interop.peers import Certificates, Session, TwistedProcess, router
from typed_amp import Connection, Router, connect, connect_unix, serve, serve_unix


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("interop")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "authority.pem")
    trustme.CA().cert_pem.write_to_path(directory / "stranger.pem")
    for name in ("server", "client"):
        certificate = authority.issue_cert("localhost", common_name=name)
        certificate.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
    return Certificates(directory)


@pytest.fixture(scope="session")
def twisted_server(certificates: Certificates) -> Iterator[TwistedProcess]:
    process = TwistedProcess("server", certificates.directory)
    yield process
    process.close()


@pytest.fixture(scope="session")
def twisted_client(certificates: Certificates) -> Iterator[TwistedProcess]:
    process = TwistedProcess("client", certificates.directory)
    yield process
    process.close()


@pytest.fixture(params=["tcp", "unix", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def connection(
    transport: str, certificates: Certificates, twisted_server: TwistedProcess
) -> AsyncIterator[Connection[Session]]:
    """Our connection to the Twisted server."""
    place = twisted_server.places[transport]
    if transport == "unix":
        opening = connect_unix(place, router=router)
    else:
        context = certificates.client_context() if transport == "tls" else None
        opening = connect("localhost", place, router=router, ssl=context)
    async with opening as connection:
        yield connection


@dataclass
class OurServer:
    """Where the Twisted client finds a server of ours, and the connections that came to it."""

    where: dict[str, Any]
    connected: asyncio.Queue[Connection[Session]]


@pytest.fixture
async def our_server(
    transport: str, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[OurServer]:
    connected: asyncio.Queue[Connection[Session]] = asyncio.Queue()
    own_router = Router(state=Session)
    own_router.include(router)
    own_router.on_connect(connected.put)
    if transport == "unix":
        path = str(tmp_path / "ours.sock")
        async with serve_unix(own_router, path):
            yield OurServer({"transport": transport, "path": path}, connected)
    else:
        context = certificates.server_context() if transport == "tls" else None
        async with serve(own_router, "127.0.0.1", 0, ssl=context) as server:
            port = server.addresses[0][1]
            yield OurServer({"transport": transport, "port": port}, connected)
