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
        hanging = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(1000)"
        write(tmp_path, hanging)
        served.signal(signal.SIGHUP)
        await until((tmp_path / "begun").exists)
        write(tmp_path, SHOP.replace('"one"', '"two"'))
        new = await served.reload()
        await served.drained(2)
        assert children(served.process_id) == set(new.values())
        await served.stop()


async def test_what_hangs_as_it_begins_does_not_keep_the_rest_from_ending(tmp_path: Path) -> None:
    source = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(1000)"
    async with serve(directory=tmp_path, source=source) as served:
        await until((tmp_path / "begun").exists)
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
