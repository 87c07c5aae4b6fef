"""Fixtures for all tests: certificates, the log, and a watch on what a test leaves behind."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import hypothesis
import pytest
import trustme

from tests.leftovers import Leftovers
from tests.nats_servers import NatsServer, nats_server
from tests.peers import LogCapture, captured_log

# No deadline: a busy machine makes a step slow, never wrong.
hypothesis.settings.register_profile("typed_amp", deadline=None)
hypothesis.settings.load_profile("typed_amp")


@pytest.fixture(autouse=True)
def watched(request: pytest.FixtureRequest) -> None:
    """Watch each asynchronous test; the others have no event loop to watch."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("event_loop_watch")


@pytest.fixture
async def event_loop_watch(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Run the test in asyncio's debug mode, and see that no task is left over, nor any error that
    nobody took."""
    asyncio.get_running_loop().set_debug(True)
    before = asyncio.all_tasks()
    yield
    left_over = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left_over:
        _, left_over = await asyncio.wait(left_over, timeout=5)
    assert not left_over
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    errors = [
        record.getMessage()
        for record in records
        if record.name == "asyncio" and record.levelno >= logging.ERROR
    ]
    assert not errors


@pytest.fixture
async def nothing_left(event_loop_watch: None) -> AsyncIterator[None]:
    """See that the test ends with the same descriptors, children and tasks as it began with."""
    leftovers = Leftovers()
    yield
    await leftovers.check()


@pytest.fixture
def log() -> Iterator[LogCapture]:
    """What goes to the `typed_amp` logger during the test."""
    with captured_log() as capture:
        yield capture


@dataclass(frozen=True)
class Certificates:
    """TLS contexts whose certificates one authority has signed."""

    server: ssl.SSLContext
    strict_server: ssl.SSLContext
    client: ssl.SSLContext
    named_client: ssl.SSLContext
    authority: trustme.CA

    def unnamed_client(self) -> ssl.SSLContext:
        """Make a client's context, with a certificate, that checks no name."""
        made = ssl.create_default_context()
        self.authority.configure_trust(made)
        self.authority.issue_cert("client@example.org", common_name="the client").configure_cert(
            made
        )
        made.check_hostname = False
        return made

    def server_called(self, name: str) -> ssl.SSLContext:
        """Make a server's context whose certificate is for another name."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(name).configure_cert(made)
        return made


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """A server, one that asks for the client's certificate; a client without one and with one."""
    authority = trustme.CA()
    server_certificate = authority.issue_cert("localhost", "127.0.0.1", common_name="the server")
    client_certificate = authority.issue_cert("client@example.org", common_name="the client")

    def context(purpose: ssl.Purpose, certificate: trustme.LeafCert | None) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose)
        authority.configure_trust(made)
        if certificate is not None:
            certificate.configure_cert(made)
        return made

    server = context(ssl.Purpose.CLIENT_AUTH, server_certificate)
    strict_server = context(ssl.Purpose.CLIENT_AUTH, server_certificate)
    strict_server.verify_mode = ssl.CERT_REQUIRED
    client = context(ssl.Purpose.SERVER_AUTH, None)
    named_client = context(ssl.Purpose.SERVER_AUTH, client_certificate)
    return Certificates(server, strict_server, client, named_client, authority)


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server for all tests that don't kill it."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server
