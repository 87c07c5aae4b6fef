"""A Twisted program that serves or calls typed_amp, for as long as its stdin is open.

As a server it prints where it listens, in one JSON line. As a client it reads a request, a JSON
line, connects to where that says, plays the scenario that it names, and prints what came of it.

    python -m tests.interop.twisted_peer server|client DIRECTORY

The directory holds the certificates that `conftest` makes.
"""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import builtins
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet import endpoints as twisted_endpoints
from twisted.internet import reactor as twisted_reactor
from twisted.internet import ssl as twisted_ssl
from twisted.internet import stdio as twisted_stdio
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols import amp
from twisted.protocols.basic import LineReceiver
from twisted.python.filepath import FilePath

from tests.interop import twisted_commands as commands
from tests.interop.values import CASES, OPTIONALS, described

# Interfaces of zope's, which type checkers don't follow.
endpoints: Any = twisted_endpoints
reactor: Any = twisted_reactor
ssl: Any = twisted_ssl
stdio: Any = twisted_stdio


class Shouting(Protocol):
    """What follows AMP: greets, and says everything again in capitals."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.enough: Any = defer.Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"twisted is here\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for line in data.splitlines(keepends=True):
            if not line.isupper():
                self.transport.write(line.upper())
        if b"TWISTED IS HERE\n" in self.received and not self.enough.called:
            self.enough.callback(None)


class Peer(amp.AMP):
    """Either end of a connection."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        self.tls: dict[str, Any] = {}
        self.notes: list[str] = []
        self.gathered: list[tuple[int, Any]] = []
        self.seen: list[list[str]] = []
        self.lost: Any = defer.Deferred()

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.lost.callback(None)

    def ampBoxReceived(self, box: Any) -> None:
        """Note the keys of the protocol in each box, and the command in an ask."""
        keys = sorted(key.decode() for key in box if key.startswith(b"_"))
        self.seen.append([box.get(b"_command", b"").decode(), *keys])
        super().ampBoxReceived(box)

    @commands.EchoInteger.responder
    @commands.EchoString.responder
    @commands.EchoUnicode.responder
    @commands.EchoFloat.responder
    @commands.EchoBoolean.responder
    @commands.EchoDecimal.responder
    @commands.EchoDateTime.responder
    @commands.EchoPath.responder
    @commands.EchoIntegers.responder
    @commands.EchoStrings.responder
    @commands.EchoDateTimes.responder
    @commands.EchoPaths.responder
    @commands.EchoNested.responder
    @commands.EchoRows.responder
    @commands.EchoRow.responder
    @commands.EchoLargeBytes.responder
    @commands.EchoLargeText.responder
    @commands.EchoCompressedBytes.responder
    @commands.EchoOptionals.responder
    @commands.EchoLetter.responder
    @commands.Strict.responder
    @commands.Ping.responder
    def echo(self, **fields: Any) -> dict[str, Any]:
        return fields

    @commands.Demanding.responder
    def obey(self, value: int) -> dict[str, Any]:
        return {}

    @commands.Fail.responder
    def fail(self, error: str) -> dict[str, Any]:
        error_type = getattr(commands, error, None) or getattr(builtins, error)
        raise error_type("said the peer, é")

    @commands.Wait.responder
    def wait(self) -> Any:
        return defer.Deferred()

    @commands.Note.responder
    def note(self, line: str) -> dict[str, Any]:
        self.notes.append(line)
        return {}

    @commands.Notes.responder
    def list_notes(self) -> dict[str, Any]:
        return {"value": self.notes}

    @commands.Subscribe.responder
    def subscribe(self, lines: int) -> dict[str, Any]:
        for number in range(lines):
            reactor.callLater(0, self.callRemote, commands.Note, line=f"line {number}")
        return {}

    @commands.Gather.responder
    def gather(self, number: int, total: int) -> Any:
        answer: Any = defer.Deferred()
        self.gathered.append((number, answer))
        if len(self.gathered) == total:
            reactor.callLater(0, self.answer_gathered)
        return answer

    def answer_gathered(self) -> None:
        while self.gathered:
            number, answer = self.gathered.pop()
            answer.callback({"value": number})

    @commands.Bounce.responder
    async def bounce(self, left: int) -> dict[str, Any]:
        if left == 0:
            return {"value": 1}
        answer = await self.callRemote(commands.Bounce, left=left - 1)
        return {"value": answer["value"] + 1}

    @commands.PrepareTLS.responder
    def prepare_tls(self, certificate: str, authority: str) -> dict[str, Any]:
        self.tls = tls_options(self.directory, certificate, authority)
        return {}

    @amp.StartTLS.responder
    def answer_tls(self) -> dict[str, Any]:
        return self.tls

    @commands.BeginTLS.responder
    def begin_tls(self, certificate: str, authority: str) -> dict[str, Any]:
        def begin() -> None:
            options = tls_options(self.directory, certificate, authority)
            # Its failure is the end of the connection, which both sides see.
            self.callRemote(amp.StartTLS, **options).addErrback(lambda failure: None)

        reactor.callLater(0, begin)
        return {}

    @commands.SwitchToShouting.responder
    def switch(self, outcome: str) -> Any:
        if outcome != "agreed":
            raise (getattr(commands, outcome, None) or getattr(builtins, outcome))("no, é")
        return Shouting()

    def amp_REVERSE(self, box: Any) -> Any:
        """A command by its name alone, as `callRemoteString` calls it."""
        if b"text" not in box:
            raise amp.RemoteAmpError(b"NO_TEXT", "there is nothing to reverse")
        return amp.AmpBox(text=box[b"text"][::-1])

    def amp_SEEN(self, box: Any) -> Any:
        return amp.AmpBox(seen=json.dumps(self.seen).encode())

    @commands.WhoAmI.responder
    def who_am_i(self) -> dict[str, Any]:
        certificate: Any = self.peerCertificate
        return {"value": certificate.getSubject().commonName.decode()}

    @commands.OpenFile.responder
    def open_file(self, path: Any) -> dict[str, Any]:
        return {"descriptor": os.open(path.path, os.O_RDONLY)}

    @commands.WriteTo.responder
    def write_to(self, descriptor: int, text: str) -> dict[str, Any]:
        os.write(descriptor, text.encode())
        os.close(descriptor)
        return {}

    @commands.WriteToAll.responder
    def write_to_all(self, rows: list[dict[str, Any]], last: int | None) -> dict[str, Any]:
        for row in rows:
            self.write_to(**row)
        if last is not None:
            self.write_to(last, "the end")
        return {}


