"""What attacks a server and what soaks it, in small."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import harness, pool, race
from benchmarks.attacker import Attacker
from benchmarks.attacks import ATTACKS
from benchmarks.peers.roster import PEERS
from benchmarks.peers.target import router
from benchmarks.peers.turn import Turn
from benchmarks.peers.typed import Repeat
from benchmarks.results import missing as missing_figures
from benchmarks.setups import SETUPS, opened
from benchmarks.soak import State
from benchmarks.work import WORKS
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


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    ("work", "transport"),
    [*((work, "tcp") for work in WORKS), ("repeat", "unix"), ("repeat", "tls")],
)
def test_peer_has_its_turn(peer: str, work: str, transport: str, tmp_path: Path) -> None:
    if missing := race.missing_packages(peer):
        pytest.skip(f"`make bench` installs {', '.join(missing)}")
    race.make_certificates(tmp_path)
    figures = race.measure(
        Turn(
            peer=peer,
            loop=PEERS[peer].loops[-1],
            transport=transport,
            work=work,
            in_flight=3,
            seconds=0.25,
            directory=str(tmp_path),
        )
    )
    assert figures.rate > 0
    assert 0 < figures.median <= figures.p99
    assert figures.client > 0
    assert figures.server > 0


def test_trouble_of_a_peer_is_told(tmp_path: Path) -> None:
    turn = Turn(
        peer="bare",
        loop="asyncio",
        transport="tls",
        work="repeat",
        in_flight=1,
        seconds=0.1,
        directory=str(tmp_path),  # where no certificates are
    )
    with pytest.raises(race.TurnError, match="the server failed: FileNotFoundError"):
        race.measure(turn)


async def test_peers_are_compared(tmp_path: Path) -> None:
    output = await output_of(
        *("-m", "benchmarks", "--peers", "typed_amp", "twisted", "bare", "--in-flight", "2"),
        *("--loop", "asyncio", "--rounds", "2", "--seconds", "0.2", "--markdown"),
        *("--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "plot.svg")),
        directory=ROOT,
    )
    rows = [re.split(r" *\| *", line)[1:-1] for line in output.splitlines() if line[:1] == "|"]
    head, _, *peers = rows
    assert {row[0] for row in peers} == {"typed_amp, asyncio", "twisted", "bare, asyncio"}
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["packages"].keys() == {"pydantic", "twisted", "typed_amp", "uvloop"}
    ours, theirs, _ = figures["results"]
    assert (ours["peer"], ours["in_flight"], ours["troubles"]) == ("typed_amp", 2, [])
    ratios = [
        own["rate"] / other["rate"]
        for own, other in zip(ours["rounds"], theirs["rounds"], strict=True)
    ]
    (told,) = (row[head.index("/ twisted")] for row in peers if row[0] == "typed_amp, asyncio")
    assert float(told) == pytest.approx(sum(ratios) / 2, abs=0.006)
    plot = (tmp_path / "plot.svg").read_text()
    assert plot.count("typed_amp, asyncio") == 1
    assert ET.fromstring(plot).tag.endswith("svg")


def test_what_a_peer_cannot_do_is_told_as_that(tmp_path: Path) -> None:
    if missing := race.missing_packages("rpyc"):
        pytest.skip(f"`make bench` installs {', '.join(missing)}")
    event = race.Event("value", "unix", 200)  # more than both sockets hold
    outcome = race.Outcome(event, race.Entry("rpyc", "threads"))
    race.race([outcome], rounds=2, seconds=0.1, directory=tmp_path, cpus=(), tell=lambda _: None)
    assert outcome.rounds == [None, None]
    assert outcome.troubles == []
    assert "neither end of rpyc reads" in outcome.inability
    assert missing_figures([outcome]).startswith("1 of 1 are missing:\n  rpyc, can't: ")


def test_slow_calls_are_measured_in_whole_passes(tmp_path: Path) -> None:
    # A hundred of them take longer than the turn is to last.
    turn = Turn(
        peer="typed_amp",
        loop="asyncio",
        transport="tcp",
        work="rows",
        in_flight=300,
        seconds=0.05,
        directory=str(tmp_path),
    )
    figures = race.measure(turn)
    # As many are under way as in flight, so that they are answered at that pace.
    assert figures.rate == pytest.approx(300 / figures.median * 1e6, rel=0.5)


async def test_features_cost_what_they_do(tmp_path: Path) -> None:
    await output_of(
        *("-m", "benchmarks.features", "--rounds", "1", "--calls", "100"),
        *("--json", str(tmp_path / "figures.json")),
        directory=ROOT,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.keys() == SETUPS.keys()
    assert all(both["on"][0] > 0 and both["base"][0] > 0 for both in figures.values())


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
async def test_features_are_counted(tmp_path: Path) -> None:
    await output_of(
        *("-m", "benchmarks.features", "--instructions", "--only", "for each call"),
        *("--json", str(tmp_path / "figures.json")),
        directory=ROOT,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 10_000 < figures["all off: the base"] < figures["timeout=60 for each call"]


@pytest.mark.parametrize("title", SETUPS)
async def test_setup_makes_calls(title: str) -> None:
    async with opened(SETUPS[title]) as call:
        await asyncio.gather(*(call() for _ in range(120)))


async def test_pieces_of_a_call_are_timed(tmp_path: Path) -> None:
    await output_of(
        *("-m", "benchmarks.micro", "--work", "repeat", "error", "--rounds", "1"),
        *("--seconds", "0.005", "--json", str(tmp_path / "figures.json")),
        directory=ROOT,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["repeat"]["decode it"] < figures["repeat"]["call, 100 in flight"]
    assert "call, alone" in figures["error"]


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
async def test_instructions_are_counted_alike_each_time(tmp_path: Path) -> None:
    async def count(*arguments: str) -> str:
        return await output_of(
            *("-m", "benchmarks.instructions", "--only", "encode it", *arguments), directory=ROOT
        )

    earlier = tmp_path / "earlier.json"
    await count("--json", str(earlier))
    (counted,) = json.loads(earlier.read_text()).values()
    assert 1_000 < counted < 100_000
    again = await count("--against", str(earlier))
    (changed,) = re.findall(r"([+-]\d+\.\d) %", again)
    assert abs(float(changed)) < 2


async def test_instructions_need_valgrind() -> None:
    async with program(
        *("-m", "benchmarks.instructions"), directory=ROOT, environment={"PATH": ""}
    ) as running:
        output = await running.rest()
    assert running.exit_code == 1
    assert "apt-get install valgrind" in output


async def test_scale_is_measured(tmp_path: Path) -> None:
    await output_of(
        *("-m", "benchmarks.scale", "--rounds", "1", "--seconds", "0.2", "--scale", "0.1"),
        *("--json", str(tmp_path / "figures.json")),
        directory=ROOT,
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["memory"]["idle connection"]["typed_amp"] > 1_000
    assert figures["memory"]["call in flight"]["ratio"] > 1
    assert figures["start"]["commands and their answers"]["ms"] > 0
    assert figures["in-flight"].keys() == figures["connections"].keys() == {"1", "10"}


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


@pytest.mark.parametrize("peer", [*pool.OVERHEAD_PEERS, "computing"])
def test_pools_are_measured(peer: str) -> None:
    assert pool.measured(peer, 2, 1, 0.1) > 0


def test_tables_of_pools() -> None:
    [one, _, worker, _] = pool.scaling(1, 0.1)
    assert one[0] == "1 process alone"
    assert worker[0] == "1 worker"


async def test_calls_over_nats_are_measured_beside_others() -> None:
    options = "--rounds", "1", "--seconds", "0.05", "--in-flight", "3"
    output = await output_of("-m", "benchmarks.nats", *options, directory=ROOT)
    assert re.search(r"^3( +[0-9,.]+){6}$", output, re.MULTILINE)
