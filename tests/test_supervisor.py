"""`typed-amp serve`: its workers, and what signals do to them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.leftovers import children, is_running
from tests.peers import HOST, until
from tests.supervised_programs import SHOP, Served, serve, write
from typed_amp import Client, Command, ConnectionLostError, RemoteAmpError, connect, connect_unix

TURNS = int(os.environ.get("TYPED_AMP_TURNS", "1"))
"""How often the tests under load are run; see CONTRIBUTING.md."""


class Seen(BaseModel):
    process_id: int
    version: str


class Look(Command[Seen]):
    seconds: float = 0


class Die(Command[Seen], idempotent=True):
    pass


class DieOnce(Command[Seen], name="Die"):
    pass


class Hold(Command[Seen]):
    path: str


PLAIN = """
from typed_amp import Command, Router

class Look(Command):
    pass

router = Router()

@router.responder(Look)
def look(command: Look) -> None:
    pass
"""

HANGING = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(1000)"

UNINTERRUPTED = "import ctypes\nctypes.PyDLL(None).sleep(1000)  # holds Python's lock"

ONE_READY = """
import os
import pathlib
import time

try:
    os.open("first", os.O_CREAT | os.O_EXCL)
except FileExistsError:
    %s
"""
"""Only one worker gets by this."""

ONE_HANGS = ONE_READY % "pathlib.Path('begun').touch(); time.sleep(1000)"


async def ask(served: Served, times: int = 1) -> set[int]:
    """Ask on so many connections, all open at once; gives which workers have answered."""
    clients = [await Client(HOST, served.port) for _ in range(times)]
    seen: list[Seen] = [await client.call(Look()) for client in clients]
    for client in clients:
        client.close()
        await client.wait_closed()
    return {one.process_id for one in seen}


@pytest.mark.usefixtures("nothing_left")
async def test_workers_share_one_port_and_drain_when_told_to(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        assert set(workers) == {1, 2}
        assert await ask(served, 50) == set(workers.values())
        connection = await connect(HOST, served.port)
        calling = asyncio.create_task(connection.call(Hold(path=str(tmp_path / "go"))))
        await until((tmp_path / "go.begun").exists)
        served.signal(signal.SIGTERM)
        await served.line("SIGTERM: draining 2 workers")
        with pytest.raises(RemoteAmpError, match="CLOSING"):
            while True:
                await connection.call(Look())
        (tmp_path / "go").touch()
        answer: Seen = await calling
        assert answer.process_id in workers.values()
        rest = await served.program.rest()
        assert served.program.exit_code == 0
        assert rest.splitlines()[-1].endswith(": stopped")
        with pytest.raises(ConnectionRefusedError):
            await connect(HOST, served.port)


async def test_lines_say_who_and_which_process(tmp_path: Path) -> None:
    async with serve(directory=tmp_path) as served:
        workers = await served.workers()
        stamp = r"[\d-]+ [\d:,]+ INFO    supervisor \(\d+\): "
        assert re.fullmatch(
            rf"{stamp}listening at 127\.0\.0\.1:{served.port}, for shop:router", served.lines[0]
        )
        assert re.fullmatch(rf"{stamp}serving: worker 1 \({workers[1]}\)", served.lines[1])
        await served.stop()


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    async with serve(directory=tmp_path) as served:
        await served.workers()
        async with connect(HOST, served.port) as connection:
            calling = asyncio.create_task(connection.call(Hold(path=str(tmp_path / "never"))))
            await until((tmp_path / "never.begun").exists)
            served.program.interrupt()
            await served.line("SIGINT: draining 1 worker; another signal stops at once")
            served.program.interrupt()
            rest = await served.program.rest()
            assert "SIGINT again: stopping at once" in rest
            assert "stopped, before all calls were answered" in rest
            assert served.program.exit_code == 1
            with pytest.raises((RemoteAmpError, ConnectionLostError)):
                await calling


@pytest.mark.usefixtures("nothing_left")
async def test_a_worker_that_ends_is_started_again(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        async with connect(HOST, served.port) as connection:
            seen: Seen = await connection.call(Look())
            with pytest.raises(ConnectionLostError):
                await connection.call(DieOnce())
        (number,) = [one for one, process_id in workers.items() if process_id == seen.process_id]
        await served.line(rf"worker {number} \({seen.process_id}\) was killed by SIGKILL")
        await served.line(rf"starting worker {number} again in 0\.\d\d seconds")
        line = await served.line(r"worker \d \(\d+\) serves")
        replacement = int(line.rpartition("(")[2].partition(")")[0])
        assert is_running(replacement)
        # A worker that somebody asks to end does so decently, and is started again too.
        os.kill(replacement, signal.SIGTERM)
        await served.line(rf"worker {number} \({replacement}\) ended with exit status 0")
        await served.line(r"worker \d \(\d+\) serves")
        await served.stop()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_thing", r"can't import 'shop': ModuleNotFoundError: No module named"),
        ("1 +", r"can't import 'shop': SyntaxError: invalid syntax"),
        ("def f():\n    raise KeyError(1)\nf()", r"KeyError: 1 \(.*shop\.py, line 2\)"),
        ("import sys\nsys.exit('not today')", r"SystemExit: not today"),
        ("router = 1", r"shop has no router router"),
        (PLAIN, r"the responder of Look, shop.look .*, is a plain function"),
        ("import os\nos._exit(3)", r"worker \d \(\d+\) ended with exit status 3 before it was"),
    ],
)
@pytest.mark.usefixtures("nothing_left")
async def test_what_can_not_be_served_is_an_error_and_no_loop(
    tmp_path: Path, source: str, told: str
) -> None:
    async with serve("--workers", "2", directory=tmp_path, source=source) as served:
        rest = await served.program.rest()
    assert re.search(told, rest)
    assert served.program.exit_code == 2
    assert len(rest.splitlines()) == 1


@pytest.mark.usefixtures("nothing_left")
async def test_a_reload_brings_new_code_and_waits_for_what_runs(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        old = await served.workers()
        async with Client(HOST, served.port) as client:
            before: Seen = await client.call(Look())
            calling = asyncio.create_task(client.call(Hold(path=str(tmp_path / "go"))))
            await until((tmp_path / "go.begun").exists)
            write(tmp_path, SHOP.replace('"one"', '"two"'))
            new = await served.reload()
            assert not {*new.values()} & {*old.values()}
            while (after := await client.call(Look())).version == "one":
                pass  # on the old connection, until that closes
            assert (before.version, after.version) == ("one", "two")
            assert after.process_id in new.values()
            assert not calling.done()
            (tmp_path / "go").touch()
            held: Seen = await calling
            assert held.process_id == before.process_id
        await served.drained(2)
        assert not any(map(is_running, old.values()))
        await served.stop()


@pytest.mark.usefixtures("nothing_left")
async def test_a_reload_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        old = await served.workers()
        write(tmp_path, "1 +")
        served.signal(signal.SIGHUP)
        await served.line("can't import 'shop': SyntaxError.*; the workers that there are go on")
        assert await ask(served, 20) <= set(old.values())
        # One that has to be started meanwhile is tried again and again.
        os.kill(old[1], signal.SIGKILL)
        await served.line(r"starting worker 1 again")
        await served.line(r"can't import 'shop'")
        await served.line(r"starting worker 1 again")
        write(tmp_path, SHOP.replace('"one"', '"two"'))
        new = await served.reload()
        await served.drained(1)
        while not await ask(served, 20) <= set(new.values()):
            pass  # one that began just then with the new code drains too
        await served.stop()


async def test_workers_that_could_not_load_are_not_waited_for(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        await served.workers()
        write(tmp_path, "1 +")
        for _ in range(3):
            served.signal(signal.SIGHUP)
            await served.line("can't import 'shop'")
        write(tmp_path, SHOP)
        await served.reload()
        await served.drained(2)
        served.signal(signal.SIGTERM)
        await served.line("SIGTERM: draining 2 workers")
        await served.program.rest()


async def test_a_reload_in_the_middle_of_one_begins_it_anew(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        await served.workers()
        write(tmp_path, HANGING)
        served.signal(signal.SIGHUP)
        await until((tmp_path / "begun").exists)
        write(tmp_path, SHOP.replace('"one"', '"two"'))
        new = await served.reload()
        await served.drained(2)
        assert children(served.process_id) == set(new.values())
        await served.stop()


async def test_what_hangs_as_it_begins_does_not_keep_the_rest_from_ending(tmp_path: Path) -> None:
    async with serve(directory=tmp_path, source=HANGING) as served:
        await until((tmp_path / "begun").exists)
        await served.stop()


@pytest.mark.parametrize("source", [HANGING, UNINTERRUPTED], ids=["sleeps", "holds the lock"])
@pytest.mark.usefixtures("nothing_left")
async def test_what_hangs_as_it_begins_is_given_up(tmp_path: Path, source: str) -> None:
    options = ("--workers", "2", "--start-timeout", "2")
    async with serve(*options, directory=tmp_path, source=source) as served:
        rest = await served.program.rest()
    assert re.search(
        r"worker \d \(\d+\) had not loaded shop:router within 2 seconds and was ended; see what"
        r" holds it up, or give it longer with --start-timeout\n",
        rest,
    )
    assert served.program.exit_code == 2


@pytest.mark.usefixtures("nothing_left")
async def test_a_reload_and_a_replacement_that_hang_are_given_up(tmp_path: Path) -> None:
    options = ("--workers", "2", "--start-timeout", "10")
    async with serve(*options, directory=tmp_path) as served:
        workers = await served.workers()
        write(tmp_path, HANGING)
        os.kill(workers[1], signal.SIGKILL)
        await served.line(r"starting worker 1 again")
        await until((tmp_path / "begun").exists)
        served.signal(signal.SIGHUP)
        told = {
            "replacement": r"worker 1 \(\d+\) had not loaded .* with --start-timeout$",
            "reload": r"had not loaded .* with --start-timeout; the workers that there are go on",
        }
        while told:  # one is as likely as the other to be the first
            line = await served.line("had not loaded")
            told = {one: pattern for one, pattern in told.items() if not re.search(pattern, line)}
        assert any("not ready in time; it is here:" in line for line in served.lines)
        assert any('shop.py", line 3, in <module>' in line for line in served.lines)
        assert await ask(served) == {workers[2]}
        write(tmp_path, SHOP)
        await served.reload()
        await served.stop()


@pytest.mark.usefixtures("nothing_left")
async def test_a_worker_that_dies_while_others_begin_fails_the_reload(tmp_path: Path) -> None:
    options = ("--workers", "2", "--log-level", "debug")
    async with serve(*options, directory=tmp_path) as served:
        old = await served.workers()
        write(tmp_path, ONE_HANGS + SHOP)
        served.signal(signal.SIGHUP)
        line = await served.line(r"worker \d \(\d+\) is ready")
        (ready,) = re.findall(r"\((\d+)\) is ready", line)
        assert await ask(served, 20) <= set(old.values())  # the rest is not ready
        os.kill(int(ready), signal.SIGTERM)
        told = rf"\({ready}\) ended with exit status 0 before all were ready; the workers that"
        await served.line(told)
        assert children(served.process_id) == set(old.values())
        (tmp_path / "first").unlink()
        served.signal(signal.SIGHUP)
        line = await served.line(r"worker \d \(\d+\) is ready")
        (ready,) = re.findall(r"\((\d+)\) is ready", line)
        os.kill(int(ready), signal.SIGKILL)
        await served.line(rf"\({ready}\) was killed by SIGKILL before all were ready; the workers")
        assert children(served.process_id) == set(old.values())
        assert not any("drained" in line for line in served.lines)
        await served.stop()


# -- Draining --------------------------------------------------------------------------------


class Held:
    """A call that a worker carries out until it is let go."""

    def __init__(self, served: Served, directory: Path, name: str) -> None:
        self._served = served
        self._path = directory / name
        self.calling: asyncio.Task[Seen]
        self.process_id = 0

    async def begin(self, process_id: int | None = None) -> None:
        """Call, on a connection to one of the workers or to any."""
        while True:
            connection = await connect(HOST, self._served.port)
            seen: Seen = await connection.call(Look())
            if process_id in (None, seen.process_id):
                break
            connection.close()
        self.process_id = seen.process_id
        self.calling = asyncio.create_task(connection.call(Hold(path=str(self._path))))
        await until(self._path.with_suffix(".begun").exists)

    async def let_go(self) -> None:
        assert not self.calling.done()
        self._path.touch()
        assert (await self.calling).process_id == self.process_id


@pytest.mark.usefixtures("nothing_left")
async def test_all_old_workers_drain_at_the_same_time(tmp_path: Path) -> None:
    options = ("--workers", "2", "--drain-timeout", "1000")
    async with serve(*options, directory=tmp_path) as served:
        old = await served.workers()
        first, second = (Held(served, tmp_path, name) for name in ("first", "second"))
        await first.begin(old[1])
        await second.begin(old[2])
        await served.reload()
        await second.let_go()
        await served.line(rf"worker 2 \({old[2]}\) has drained")
        await first.let_go()
        await served.line(rf"worker 1 \({old[1]}\) has drained")
        await served.stop()


@pytest.mark.usefixtures("nothing_left")
async def test_a_reload_does_not_wait_for_those_that_drain(tmp_path: Path) -> None:
    async with serve("--drain-timeout", "1000", directory=tmp_path) as served:
        workers = await served.workers()
        held = [Held(served, tmp_path, f"held{number}") for number in range(4)]
        for number, one in enumerate(held[:3]):
            await one.begin(workers[1])
            write(tmp_path, SHOP.replace('"one"', f'"{number}"'))
            workers = await served.reload()
            async with connect(HOST, served.port) as connection:
                seen: Seen = await connection.call(Look())
                assert (seen.version, seen.process_id) == (f"{number}", workers[1])
        assert children(served.process_id) == {*(one.process_id for one in held[:3]), workers[1]}
        # There is a bound, and it is one that is said.
        await held[3].begin(workers[1])
        served.signal(signal.SIGHUP)
        await served.line("3 generations of workers drain; reloading when one of them has")
        assert await ask(served) == {workers[1]}
        await held[1].let_go()
        await served.line(rf"\({held[1].process_id}\) has drained")
        await served.workers("reloaded")
        served.signal(signal.SIGTERM)
        await served.line("SIGTERM: draining 4 workers")
        for one in (held[3], held[2], held[0]):
            await one.let_go()
            await served.line(rf"\({one.process_id}\) has drained")
        assert (await served.program.rest()).endswith("stopped\n")
        assert served.program.exit_code == 0


@pytest.mark.usefixtures("nothing_left")
async def test_a_second_signal_stops_those_too_that_drain_for_a_reload(tmp_path: Path) -> None:
    async with serve("--drain-timeout", "1000", directory=tmp_path) as served:
        await served.workers()
        held = Held(served, tmp_path, "held")
        await held.begin()
        await served.reload()
        served.signal(signal.SIGTERM)
        await served.line("SIGTERM: draining 2 workers")
        served.signal(signal.SIGTERM)
        rest = await served.program.rest()
        assert "stopped, before all calls were answered" in rest
        assert served.program.exit_code == 1
        with pytest.raises((RemoteAmpError, ConnectionLostError)):
            await held.calling


@pytest.mark.usefixtures("nothing_left")
async def test_a_worker_that_can_not_stop_accepting_drains_all_the_same(tmp_path: Path) -> None:
    broken = """