# -- What the client does --------------------------------------------------------------------


async def echo(peer: Peer, *, case: str) -> Any:
    """Call a command with a value of `CASES`."""
    name, value = CASES[case]
    argument = getattr(commands, name).arguments[0][1]
    value = [value] if name == "EchoRow" else for_argument(argument, value)
    answer = await peer.callRemote(getattr(commands, name), value=value)
    return described(answer["value"])


async def optionals(peer: Peer, *, case: str) -> Any:
    return described(await peer.callRemote(commands.EchoOptionals, **OPTIONALS[case]))


async def call(peer: Peer, *, calls: list[tuple[str, dict[str, Any]]]) -> Any:
    """Make calls one after the other, and say what came of each."""
    return [
        await outcome(peer.callRemote(getattr(commands, name), **arguments))
        for name, arguments in calls
    ]


async def call_at_once(peer: Peer, *, calls: list[tuple[str, dict[str, Any]]]) -> Any:
    """Make all calls, then say what came of each; the connection is to end thereby."""
    outcomes = [
        defer.ensureDeferred(outcome(peer.callRemote(getattr(commands, name), **arguments)))
        for name, arguments in calls
    ]
    await peer.lost
    return await defer.gatherResults(outcomes)


async def gather(peer: Peer, *, total: int) -> list[int]:
    """Give the numbers of `total` calls in the order of their answers."""
    order: list[int] = []
    answers = [
        peer.callRemote(commands.Gather, number=number, total=total).addCallback(
            lambda answer: order.append(answer["value"])
        )
        for number in range(total)
    ]
    await defer.gatherResults(answers)
    return order


async def load(peer: Peer, *, total: int) -> bool:
    """Have many long values in flight."""
    value = b"x" * 65_535
    answers = [peer.callRemote(commands.EchoString, value=value) for _ in range(total)]
    return all(answer["value"] == value for answer in await defer.gatherResults(answers))


async def write_to_pipes(peer: Peer) -> list[str]:
    """Send the writing ends of pipes; give what comes out of them."""
    pipes = [os.pipe() for _ in range(4)]
    writing = [end for _, end in pipes]
    rows = [{"descriptor": end, "text": f"row {end == writing[0]}"} for end in writing[:2]]
    await defer.gatherResults(
        [
            peer.callRemote(commands.WriteTo, descriptor=writing[0], text="first, "),
            peer.callRemote(commands.WriteToAll, rows=rows, last=writing[2]),
            peer.callRemote(commands.WriteTo, descriptor=writing[3], text="é"),
        ]
    )
    for end in writing:
        os.close(end)
    return [os.fdopen(end, "rb").read().decode() for end, _ in pipes]


