"""The connection to NATS: made, refused, lost, and made again by nats-py."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from nats.aio.client import Client

from tests.conftest import Certificates
from tests.nats_servers import NatsServer, nats_cluster, nats_server
from tests.nats_services import (
    QUICK,
    Note,
    Repeat,
    Service,
    Text,
    Wait,
    WaitAgain,
    joined_by_nats,
)
from tests.peers import LogCapture, until
from tests.places import free_port
from typed_amp import (
    CallTimeoutError,
    ConnectionLostError,
    NatsClient,
    NatsService,
    RemoteAmpError,
    Router,
    connect_nats,
    serve_nats,
)
from typed_amp.nats_link import resume_closing

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_server_that_is_not_there_is_an_error_at_once() -> None:
    where = [f"nats://ann:hush@127.0.0.1:{free_port()}" for _ in range(2)]
    for opening in (
        connect_nats(where, service="calc"),
        serve_nats(Router(), where, service="calc"),
    ):
        with pytest.raises(ConnectionLostError, match=r"no connection to NATS at 127") as error:
            await opening
        assert "hush" not in str(error.value)
        assert isinstance(error.value.__cause__, OSError)


async def test_other_server_is_taken_where_one_is_not_there(nats: NatsServer) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    for servers in ([nowhere, nats.url], [nats.url, nowhere]):
        async with connect_nats(servers, service="calc", dont_randomize=True) as client:
            assert client.is_connected


async def test_user_is_let_in_by_a_password_only(tmp_path: Path) -> None:
    users = 'authorization { users: [{ user: "ann", password: "hush" }] }'
    with nats_server(tmp_path, config=users) as server:
        with pytest.raises(ConnectionLostError, match="Authorization Violation"):
            await connect_nats(server.url, service="calc", user="ann", password="wrong")
        async with (
            serve_nats(Service().router, server.url, service="calc", user="ann", password="hush"),
            connect_nats(
                server.url, service="calc", user=lambda: "ann", password=lambda: "hush"
            ) as client,
        ):
            assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_permissions_say_who_may_ask_for_what(tmp_path: Path, log: LogCapture) -> None:
    users = """authorization { users: [
        { user: "service", password: "hush" },
        { user: "ann", password: "hush", permissions: {
            publish: ["calc.Repeat"], subscribe: ["_INBOX.>"] } }
    ] }"""
    with nats_server(tmp_path, config=users) as server:
        async with (
            serve_nats(
                Service().router, server.url, service="calc", user="service", password="hush"
            ),
            connect_nats(server.url, service="calc", user="ann", password="hush") as client,
        ):
            assert await client.call(Repeat(text="ab")) == Text(text="ab")
            with pytest.raises(CallTimeoutError):
                await client.call(Wait(text="ab"), timeout=0.2)
            assert 'permissions violation for publish to "calc.wait"' in log.only_line().lower()


async def test_tls(tmp_path: Path, certificates: Certificates) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    config = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/key.pem" }}'
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with nats_server(tmp_path, config=config) as server:
        with pytest.raises(ConnectionLostError, match="certificate"):
            await connect_nats(server.url, service="calc", tls=certificates.client)
        async with (
            serve_nats(Service().router, server.url, service="calc", tls=context),
            connect_nats(server.url, service="calc", tls=context) as client,
        ):
            assert await client.call(Repeat(text="ab")) == Text(text="ab")


@asynccontextmanager
async def reconnecting(
    router: Router, server: NatsServer
) -> AsyncGenerator[tuple[NatsClient, NatsService]]:
    """Serve a router, and connect a client to it, which both come back at once."""
    async with (
        serve_nats(router, server.url, service="calc", reconnect_time_wait=0.05) as serving,
        connect_nats(
            server.url,
            service="calc",
            reconnect_time_wait=0.05,
            wait_for_responders=True,
            backoff=QUICK,
        ) as client,
    ):
        yield client, serving


async def test_server_that_comes_back(tmp_path: Path, log: LogCapture) -> None:
    service = Service()
    with nats_server(tmp_path) as server:
        async with reconnecting(service.router, server) as (client, serving):
            once = asyncio.ensure_future(client.call(Wait(text="once"), timeout=math.inf))
            again = asyncio.ensure_future(client.call(WaitAgain(text="again"), timeout=math.inf))
            began = {await service.began.get(), await service.began.get()}
            assert began == {"once", "again"}
            server.kill()
            with pytest.raises(ConnectionLostError, match=r"Wait: .* was lost") as lost:
                await once
            assert lost.value.was_sent
            await until(lambda: not serving.is_connected)
            assert repr(serving).endswith(", reconnecting>")
            assert repr(client).endswith(", reconnecting>")
            assert not client.is_connected
            waits = asyncio.ensure_future(client.call(Repeat(text="waits")))
            told = asyncio.ensure_future(client.call(Note(line="told")))
            with pytest.raises(CallTimeoutError):
                await client.call(Repeat(text="late"), timeout=0.05)
            with pytest.raises(CallTimeoutError):
                await client.call(Note(line="late"), timeout=0.05)
            assert not waits.done()
            await asyncio.to_thread(server.start)
            assert await waits == Text(text="waits")
            await told
            service.gate.set()
            assert await again == Text(text="again")
            told_of = [line for line in log.lines() if "lost; making another" in line]
            assert len(told_of) == 2
            assert any("connected to NATS again" in line for line in log.lines(0))


async def test_answer_waits_for_the_connection(tmp_path: Path) -> None:
    service = Service()
    with nats_cluster(tmp_path, 2) as nodes:
        first, second = nodes
        async with (
            serve_nats(
                service.router, first.url, service="calc", reconnect_time_wait=0.05
            ) as serving,
            connect_nats(
                second.url, service="calc", wait_for_responders=True, backoff=QUICK
            ) as client,
        ):
            call = asyncio.ensure_future(client.call(Wait(text="a")))
            await service.began.get()
            first.kill()
            await until(lambda: not serving.is_connected)
            service.gate.set()
            assert await call == Text(text="a")
            assert client.counters.calls == 1


async def test_client_ends_when_nats_py_gives_up(tmp_path: Path, log: LogCapture) -> None:
    service = Service()
    with nats_server(tmp_path) as server:
        async with (
            serve_nats(
                service.router,
                server.url,
                service="calc",
                reconnect_time_wait=0.01,
                max_reconnect_attempts=1,
            ) as serving,
            connect_nats(
                server.url, service="calc", reconnect_time_wait=0.01, max_reconnect_attempts=1
            ) as client,
        ):
            call = asyncio.ensure_future(client.call(WaitAgain(text="a"), timeout=math.inf))
            await service.began.get()
            server.kill()
            with pytest.raises(ConnectionLostError, match="has ended: nats: no servers"):
                await call
            await client.wait_closed()
            await serving.serve_forever()
            assert serving.is_closed
            assert service.cancelled == ["a"]
            assert any("has ended" in line for line in log.lines())


async def test_closing_while_there_is_no_connection(tmp_path: Path) -> None:
    service = Service()
    with nats_server(tmp_path) as server:
        async with joined_by_nats(service.router, server.url) as (client, serving):
            call = asyncio.ensure_future(client.call(Wait(text="a")))
            await service.began.get()
            server.kill()
            with pytest.raises(ConnectionLostError):
                await call
            await until(lambda: not serving.is_connected)
            waits = asyncio.ensure_future(client.call(Repeat(text="a")))
            await asyncio.sleep(0)
            client.close()
            with pytest.raises(ConnectionLostError, match="is closed") as error:
                await waits
            assert not error.value.was_sent
            serving.close(drain_timeout=0)
            await serving.wait_closed()
            await client.wait_closed()


async def test_nats_py_still_has_to_be_helped_to_close(tmp_path: Path) -> None:
    """If this fails, nats-py has changed what `resume_closing` relies on.

    If `close` no longer raises here, that function can go, and `_close_client` is a plain `close`.
    If the client isn't closed in the end, see in nats-py's `Client._close` what it asks for first.
    """
    events: list[str] = []

    async def lost() -> None:
        events.append("lost")

    async def closed() -> None:
        events.append("closed")

    async def ignore(message: object) -> None: ...

    with nats_server(tmp_path) as server:
        client = Client()
        await client.connect(
            server.url, disconnected_cb=lost, closed_cb=closed, error_cb=ignore, connect_timeout=1
        )
        await client.subscribe("calc.Repeat", cb=ignore)  # has a task
        await client.flush()
        server.kill()
        await until(lambda: events == ["lost"])
        await client.publish("calc.Repeat", b"not sent")
        with pytest.raises(OSError):
            await client.close()
        assert client.is_closed
        assert "closed" not in events
        resume_closing(client)
        await client.close()
        assert client.is_closed
        assert "closed" in events


async def test_responder_that_is_killed_by_its_own_error(nats: NatsServer) -> None:
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        raise asyncio.CancelledError

    async with joined_by_nats(router, nats.url) as (client, _):
        with pytest.raises(RemoteAmpError, match="UNKNOWN"):
            await client.call(Wait(text="a"))


async def test_attempt_to_connect_is_given_up(log: LogCapture) -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect_nats(url, service="calc")
        with pytest.raises(ConnectionLostError, match=r"to NATS at .*: TimeoutError"):
            await serve_nats(Router(), url, service="calc", connect_timeout=0.1)


async def test_server_that_is_none_is_refused() -> None:
    with pytest.raises(Exception, match="mixing of websocket"):
        await connect_nats(["nats://127.0.0.1:1", "ws://127.0.0.1:1"], service="calc")


async def test_service_that_closed_while_its_server_was_away_takes_nothing_more(
    tmp_path: Path,
) -> None:
    service = Service()
    with nats_server(tmp_path) as server:
        async with reconnecting(service.router, server) as (client, serving):
            again = asyncio.ensure_future(client.call(WaitAgain(text="again"), timeout=math.inf))
            assert await service.began.get() == "again"
            server.kill()
            await until(lambda: not serving.is_connected)
            serving.close()
            await asyncio.to_thread(server.start)
            await until(lambda: serving.is_connected and client.is_connected)
            with pytest.raises(CallTimeoutError):
                await client.call(Repeat(text="late"), timeout=0.3)
            assert serving.counters.refusals.keys() == {"CLOSING"}
            service.gate.set()
            assert await again == Text(text="again")
