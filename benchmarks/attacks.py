"""The attacks, and the program that makes one: `python -m benchmarks.attacks NAME PORT TLS_PORT`.

It says when it begins, and in one more line of JSON what became of the attack. It ends without
taking leave, as attackers do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.attacker import Attacker, Peer
from benchmarks.harness import allow_descriptors
from benchmarks.peers.commands import Wait
from typed_amp import AmpError, connect, encode_box

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GOOD = {b"_command": b"Repeat", b"text": b"abc", b"times": b"3"}
INVALID = {**GOOD, b"times": b"1001"}
UNKNOWN = {b"_command": b"NoSuch", b"text": b"abc"}
LONG_BOX = encode_box({b"_command": b"Fill", **{b"%d" % key: bytes(65_535) for key in range(63)}})
"""Nearly as long as a box may be: 4 MiB unless told otherwise."""

TLS = ssl.create_default_context()


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: what to call it on a command line.
        title: what it is, with the amount for `%s`.
        amount: how many connections or boxes, unless told otherwise.
        run: makes it.
        of_connections: whether the amount is of connections.
        holds: whether it stays once all is sent.
        max_connections: how many connections its server allows, if not as many as usual.
    """

    name: str
    title: str
    amount: int
    run: Callable[[Attacker], Awaitable[None]]
    of_connections: bool = False
    holds: bool = False
    max_connections: int | None = None

    @property
    def server_options(self) -> list[str]:
        """What its server is to be told."""
        return [f"--max-connections={self.max_connections}"] if self.max_connections else []

    def titled(self, amount: int | None) -> str:
        """Say what it is; None: without an amount."""
        return self.title.replace("%s ", f"{amount:,} " if amount is not None else "")


class Idler(Peer):
    """Makes one call, and no other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(encode_box({b"_ask": b"1", **GOOD}))


async def idle(attacker: Attacker) -> None:
    await attacker.open(attacker.amount, Idler)
    await attacker.hold()


async def unread(attacker: Attacker) -> None:
    """Ask for long answers, and take none of them."""
    peer = await attacker.open_one()
    peer.transport.pause_reading()
    fetch = {b"_command": b"Fetch", b"length": b"60000"}
    await attacker.flood(peer, fetch, b"_ask", is_endless=False)
    await attacker.hold()


async def waiting(attacker: Attacker) -> None:
    """Ask for what is never done."""
    peer = await attacker.open_one()
    await attacker.flood(peer, {b"_command": b"Wait"}, b"_ask", is_endless=False)
    await attacker.hold()


def flood(box: dict[bytes, bytes], tag_key: bytes | None) -> Callable[[Attacker], Awaitable[None]]:
    """Give the attack that sends one box over and over, and reads what comes back."""

    async def run(attacker: Attacker) -> None:
        while attacker.is_endless and attacker.left > 0:
            # Again where the server closes the connection, or reads no more.
            for peer in await attacker.open():
                await attacker.flood(peer, box, tag_key, is_endless=True)
        if attacker.is_endless:
            return
        peer = await attacker.open_one()
        await attacker.flood(peer, box, tag_key, is_endless=False)
        if tag_key == b"_ask":
            await attacker.until_answered(peer, attacker.report.sent)
        else:
            await attacker.until_read(peer)

    return run


async def slow(attacker: Attacker) -> None:
    """Send a box byte by byte, one in a second, on each connection."""
    peers = await attacker.open(attacker.amount)
    for peer in peers:
        peer.is_within_a_box = True
    data = iter(LONG_BOX)
    parts = 20

    async def send_a_byte() -> None:
        start = time.monotonic()
        byte = bytes([next(data)])
        for part in range(parts):
            for peer in peers[part::parts]:
                if not peer.is_gone:
                    peer.transport.write(byte)
                    attacker.report.sent += 1
            await asyncio.sleep(start + (part + 1) / parts - time.monotonic())

    await attacker.hold(send_a_byte)


async def unfinished(attacker: Attacker) -> None:
    """Send all of a long box but its last byte, on each connection."""
    for peer in await attacker.open(attacker.amount):
        peer.is_within_a_box = True
        peer.transport.write(LONG_BOX[:-1])
        await attacker.until_written(peer)
    await attacker.hold()


class Handshake(Peer):
    """Begins with TLS, and goes no further."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        outgoing = ssl.MemoryBIO()
        half_open = TLS.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        try:
            half_open.do_handshake()
        except ssl.SSLWantReadError:
            self.transport.write(outgoing.read())

    def data_received(self, data: bytes) -> None:
        pass


async def stalled_tls(attacker: Attacker) -> None:
    """Begin handshakes, and don't go on when the server has answered."""
    await attacker.open(attacker.amount, Handshake, attacker.tls_port)
    await attacker.hold()