async def read_file(peer: Peer, *, path: str) -> str:
    """Have a file opened; give what is in it."""
    answer = await peer.callRemote(commands.OpenFile, path=FilePath(path))
    return os.fdopen(answer["descriptor"], "rb").read().decode()


async def start_tls(peer: Peer, *, certificate: str, authority: str) -> Any:
    """Begin TLS with calls under way before and after, and say who the other side is."""
    value = b"x" * 60_000
    before = [peer.callRemote(commands.EchoString, value=value) for _ in range(50)]
    options = tls_options(peer.directory, certificate, authority)
    beginning = peer.callRemote(amp.StartTLS, **options)
    after = [peer.callRemote(commands.EchoString, value=value) for _ in range(50)]
    for answer in (*before, *after):
        answer.addErrback(lambda failure: None)
    try:
        await beginning
        answers = await defer.gatherResults([*before, *after])
        assert all(answer["value"] == value for answer in answers)
        bounced = await peer.callRemote(commands.Bounce, left=9)
        assert bounced["value"] == 10
    except Exception as error:
        await peer.lost
        return {"error": type(error).__name__}
    return {"encrypted": ssl_of(peer), "peer": subject_of(peer)}


async def be_secured(peer: Peer, *, certificate: str, authority: str) -> Any:
    """Only answer, a call for TLS too, until the other side ends the connection."""
    peer.tls = tls_options(peer.directory, certificate, authority)
    await peer.lost
    return peer.notes


async def switch(peer: Peer, *, outcome: str) -> Any:
    """Switch to shouting; say what came then, or what came of it and whether AMP goes on."""
    factory = ShoutingFactory()
    try:
        await peer.callRemote(commands.SwitchToShouting, factory, outcome=outcome)
    except Exception as error:
        answer = await peer.callRemote(commands.EchoInteger, value=1)
        return {"error": type(error).__name__, "after": answer["value"]}
    await factory.made.enough
    return {"received": factory.made.received.decode()}


class ShoutingFactory:
    """What Twisted wants of a factory whose protocol takes over."""

    made: Shouting

    def buildProtocol(self, address: Any) -> Shouting:
        self.made = Shouting()
        return self.made

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        pass

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        pass


async def call_strings(peer: Peer, *, calls: list[tuple[str, dict[str, str]]]) -> Any:
    """Call commands by their names, one after the other, with boxes as they are."""
    outcomes = []
    for name, fields in calls:
        encoded: Any = {key: value.encode() for key, value in fields.items()}
        answer: Any = peer.callRemoteString(name.encode(), **encoded)
        try:
            box = await answer
        except amp.RemoteAmpError as error:
            outcomes.append({"code": error.errorCode.decode(), "text": error.description})
        except Exception as error:
            outcomes.append({"error": type(error).__name__})
        else:
            outcomes.append(
                {
                    key.decode(): value.decode()
                    for key, value in box.items()
                    if not key.startswith(b"_")
                }
            )
    return outcomes


async def stay(peer: Peer) -> list[str]:
    """Only answer, until the other side ends the connection. Give the notes that came."""
    await peer.lost
    return peer.notes


async def give_up(peer: Peer, *, wrong: int) -> Any:
    """Give up calls in both of Twisted's ways, and make one that is refused; say so in a note.

    Then only answer, until the other side ends the connection. Give what came of the calls, and
    which boxes came.
    """
    late, cancelled = peer.callRemote(commands.Wait), peer.callRemote(commands.Wait)
    late.addTimeout(0.01, reactor)
    waiting = defer.ensureDeferred(outcome(cancelled))
    outcomes = [await outcome(late)]
    cancelled.cancel()
    outcomes.append(await waiting)
    outcomes.append(await outcome(peer.callRemote(commands.Strict, value=wrong)))
    outcomes.append(await outcome(peer.callRemote(commands.EchoInteger, value=1)))
    peer.callRemote(commands.Note, line="done")
    await peer.lost
    return {"outcomes": outcomes, "seen": peer.seen}


SCENARIOS: Any = {
    scenario.__name__: scenario
    for scenario in (
        *(echo, optionals, call, call_at_once, gather, load, write_to_pipes, read_file, stay),
        *(start_tls, be_secured, switch, call_strings, give_up),
    )
}


