"""Twisted's AMP: the server and the client of the benchmark, as its documentation writes them."""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import defer, endpoints, reactor, task
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from benchmarks.peers.clock import Clock


class Repeat(amp.Command):
    arguments = [(b"text", amp.Unicode()), (b"times", amp.Integer())]
    response = [(b"text", amp.Unicode())]


class Repeater(amp.AMP):
    @Repeat.responder
    def repeat(self, text: str, times: int) -> dict[str, str]:
        return {"text": text * times}


async def serve_repeat() -> None:
    endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port: Any = await endpoint.listen(Factory.forProtocol(Repeater))
    print(port.getHost().port, flush=True)
    await defer.Deferred()


async def call_repeat(port: int, in_flight: int, seconds: float) -> None:
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    protocol: Any = await endpoints.connectProtocol(endpoint, amp.AMP())
    clock = Clock(seconds)
    callers = (defer.ensureDeferred(call_in_turn(protocol, clock)) for _ in range(in_flight))
    await defer.gatherResults(callers)
    clock.report()


async def call_in_turn(protocol: Any, clock: Clock) -> None:
    is_time_left = True
    while is_time_left:
        start = time.perf_counter()
        result = await protocol.callRemote(Repeat, text="abc", times=3)
        is_time_left = clock.called(start)
        assert result["text"] == "abcabcabc"


if __name__ == "__main__":
    if sys.argv[1] == "server":
        task.react(lambda _: defer.ensureDeferred(serve_repeat()))
    else:
        port, in_flight, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
        task.react(lambda _: defer.ensureDeferred(call_repeat(port, in_flight, seconds)))
