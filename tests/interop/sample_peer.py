"""A Twisted program that serves or calls all commands of a module, with one sample of each type.

    python -m tests.interop.sample_peer server|client MODULE [PORT]

The server prints its port, and serves until its stdin ends. The client prints what came of each
call: "as expected", or what else.
"""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from twisted.internet import defer
from twisted.internet import endpoints as twisted_endpoints
from twisted.internet import reactor as twisted_reactor
from twisted.internet import stdio as twisted_stdio
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols import amp
from twisted.python.filepath import FilePath

from tests.interop.samples import SAMPLES

# Interfaces of zope's, which type checkers don't follow.
endpoints: Any = twisted_endpoints
reactor: Any = twisted_reactor
stdio: Any = twisted_stdio


def commands_of(module: str) -> list[Any]:
    things = {
        id(thing): thing
        for thing in vars(importlib.import_module(module)).values()
        if isinstance(thing, type) and issubclass(thing, amp.Command) and thing.__module__ == module
    }
    return list(things.values())


def sample(argument: Any) -> Any:
    match argument:
        case amp.ListOf():
            return [sample(argument.elementType)] * 2
        case amp.AmpList():
            return [sample_of(argument.subargs), sample_of(argument.subargs, full=False)]
        case amp.Path():
            return FilePath(str(SAMPLES["Path"]))
    base = next(cls for cls in type(argument).__mro__ if cls.__name__ in SAMPLES)
    return SAMPLES[base.__name__]


def sample_of(pairs: Any, *, full: bool = True) -> dict[str, Any]:
    """Give a sample of fields; if it is not full, those that are optional are left out."""
    return {
        amp._wireNameToPythonIdentifier(key): (
            sample(argument) if full or not argument.optional else None
        )
        for key, argument in pairs
    }


class Peer(amp.AMP):
    """Answers samples with samples."""

    def __init__(self, commands: list[Any]) -> None:
        super().__init__()
        self.commands = {command.commandName: command for command in commands}

    def locateResponder(self, name: bytes) -> Any:
        command = self.commands.get(name)
        if command is None:
            return None

        def respond(**arguments: Any) -> dict[str, Any]:
            for full in (True, False):
                if arguments == sample_of(command.arguments, full=full):
                    return sample_of(command.response, full=full)
            raise ValueError(f"{arguments} is no sample")

        return self._wrapWithSerialization(respond, command)


async def call_all(peer: Any, commands: list[Any]) -> dict[str, str]:
    outcomes: dict[str, str] = {}
    for command in commands:
        for full in (True, False):
            outcome = "as expected"
            try:
                called = peer.callRemote(command, **sample_of(command.arguments, full=full))
                answer = None if called is None else await called
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            else:
                expected = sample_of(command.response, full=full)
                if answer != (expected if command.requiresAnswer else None):
                    outcome = f"{answer} is no sample"
            outcomes[f"{command.__name__} {full}"] = outcome
    return outcomes


async def serve(commands: list[Any]) -> None:
    class Input(Protocol):
        def connectionLost(self, reason: Any = None) -> None:
            reactor.stop()

    stdio.StandardIO(Input())
    endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(Factory.forProtocol(lambda: Peer(commands)))
    # Not by print: Twisted has made stdout one that doesn't block.
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()


async def call(commands: list[Any], port: int) -> None:
    try:
        endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        peer = await endpoints.connectProtocol(endpoint, Peer([]))
        print(json.dumps(await call_all(peer, commands)))
    finally:
        reactor.stop()


if __name__ == "__main__":
    known = commands_of(sys.argv[2])
    work = serve(known) if sys.argv[1] == "server" else call(known, int(sys.argv[3]))
    reactor.callWhenRunning(lambda: defer.ensureDeferred(work))
    reactor.run()
