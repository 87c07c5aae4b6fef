"""A Twisted program that starts a child of ours, talks to it, and prints in JSON what came of it.

python -m tests.interop.twisted_parent READ_FD WRITE_FD
python -m tests.interop.twisted_parent ampoule
"""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import ampoule.commands
import ampoule.main
import ampoule.pool
from twisted.internet import defer, task
from twisted.internet.protocol import ProcessProtocol

from tests.interop import twisted_commands as commands
from tests.interop.peers import ROOT
from tests.interop.twisted_peer import Peer, outcome, reactor

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class Connector(ProcessProtocol):
    """Joins AMP to two descriptors of a child; it is AMP's transport."""

    disconnecting = False

    def __init__(self, peer: Peer, read_fd: int, write_fd: int) -> None:
        self.peer = peer
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.printed = b""
        self.ended: Any = defer.Deferred()
        self.transport: Any

    def connectionMade(self) -> None:
        self.peer.makeConnection(self)

    def write(self, data: bytes) -> None:
        self.transport.writeToChild(self.read_fd, data)

    def loseConnection(self) -> None:
        self.transport.closeChildFD(self.read_fd)

    def getPeer(self) -> Any:
        return "child"

    getHost = getPeer

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == self.write_fd:
            self.peer.dataReceived(data)
        else:
            self.printed += data

    def processEnded(self, reason: Any) -> None:
        self.peer.connectionLost(reason)
        self.ended.callback(reason.value.exitCode)


async def with_descriptors(read_fd: int, write_fd: int) -> dict[str, Any]:
    peer: Any = Peer()
    connector = Connector(peer, read_fd, write_fd)
    program = [sys.executable, "-m", "tests.interop.our_child", str(read_fd), str(write_fd)]
    reactor.spawnProcess(
        connector,
        program[0],
        program,
        env=ENVIRONMENT,
        childFDs={0: "w", 1: "r", 2: "r", read_fd: "w", write_fd: "r"},
    )
    value = b"x" * 65_535
    answers = [peer.callRemote(commands.EchoString, value=value) for _ in range(100)]
    result = {
        "integer": await outcome(peer.callRemote(commands.EchoInteger, value=7)),
        "bounce": await outcome(peer.callRemote(commands.Bounce, left=5)),
        "fail": await outcome(peer.callRemote(commands.Fail, error="RefusedError")),
        "load": all(answer["value"] == value for answer in await defer.gatherResults(answers)),
    }
    connector.loseConnection()
    return {
        **result,
        "exit status": await connector.ended,
        "printed": connector.printed.decode(),
    }


async def with_ampoule() -> dict[str, Any]:
    starter = ampoule.main.ProcessStarter(
        bootstrap=(
            "import sys, runpy; sys.argv[1:] = ['3', '4'];"
            " runpy.run_module('tests.interop.our_child', run_name='__main__')"
        ),
        env=ENVIRONMENT,
        packages=("twisted",),
    )
    pool = ampoule.pool.ProcessPool(min=2, max=2, starter=starter, recycleAfter=3)
    await pool.start()
    works = [pool.doWork(ampoule.commands.Echo, data=b"%d" % number) for number in range(20)]
    result = {
        "echo": [answer["response"].decode() for answer in await defer.gatherResults(works)],
        "ping": await outcome(pool.doWork(ampoule.commands.Ping)),
        "integer": await outcome(pool.doWork(commands.EchoInteger, value=7)),
        "fail": await outcome(pool.doWork(commands.Fail, error="RefusedError")),
        "unknown": await outcome(pool.doWork(commands.Fail, error="ZeroDivisionError")),
    }
    while pool.processes != pool.ready:  # it would speak to those that it is replacing
        await task.deferLater(reactor, 0.01)
    await pool.stop()
    return {**result, "processes": len(pool.processes)}


async def main() -> None:
    try:
        if sys.argv[1] == "ampoule":
            result = await with_ampoule()
        else:
            result = await with_descriptors(int(sys.argv[1]), int(sys.argv[2]))
        print(json.dumps(result))
    except Exception:
        traceback.print_exc()
    reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: defer.ensureDeferred(main()))
    reactor.run()