from typed_amp import Server

async def stop_accepting(server: Server) -> None:
    raise RuntimeError("not today")

Server.stop_accepting = stop_accepting
"""
    async with serve("--drain-timeout", "1000", directory=tmp_path, source=SHOP + broken) as served:
        workers = await served.workers()
        await served.reload()
        await served.line("it could not stop accepting as it should")
        await served.line("RuntimeError: not today")
        await served.line(rf"worker 1 \({workers[1]}\) has drained")
        await served.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        async with connect(HOST, served.port) as connection:
            calling = asyncio.create_task(connection.call(Hold(path=str(tmp_path / "go"))))
            await until((tmp_path / "go.begun").exists)
            served.program.kill()
            await served.line("the supervisor is gone; draining")
            (tmp_path / "go").touch()
            await calling
            await until(lambda: not any(map(is_running, workers.values())))


async def test_unix_sockets_are_served_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve("--unix", str(path), "--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        async with connect_unix(path) as connection:
            seen: Seen = await connection.call(Look())
            assert seen.process_id in workers.values()
        await served.reload()
        await served.drained(2)
        assert path.is_socket()
        await served.stop()
        assert not path.exists()


# -- Under load ------------------------------------------------------------------------------


class Load:
    """Callers that go on until they are told to stop, and note what fails."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = False
        self.answers = 0
        self.failures: list[Exception] = []
        self.seen: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, clients: int = 8, callers: int = 8) -> None:
        for number in range(clients):
            self._tasks.append(asyncio.create_task(self._keep_calling(callers, number)))
        for _ in range(4):
            self._tasks.append(asyncio.create_task(self._come_and_go()))

    async def more(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = self.answers + count
        await until(lambda: self.answers >= goal)

    async def end(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _keep_calling(self, callers: int, seed: int) -> None:
        """Call with one client that stays."""

        async def call_on(client: Client, number: int) -> None:
            while not self._is_over:
                number += 1
                await self._call(client, seconds=number % 7 * 0.003)

        async with Client(HOST, self._port) as client:
            await asyncio.gather(*(call_on(client, seed + number) for number in range(callers)))

    async def _come_and_go(self) -> None:
        """Call once with each of many clients."""
        while not self._is_over:
            async with Client(HOST, self._port) as client:
                await self._call(client)

    async def _call(self, client: Client, seconds: float = 0) -> None:
        try:
            seen: Seen = await client.call(Look(seconds=seconds))
        except Exception as error:
            self.failures.append(error)
        else:
            self.answers += 1
            self.seen.add(seen.process_id)


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.usefixtures("nothing_left")
async def test_no_call_fails_while_all_is_reloaded(tmp_path: Path, turn: int) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        generations = [await served.workers()]
        load = Load(served.port)
        load.begin()
        for _ in range(3):
            await load.more(300)
            generations.append(await served.reload())
            await served.drained(2)
        await load.more(300)
        await load.end()
        assert load.failures == []
        for generation in generations:
            assert load.seen & set(generation.values())
        await served.stop()


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.usefixtures("nothing_left")
async def test_no_call_fails_while_all_is_reloaded_in_haste(tmp_path: Path, turn: int) -> None:
    async with serve("--workers", "2", "--log-level", "debug", directory=tmp_path) as served:
        await served.workers()
        load = Load(served.port)
        load.begin()
        new: dict[int, int] = {}
        for number in range(2):
            await load.more(100)
            # One that fails when half of it is ready,
            write(tmp_path, ONE_READY % "raise" + SHOP)
            served.signal(signal.SIGHUP)
            await served.line("FileExistsError.*; the workers that there are go on")
            (tmp_path / "first").unlink()
            # one that is given up when half of it is ready,
            write(tmp_path, ONE_HANGS + SHOP)
            served.signal(signal.SIGHUP)
            await served.line(r"is ready")
            await until((tmp_path / "begun").exists)
            # and one that is good, while the one before drains.
            write(tmp_path, SHOP.replace('"one"', f'"{number}"'))
            (tmp_path / "first").unlink()
            (tmp_path / "begun").unlink()
            new = await served.reload()
        while not await ask(served, 20) <= set(new.values()):
            pass
        await load.more(300)
        await load.end()
        assert load.failures == []
        await served.stop()


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.usefixtures("nothing_left")
async def test_workers_killed_under_load_are_replaced(tmp_path: Path, turn: int) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        load = Load(served.port)
        load.begin()
        for process_id in workers.values():
            await load.more(200)
            os.kill(process_id, signal.SIGKILL)
            await served.line(rf"\({process_id}\) was killed by SIGKILL")
            await served.line("serves")
        # What was under way on a worker fails, and nothing else does.
        assert load.failures
        assert all(isinstance(error, ConnectionLostError) for error in load.failures)
        load.failures.clear()
        await load.more(300)
        await load.end()
        assert load.failures == []
        assert load.seen - set(workers.values())
        await served.stop()
