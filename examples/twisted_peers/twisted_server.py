"""Twisted's server, until Ctrl-C."""

# Twisted is only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from typing import Any

from twisted.internet import defer, endpoints, reactor, task
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from examples import address
from examples.twisted_peers.twisted_commands import Divide, Sum


class Math(amp.AMP):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Divide.responder
    def divide(self, numerator: int, denominator: int) -> dict[str, float]:
        return {"result": numerator / denominator}


async def main(port: int) -> None:
    endpoint = endpoints.TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    listening: Any = await endpoint.listen(Factory.forProtocol(Math))
    print(f"serving at 127.0.0.1:{listening.getHost().port}", flush=True)
    await defer.Deferred()


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    task.react(lambda _: defer.ensureDeferred(main(options.port)))
