"""What attacks a server and what soaks it, in small."""

from __future__ import annotations

import re
import sys

import pytest

from benchmarks import harness
from benchmarks.attacker import Attacker
from benchmarks.attacks import ATTACKS
from benchmarks.peers.target import router
from benchmarks.peers.typed import Repeat
from benchmarks.soak import State
from tests.conftest import Certificates
from tests.documents import ROOT
from tests.programs import output_of, program
from typed_amp import connect, serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_reaches_the_server(name: str, certificates: Certificates) -> None:
    attack = ATTACKS[name]
    amount = 3 if attack.of_connections else 1 if name == "large" else 100
    async with (
        serve(router, "127.0.0.1", 0) as clear,
        serve(router, "127.0.0.1", 0, ssl=certificates.server) as encrypted,
    ):
        attacker = Attacker(
            clear.addresses[0][1],
            encrypted.addresses[0][1],
            amount=amount,
            seconds=10,
            hold=0.05,
            is_endless=False,
        )
        await attack.run(attacker)
        report = attacker.report
        assert report.refused == report.closed == 0
        assert amount == (report.opened if attack.of_connections else report.sent)
        answered = {"calls": "answer", "invalid": "INVALID_ARGUMENTS", "unknown": "UNHANDLED"}
        if name in answered:
            assert report.received[answered[name]] == amount
        for peer in attacker.peers:
            peer.transport.abort()
        # Python 3.11 loses connections that it is about to accept when a server is closed.
        async with connect(*clear.addresses[0]) as connection:
            assert (await connection.call(Repeat(text="abc", times=2))).text == "abcabc"
        clear.close(drain_timeout=0)


async def test_memory_is_measured() -> None:
    output = await output_of(
        *("-m", "benchmarks.memory", "--only=unfinished", "--scale=0.1", "--hold=0.1"),
        *("--seconds=5", "--markdown"),
        directory=ROOT,
    )
    rows = [re.split(r" *\| *", line)[1:-1] for line in output.splitlines() if line[:1] == "|"]
    assert rows[0][:4] == ["attack", "before", "peak", "after"]
    unfinished = rows[2]
    assert unfinished[0].startswith("5 connections")
    before, peak, after = (float(figure) for figure in unfinished[1:4])
    assert peak > before + 15  # five boxes of 4 MB
    assert after < before + 15
    assert unfinished[5] == "closed 0 of 5"


async def test_neighbour_is_timed() -> None:
    output = await output_of(
        *("-m", "benchmarks.neighbours", "--only=calls", "--seconds=0.3", "--quiet=0.2"),
        directory=ROOT,
    )
    row = output.splitlines()[-1]
    figures = re.findall(r"\d[\d,]*\.\d+", row)
    assert row.startswith("good calls")
    assert len(figures) == 7
    assert float(figures[3]) > 0
    assert "answer" in row
    assert "failed" not in row


async def test_soak_finds_nothing_wrong() -> None:
    async with program("-m", "benchmarks.soak", "--seconds=1.5", directory=ROOT) as running:
        output = await running.rest()
    assert "after warming up" in output
    assert "wrong:" not in output
    assert "tasks grew" not in output
    assert "descriptors grew" not in output
    assert re.search(r"\d+ succeed", output)


def test_soak_says_what_has_grown() -> None:
    mib = harness.MIB
    earlier = State(40 * mib, 40 * mib, 1, 1, 8, 10)
    assert State(44 * mib, 44 * mib, 1, 1, 8, 10).growth_since(earlier) == []
    later = State(45 * mib, 40 * mib, 1, 2, 8, 11)
    assert [line.partition(" grew")[0] for line in later.growth_since(earlier)] == [
        "server bytes",
        "client tasks",
        "client descriptors",
    ]


def test_table_says_what_the_server_did() -> None:
    report = {
        "opened": 1_000,
        "refused": 3,
        "closed": 1_000,
        "first_closed": 30.02,
        "last_closed": 31.0,
        "is_stalled": False,
        "sent": 0,
        "received": {"BUSY": 2_000},
    }
    status = {"most_waiting": 0, "log": {"closing %r": 1_000}}
    did = harness.deeds(report, status, of_connections=True)
    assert did == (
        "refused 3 connections; closed 1,000 of 1,000 after 30.0 to 31.0 s; 2,000 BUSY;"
        " 1,000 log lines"
    )
    assert harness.table(["a", "b", "c"], [["x", "10", did[:7]]], markdown=True) == (
        "| a | b | c |\n| --- | ---: | --- |\n| x | 10 | refused |"
    )