def for_argument(argument: Any, value: Any) -> Any:
    """Make a plain value what an argument of Twisted's takes."""
    if isinstance(argument, amp.Path):
        return FilePath(value)
    if isinstance(argument, amp.ListOf):
        return [for_argument(argument.elementType, element) for element in value]
    return value


async def outcome(answer: Any) -> dict[str, Any]:
    try:
        return {"answer": None if answer is None else described(await answer)}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


async def play(directory: Path, request: dict[str, Any]) -> Any:
    endpoint = client_endpoint(directory, **request["where"])
    peer: Any = await endpoints.connectProtocol(endpoint, Peer())
    try:
        return await SCENARIOS[request["scenario"]](peer, **request["arguments"])
    finally:
        if peer.transport is not None:
            peer.transport.loseConnection()
        await peer.lost


class Requests(LineReceiver):
    """The requests on stdin. Their end is the end of the program."""

    delimiter = b"\n"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lineReceived(self, line: bytes) -> None:
        defer.ensureDeferred(self.answer(json.loads(line)))

    async def answer(self, request: dict[str, Any]) -> None:
        try:
            self.say({"result": await play(self.directory, request)})
        except Exception:
            self.say({"failure": traceback.format_exc()})

    def say(self, message: dict[str, Any]) -> None:
        # Not by print: Twisted has made stdout one that doesn't block.
        self.sendLine(json.dumps(message).encode())

    def connectionLost(self, reason: Any = None) -> None:
        reactor.stop()


# -- Transports ------------------------------------------------------------------------------


def client_endpoint(
    directory: Path,
    transport: str,
    port: int = 0,
    path: str = "",
    certificate: str | None = None,
) -> Any:
    if transport == "unix":
        return endpoints.UNIXClientEndpoint(reactor, path)
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    if transport == "tcp":
        return endpoint
    options = ssl.optionsForClientTLS(
        "localhost",
        trustRoot=ssl.trustRootFromCertificates([authority(directory)]),
        clientCertificate=own_certificate(directory, certificate) if certificate else None,
    )
    return endpoints.wrapClientTLS(options, endpoint)


async def listen(directory: Path) -> dict[str, Any]:
    """Listen on every transport; say where."""
    factory = Factory.forProtocol(Peer)
    path = str(directory / "twisted.sock")
    certificate = own_certificate(directory, "server")

    async def port_of(endpoint: Any) -> int:
        port: Any = await endpoint.listen(factory)
        return int(port.getHost().port)

    await endpoints.UNIXServerEndpoint(reactor, path).listen(factory)
    local = {"interface": "127.0.0.1"}
    return {
        "unix": path,
        "tcp": await port_of(endpoints.TCP4ServerEndpoint(reactor, 0, **local)),
        "tls": await port_of(
            endpoints.SSL4ServerEndpoint(reactor, 0, certificate.options(), **local)
        ),
        "mutual": await port_of(
            endpoints.SSL4ServerEndpoint(
                reactor, 0, certificate.options(authority(directory)), **local
            )
        ),
    }


def authority(directory: Path, name: str = "authority") -> Any:
    return ssl.Certificate.loadPEM((directory / f"{name}.pem").read_bytes())


def own_certificate(directory: Path, name: str) -> Any:
    return ssl.PrivateCertificate.loadPEM((directory / f"{name}.pem").read_bytes())


def tls_options(directory: Path, certificate: str, verified_by: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if certificate:
        options["tls_localCertificate"] = own_certificate(directory, certificate)
    if verified_by:
        options["tls_verifyAuthorities"] = [authority(directory, verified_by)]
    return options


def ssl_of(peer: Peer) -> bool:
    return hasattr(peer.transport, "getPeerCertificate")


def subject_of(peer: Peer) -> str | None:
    certificate: Any = peer.transport
    shown = certificate.getPeerCertificate()
    return None if shown is None else str(shown.get_subject().commonName)


async def main(role: str, directory: Path) -> None:
    Peer.directory = directory
    requests = Requests(directory)
    stdio.StandardIO(requests)
    try:
        requests.say(await listen(directory) if role == "server" else {})
    except Exception:
        traceback.print_exc()
        reactor.stop()


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)  # AMP's integers have as many digits as they like
    reactor.callWhenRunning(lambda: defer.ensureDeferred(main(sys.argv[1], Path(sys.argv[2]))))
    reactor.run()
