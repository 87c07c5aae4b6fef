"""A Twisted client, unchanged, that calls a service in NATS by a bridge."""

from __future__ import annotations

import pytest

from tests.interop import commands
from tests.interop.commands import Answer
from tests.interop.peers import TwistedProcess, echo_as, fail
from tests.nats_servers import NatsServer
from tests.peers import LogCapture, port_of
from typed_amp import Router, connect_nats, nats_bridge, serve, serve_nats

STILL_THERE = ("EchoInteger", {"value": 1})
ANSWERED = {"answer": {"value": "0x1"}}


def responder_of_the_cluster(notes: list[str]) -> Router:
    router = Router()
    router.responder(commands.EchoInteger)(echo_as(Answer[int]))
    router.responder(commands.EchoString)(echo_as(Answer[bytes]))
    router.responder(commands.Fail)(fail)

    @router.responder(commands.Note)
    async def note(command: commands.Note) -> None:
        notes.append(command.line)

    return router


@pytest.mark.usefixtures("nothing_left")
async def test_twisted_reaches_the_cluster(
    nats: NatsServer, twisted_client: TwistedProcess, log: LogCapture
) -> None:
    notes: list[str] = []
    router = responder_of_the_cluster(notes)
    async with (
        serve_nats(router, nats.url, service="interop") as first,
        serve_nats(router, nats.url, service="interop") as second,
        connect_nats(nats.url, service="interop") as client,
        serve(nats_bridge(client), "127.0.0.1", 0) as server,
    ):
        where = {"transport": "tcp", "port": port_of(server)}
        outcomes = await twisted_client.call(
            where,
            STILL_THERE,
            ("Fail", {"error": "RefusedError"}),
            ("Fail", {"error": "ZeroDivisionError"}),
            ("Unheard", {}),
            ("Note", {"line": "a line"}),
            *[STILL_THERE] * 20,
        )
        answered, refused, failed, unheard, note, *others = outcomes
        assert answered == ANSWERED
        assert refused == {"error": "RefusedError", "text": "said the peer, é"}
        assert failed["error"] == "UnknownRemoteError"
        assert unheard["error"] == "UnhandledCommand"
        assert note == {"answer": None}
        assert others == [ANSWERED] * 20
        assert notes == ["a line"]
        assert min(first.counters.requests, second.counters.requests) > 0
        assert "ZeroDivisionError" in log.only_line()