async def cancelled(attacker: Attacker) -> None:
    """Make calls with typed_amp itself, and cancel each when it is on its way."""
    while attacker.is_to_go_on:
        try:
            async with connect("127.0.0.1", attacker.port) as connection:
                attacker.report.opened += 1
                while not connection.is_closed and attacker.is_to_go_on:
                    tasks = [asyncio.create_task(connection.call(Wait())) for _ in range(100)]
                    await asyncio.sleep(0.001)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    attacker.report.sent += len(tasks)
        except (OSError, AmpError):
            attacker.report.refused += 1
            await asyncio.sleep(0.05)


async def large(attacker: Attacker) -> None:
    """Send hundreds of thousands of numbers in one list, and again."""
    numbers = b"".join(b"\0\6%d" % number for number in range(100_000, 500_000))
    slices = [numbers[start : start + 65_535] for start in range(0, len(numbers), 65_535)]
    box = {b"_ask": b"1", b"_command": b"Total", b"numbers": slices[0]}
    box |= {b"numbers.%d" % number: part for number, part in enumerate(slices[1:], 2)}
    data = encode_box(box)
    peer = await attacker.open_one()
    while attacker.is_to_go_on and not peer.is_gone:
        attacker.report.sent += 1
        peer.transport.write(data)
        await attacker.until_answered(peer, attacker.report.sent)


async def reconnects(attacker: Attacker) -> None:
    """Connect, ask, and reset the connection before the answer is read."""
    ask = encode_box({b"_ask": b"1", **GOOD})
    while attacker.is_to_go_on:
        attacker.report.sent += 1
        try:
            with socket.create_connection(("127.0.0.1", attacker.port), timeout=1) as sock:
                attacker.report.opened += 1
                sock.sendall(ask)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            attacker.report.refused += 1
        await asyncio.sleep(0)


async def computing(attacker: Attacker) -> None:
    """Attack nobody: keep the attacker's processor busy, for comparison."""
    while attacker.is_to_go_on:
        attacker.report.sent += 1
        sum(range(100_000))


ATTACKS = {
    attack.name: attack
    for attack in [
        Attack(
            "idle",
            "%s idle connections, all allowed",
            10_000,
            idle,
            of_connections=True,
            holds=True,
            max_connections=11_000,
        ),
        Attack("crowd", "%s idle connections", 10_000, idle, of_connections=True, holds=True),
        Attack("unread", "%s asks for 60 kB each, no answer read", 100_000, unread, holds=True),
        Attack("waiting", "%s asks that are never done", 100_000, waiting, holds=True),
        Attack(
            "slow",
            "%s connections with a byte a second",
            1_000,
            slow,
            of_connections=True,
            holds=True,
        ),
        Attack(
            "unfinished",
            "%s connections with an unfinished box of 4 MB",
            50,
            unfinished,
            of_connections=True,
            holds=True,
        ),
        Attack(
            "tls", "%s stalled TLS handshakes", 1_000, stalled_tls, of_connections=True, holds=True
        ),
        Attack("unknown", "%s unknown commands, asked", 1_000_000, flood(UNKNOWN, b"_ask")),
        Attack("unknown-told", "%s unknown commands, not asked", 1_000_000, flood(UNKNOWN, None)),
        Attack("invalid", "%s invalid arguments, asked", 1_000_000, flood(INVALID, b"_ask")),
        Attack("invalid-told", "%s invalid arguments, not asked", 1_000_000, flood(INVALID, None)),
        Attack("stray", "%s stray answers", 1_000_000, flood({b"text": b"abc"}, b"_answer")),
        Attack("calls", "%s good calls", 1_000_000, flood(GOOD, b"_ask")),
        Attack("cancelled", "%s calls, cancelled at once", 100_000, cancelled),
        Attack("large", "%s lists of 400,000 numbers", 10, large),
        Attack("reconnects", "%s connections, reset after an ask", 20_000, reconnects),
    ]
}

COMPUTING = Attack("computing", "no attack, but a busy neighbour", 1, computing)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.attacks", description=__doc__)
    parser.add_argument("name", choices=[*ATTACKS, COMPUTING.name])
    parser.add_argument("port", type=int)
    parser.add_argument("tls_port", type=int)
    parser.add_argument("--amount", type=int, required=True, help="how many connections or boxes")
    parser.add_argument("--seconds", type=float, required=True, help="when to end at the latest")
    parser.add_argument("--hold", type=float, required=True, help="how long to stay at the end")
    parser.add_argument("--endless", action="store_true", help="go on until the time is over")
    options = parser.parse_args()
    attacker = Attacker(
        options.port,
        options.tls_port,
        amount=options.amount,
        seconds=options.seconds,
        hold=options.hold,
        is_endless=options.endless,
    )
    allow_descriptors()
    asyncio.run(attack_and_go(attacker, ATTACKS.get(options.name, COMPUTING)))


async def attack_and_go(attacker: Attacker, attack: Attack) -> None:
    print(json.dumps("begun"), flush=True)
    with contextlib.suppress(ConnectionError):  # the report says so
        await attack.run(attacker)
    print(json.dumps(attacker.report.as_json()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
