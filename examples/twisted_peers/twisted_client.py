"""Twisted's client. It does not know which library answers."""

# Twisted is only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from typing import Any

from twisted.internet import defer, endpoints, reactor, task
from twisted.protocols import amp

from examples import address
from examples.twisted_peers.twisted_commands import Divide, Sum


async def main(host: str, port: int) -> None:
    endpoint = endpoints.HostnameEndpoint(reactor, host, port)
    protocol: Any = await endpoints.connectProtocol(endpoint, amp.AMP())
    result = await protocol.callRemote(Sum, a=13, b=81)
    print(f"13 + 81 = {result['total']}")
    result = await protocol.callRemote(Divide, numerator=1, denominator=4)
    print(f"1 / 4 = {result['result']}")
    try:
        await protocol.callRemote(Divide, numerator=1, denominator=0)
    except ZeroDivisionError as error:
        print(f"1 / 0: {error}")
    protocol.transport.loseConnection()


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    task.react(lambda _: defer.ensureDeferred(main(options.host, options.port)))
