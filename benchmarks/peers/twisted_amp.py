"""Twisted's AMP, as its documentation writes servers and clients.

It runs on the reactor that Twisted takes by itself, epoll's on Linux, which is its fastest here.
Twisted checks types and no more, so the responders check ranges, as they would have to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import defer, endpoints, reactor, ssl, task
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from benchmarks import work
from benchmarks.peers.clock import Clock, call_in_turn
from benchmarks.peers.turn import HOST, announce

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn


class NoSuchItemError(Exception):
    pass


class Repeat(amp.Command):
    arguments = [(b"text", amp.Unicode()), (b"times", amp.Integer())]
    response = [(b"text", amp.Unicode())]


class Value(amp.Command):
    arguments = [(b"data", amp.String())]
    response = [(b"data", amp.String())]


class Numbers(amp.Command):
    arguments = [(b"numbers", amp.ListOf(amp.Integer()))]
    response = [(b"numbers", amp.ListOf(amp.Integer()))]


class Rows(amp.Command):
    arguments = [(b"first", amp.Integer()), (b"count", amp.Integer())]
    response = [
        (
            b"rows",
            amp.AmpList(
                [
                    (b"number", amp.Integer()),
                    (b"name", amp.Unicode()),
                    (b"city", amp.Unicode()),
                    (b"quantity", amp.Integer()),
                    (b"price", amp.Float()),
                    (b"is_active", amp.Boolean()),
                ]
            ),
        )
    ]


class Find(amp.Command):
    arguments = [(b"name", amp.Unicode())]
    errors = {NoSuchItemError: b"NO_SUCH_ITEM"}


class Server(amp.AMP):
    @Repeat.responder
    def repeat(self, text: str, times: int) -> dict[str, str]:
        if not 0 <= times <= work.MAX_TIMES:
            raise ValueError("times is out of range")
        return {"text": text * times}

    @Value.responder
    def value(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}

    @Numbers.responder
    def numbers(self, numbers: list[int]) -> dict[str, list[int]]:
        return {"numbers": numbers[::-1]}

    @Rows.responder
    def rows(self, first: int, count: int) -> dict[str, Any]:
        if not 0 <= count <= work.MAX_COUNT:
            raise ValueError("count is out of range")
        return {"rows": [row._asdict() for row in map(work.row, range(first, first + count))]}

    @Find.responder
    def find(self, name: str) -> dict[str, Any]:
        raise NoSuchItemError(work.complaint(name))


def run_server(turn: Turn) -> None:
    async def main() -> None:
        port: Any = await server_endpoint(turn).listen(Factory.forProtocol(Server))
        announce(0 if turn.path else port.getHost().port)
        await defer.Deferred()

    task.react(lambda _: defer.ensureDeferred(main()))


def run_client(turn: Turn) -> None:
    async def main() -> None:
        protocol: Any = await endpoints.connectProtocol(client_endpoint(turn), amp.AMP())
        call = calls_of(protocol)[turn.work]
        await call()
        clock = Clock(turn)
        callers = (defer.ensureDeferred(call_in_turn(call, clock)) for _ in range(turn.in_flight))
        await defer.gatherResults(callers)
        clock.report()

    task.react(lambda _: defer.ensureDeferred(main()))


def calls_of(protocol: Any) -> Mapping[str, Call]:
    async def call_repeat() -> None:
        result = await protocol.callRemote(Repeat, text=work.TEXT, times=work.TIMES)
        assert result["text"] == work.REPEATED

    async def call_value() -> None:
        result = await protocol.callRemote(Value, data=work.VALUE)
        assert result["data"] == work.VALUE

    async def call_list() -> None:
        result = await protocol.callRemote(Numbers, numbers=work.NUMBERS)
        assert result["numbers"] == work.REVERSED

    async def call_rows() -> None:
        result = await protocol.callRemote(Rows, first=work.FIRST, count=work.COUNT)
        assert len(result["rows"]) == work.COUNT
        assert result["rows"][-1] == last

    async def call_error() -> None:
        try:
            await protocol.callRemote(Find, name=work.MISSING)
        except NoSuchItemError as error:
            assert str(error) == work.complaint(work.MISSING)
        else:
            raise AssertionError("there was no error")

    last = work.LAST._asdict()
    return {
        "repeat": call_repeat,
        "value": call_value,
        "list": call_list,
        "rows": call_rows,
        "error": call_error,
    }


def server_endpoint(turn: Turn) -> Any:
    if turn.path:
        return endpoints.UNIXServerEndpoint(reactor, turn.path)
    if turn.is_encrypted:
        pem = turn.key.read_bytes() + turn.certificate.read_bytes()
        certificate = ssl.PrivateCertificate.loadPEM(pem)
        return endpoints.SSL4ServerEndpoint(reactor, 0, certificate.options(), interface=HOST)
    return endpoints.TCP4ServerEndpoint(reactor, 0, interface=HOST)


def client_endpoint(turn: Turn) -> Any:
    if turn.path:
        return endpoints.UNIXClientEndpoint(reactor, turn.path)
    tcp: Any = endpoints.TCP4ClientEndpoint(reactor, HOST, turn.port)
    if turn.is_encrypted:
        authority = ssl.Certificate.loadPEM(turn.authority.read_bytes())
        options = ssl.optionsForClientTLS("localhost", trustRoot=authority)
        return endpoints.wrapClientTLS(options, tcp)
    return tcp
