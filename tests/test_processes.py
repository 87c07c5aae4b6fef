from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.child_program import Act, Flood
from tests.documents import ROOT
from tests.example_commands import CountDown, Make, Repeat, Text, example_router
from tests.leftovers import Leftovers, is_running
from tests.peers import LogCapture, settled, until
from tests.programs import program
from typed_amp import (
    Connection,
    ConnectionLostError,
    ProcessConnection,
    ProcessEndedError,
    Router,
    connect_process,
)
from typed_amp.opening import Opening

pytestmark = pytest.mark.usefixtures("nothing_left")

FDS = [(0, 1), (3, 4)]

both_fds = pytest.mark.parametrize("fds", FDS, ids=str)


def child(
    fds: tuple[int, int] = (0, 1), *, router: Router[Any] | None = None, **options: Any
) -> Opening[ProcessConnection[Any]]:
    """Start `child_program`."""
    options = {"cwd": ROOT, **options}
    return connect_process(
        *(sys.executable, "-X", "dev", "-m", "tests.child_program", *map(str, fds)),
        fds=fds,
        router=router or Router(),
        **options,
    )


def script(
    text: str, fds: tuple[int, int] = (0, 1), **options: Any
) -> Opening[ProcessConnection[Any]]:
    """Start a program of shell."""
    return connect_process("sh", "-c", text, fds=fds, **options)


async def works(connection: Connection[Any]) -> bool:
    return await connection.call(Repeat(text="ab")) == Text(text="ab")


# -- Speaking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fds", [(0, 1), (3, 4), (4, 3), (0, 4), (3, 1), (1, 0), (70, 200)], ids=str
)
async def test_calls_both_ways(fds: tuple[int, int]) -> None:
    router = example_router()

    @router.responder(CountDown)
    async def count_down(command: CountDown, connection: Connection) -> Text:
        answer = await connection.call(CountDown(start=command.start - 1))
        return Text(text=f"({command.start}) {answer.text}")

    async with child(fds, router=router) as connection:
        assert await works(connection)
        answer = await connection.call(CountDown(start=4))
        assert answer == Text(text="4 (3) 2 (1) 0")
        assert connection.exit_status is None
        assert is_running(connection.process_id)
    assert connection.exit_status == 0
    assert not is_running(connection.process_id)


@both_fds
async def test_ten_megabytes_both_ways_at_once(fds: tuple[int, int]) -> None:
    async with child(fds, router=example_router()) as connection:
        flood = asyncio.create_task(connection.call(Flood(calls=200, size=50_000)))
        calls = [connection.call(Make(size=50_000)) for _ in range(200)]
        answers = await asyncio.gather(*calls)
        assert sum(len(answer.data) for answer in answers) == 10_000_000
        assert (await flood).data == b"10000000"


async def test_entered_and_awaited() -> None:
    connection = await child()
    assert isinstance(connection, ProcessConnection)
    assert await works(connection)
    assert re.fullmatch(
        rf"<ProcessConnection tests\.child_program \(process {connection.process_id}\), open>",
        repr(connection),
    )
    assert connection.remote_address is None
    connection.close()
    connection.close()
    await connection.wait_closed()
    assert connection.exit_status == 0
    with pytest.raises(ConnectionLostError, match="is closed") as caught:
        await works(connection)
    assert caught.value.exit_status == 0


async def test_state_and_hooks() -> None:
    events: list[str] = []
    router = Router(state=list[int])

    @router.on_connect
    async def begin(connection: Connection[list[int]]) -> None:
        connection.state.append(1)
        assert await works(connection)
        events.append("begin")

    @router.on_disconnect
    async def end(connection: Connection[list[int]]) -> None:
        assert isinstance(connection, ProcessConnection)
        events.append(f"end with {connection.exit_status}")

    async with child(router=router) as connection:
        assert connection.state == [1]
        assert events == ["begin"]
    assert events == ["begin", "end with 0"]


# -- What the child gets -------------------------------------------------------------------------


@both_fds
async def test_environment_and_directory(fds: tuple[int, int], tmp_path: Path) -> None:
    async def ask(action: str, argument: str = "", **options: Any) -> str:
        async with child(fds, **options) as connection:
            return (await connection.call(Act(action=action, argument=argument))).text

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLOUR": "green"}
    assert await ask("environment", "COLOUR", env=environment) == "green"
    assert await ask("environment", "COLOUR") == "(unset)"
    directory = await ask("directory", cwd=tmp_path, env=environment)
    assert Path(directory).samefile(tmp_path)  # noqa: ASYNC240
    assert await ask("directory") == str(ROOT)


@both_fds
async def test_environment_is_what_was_said(
    fds: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    # Python itself sets LC_CTYPE where nothing says what characters are.
    async with script("env | sort >&2", fds, env={"PATH": os.environ["PATH"]}) as connection:
        await connection.wait_closed()
    names = {line.partition("=")[0] for line in capfd.readouterr().err.splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
@both_fds
async def test_signals_that_python_ignores_are_not_ignored(
    fds: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    async with script("grep SigIgn /proc/self/status >&2", fds) as connection:
        await connection.wait_closed()
    ignored = int(capfd.readouterr().err.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize("fds", [(0, 1), (3, 4), (9, 5)], ids=str)
async def test_no_descriptor_of_ours(fds: tuple[int, int]) -> None:
    inheritable, other = os.pipe()
    os.set_inheritable(inheritable, True)
    try:
        program = (
            "import os, sys, tests.leftovers as l; print(sorted(l.descriptors()), file=sys.stderr)"
        )
        reader, writer = os.pipe()
        stderr = os.dup(2)
        os.dup2(writer, 2)
        try:
            async with connect_process(sys.executable, "-c", program, fds=fds, cwd=ROOT) as alone:
                await alone.wait_closed()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(writer)
        with os.fdopen(reader) as output:
            assert output.read() == f"{sorted({0, 1, 2, *fds})}\n"
    finally:
        os.close(inheritable)
        os.close(other)


async def test_other_children_hold_no_pipe_open() -> None:
    async with child() as first, child((3, 4)) as second:
        assert await works(first)
        assert await works(second)
        first.close()
        await first.wait_closed()
        assert first.exit_status == 0
        assert await works(second)


@both_fds
async def test_print_does_not_break_the_stream(
    fds: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    async with child(fds) as connection:
        assert await connection.call(Act(action="print")) == Text(text="''")
        assert await works(connection)
    output = capfd.readouterr()
    assert output.out == ""
    assert sorted(output.err.split("\n")) == ["", "echoed", "kept back", "printed", "written"]


# -- Programs that can't be run ------------------------------------------------------------------


@both_fds
async def test_program_that_is_not_there(fds: tuple[int, int], tmp_path: Path) -> None:
    for name in (tmp_path / "nothing", "no-such-program-anywhere"):
        with pytest.raises(FileNotFoundError) as caught:
            await connect_process(name, "argument", fds=fds)
        assert caught.value.filename == str(name)


@both_fds
async def test_program_that_may_not_be_executed(fds: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    with pytest.raises(PermissionError) as caught:
        await connect_process(tmp_path / "data", fds=fds)
    assert caught.value.filename == str(tmp_path / "data")


@both_fds
async def test_directory_that_is_not_there(fds: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await connect_process("true", fds=fds, cwd=tmp_path / "nothing")
    assert caught.value.filename == str(tmp_path / "nothing")


@pytest.mark.parametrize("fds", [(3, 3), (-1, 4), (3, 2), (2, 4)], ids=str)
async def test_descriptors_that_make_no_sense(fds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"fds={fds}")):
        connect_process("true", fds=fds)


# -- The end of the child ------------------------------------------------------------------------


async def lost(connection: ProcessConnection[Any], action: Act) -> ConnectionLostError:
    """Make a call that doesn't come back, beside one that waits; both end alike."""
    calls = [connection.call(action), works(connection)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(errors[0], ConnectionLostError)
    with pytest.raises(ConnectionLostError) as caught:
        await works(connection)
    assert caught.value.exit_status == errors[0].exit_status
    assert isinstance(errors[0].__cause__, ProcessEndedError)
    return errors[0]


@both_fds
@pytest.mark.parametrize("status", [0, 3])
async def test_child_that_exits(fds: tuple[int, int], status: int) -> None:
    async with child(fds) as connection:
        error = await lost(connection, Act(action="exit", argument=str(status)))
        process_id = connection.process_id
        assert str(error) == (
            f"Act: the process tests.child_program (process {process_id})"
            f" ended with exit status {status}"
        )
        assert error.exit_status == connection.exit_status == status


@both_fds
async def test_child_that_is_killed(fds: tuple[int, int]) -> None:
    async with child(fds) as connection:
        error = await lost(connection, Act(action="kill", argument=str(int(signal.SIGSEGV))))
        assert str(error).endswith(f"(process {connection.process_id}) was killed by SIGSEGV")
        assert error.exit_status == connection.exit_status == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("method", "status"),
    [(ProcessConnection.terminate, -signal.SIGTERM), (ProcessConnection.kill, -signal.SIGKILL)],
)
async def test_child_that_we_end(method: Any, status: int) -> None:
    async with child() as connection:
        assert await works(connection)
        method(connection)
        await connection.wait_closed()
        assert connection.exit_status == status
        method(connection)


async def test_child_that_fails_as_it_begins(capfd: pytest.CaptureFixture[str]) -> None:
    async with connect_process(sys.executable, "-c", "import no_such_module") as connection:
        with pytest.raises(ConnectionLostError) as caught:
            await works(connection)
        assert caught.value.exit_status == 1
        assert re.fullmatch(
            r"Repeat: the process python\S* \(process \d+\) ended with exit status 1",
            str(caught.value),
        )
    assert "No module named 'no_such_module'" in capfd.readouterr().err


async def test_answer_before_the_end_arrives() -> None:
    # When the first call has begun to come in, the whole answer to it, and then nothing.
    answer = r"\0\7_answer\0\0011\0\4text\0\2ab\0\0"
    answering = f"head -c 10 >/dev/null; printf '{answer}'; exec 0<&-; exit 3"
    async with script(answering) as connection:
        assert await works(connection)
        await connection.wait_closed()
        assert connection.exit_status == 3


async def test_child_that_is_no_amp_program(log: LogCapture) -> None:
    async with connect_process("echo", "hello") as connection:
        await connection.wait_closed()
        assert connection.exit_status == 0
    assert "this is not AMP" in log.only_line()
    assert f"<ProcessConnection echo (process {connection.process_id})" in log.only_line()


# -- Children that do not end --------------------------------------------------------------------


async def test_child_that_goes_on_is_terminated() -> None:
    async with script("exec sleep 60", kill_timeout=0.05) as connection:
        pass
    assert connection.exit_status == -signal.SIGTERM


@both_fds
async def test_child_that_goes_on_in_spite_of_that_is_killed(fds: tuple[int, int]) -> None:
    async with child(fds, kill_timeout=0.05) as connection:
        await connection.call(Act(action="hang"))
    assert connection.exit_status == -signal.SIGKILL


@pytest.mark.parametrize("closed", ["0<&- 1>&-", "1>&-"])
async def test_child_that_closes_its_pipes_and_goes_on(closed: str) -> None:
    async with script(f"exec sleep 60 {closed}", kill_timeout=0.05) as connection:
        with pytest.raises(ConnectionLostError, match="was killed by SIGTERM"):
            await works(connection)
        await connection.wait_closed()


async def test_child_that_writes_after_the_end(tmp_path: Path) -> None:
    text = f"cat >/dev/null; head -c 1000000 /dev/zero && touch {tmp_path / 'done'}"
    async with script(text) as connection:
        pass
    assert connection.exit_status == 0
    assert (tmp_path / "done").exists()


async def test_child_whose_own_child_holds_the_pipes() -> None:
    reader, writer = os.pipe()
    stderr = os.dup(2)
    os.dup2(writer, 2)
    try:
        connection = await script("sleep 60 & echo $! >&2; exit 3")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writer)
    grandchild = int(os.read(reader, 100))
    os.close(reader)
    try:
        with pytest.raises(ConnectionLostError, match="ended with exit status 3"):
            await works(connection)
        await connection.wait_closed()
        assert is_running(grandchild)
    finally:
        os.kill(grandchild, signal.SIGKILL)


# -- Cancelling ----------------------------------------------------------------------------------


async def test_task_that_holds_the_connection_is_cancelled() -> None:
    opened: asyncio.Queue[ProcessConnection[Any]] = asyncio.Queue()

    async def hold() -> None:
        async with child() as connection:
            opened.put_nowait(connection)
            await works(connection)
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    connection = await opened.get()
    await works(connection)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.exit_status == 0


@both_fds
@pytest.mark.parametrize("turns", range(14))
async def test_cancelled_while_it_opens(fds: tuple[int, int], turns: int) -> None:
    leftovers = Leftovers()

    async def open_connection() -> ProcessConnection[Any]:
        return await script("exec sleep 60", fds, kill_timeout=0)

    task = asyncio.create_task(open_connection())
    await settled(turns)
    task.cancel()
    try:
        connection = await task
    except asyncio.CancelledError:
        assert not leftovers.children()
    else:
        connection.close()
        await connection.wait_closed()
    await leftovers.check()


async def test_cancelled_twice_while_it_opens() -> None:
    leftovers = Leftovers()

    async def open_connection() -> None:
        await script("exec sleep 60")

    task = asyncio.create_task(open_connection())
    await settled(1)
    task.cancel()
    await settled(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await leftovers.check()


async def test_cancelled_while_the_program_is_sought() -> None:
    leftovers = Leftovers()

    async def open_connection() -> None:
        await connect_process("no-such-program-anywhere", fds=(3, 4))

    task = asyncio.create_task(open_connection())
    await until(lambda: leftovers.children() or task.done())
    task.cancel()
    with pytest.raises((asyncio.CancelledError, FileNotFoundError)):
        await task
    await leftovers.check()


async def test_failing_hook_ends_the_child(log: LogCapture) -> None:
    leftovers = Leftovers()
    router = Router()
    met: list[Connection[Any]] = []

    @router.on_connect
    async def fail(connection: Connection) -> None:
        met.append(connection)
        raise ZeroDivisionError("no good")

    with pytest.raises(ConnectionLostError, match="no good"):
        await child(router=router)
    assert not leftovers.children()
    (connection,) = met
    assert isinstance(connection, ProcessConnection)
    assert connection.exit_status is not None


async def test_cancelled_during_the_hooks() -> None:
    leftovers = Leftovers()
    router = Router()
    begun = asyncio.Event()

    @router.on_connect
    async def wait(connection: Connection) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def open_connection() -> None:
        await child(router=router)

    task = asyncio.create_task(open_connection())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not leftovers.children()
    await leftovers.check()


# -- The end of the parent -----------------------------------------------------------------------


def parent(how: str, fds: tuple[int, int]) -> Any:
    arguments = "-X", "dev", "-W", "error", "-m", "tests.parent_program", how, *map(str, fds)
    return program(*arguments, directory=ROOT)


@both_fds
@pytest.mark.parametrize("how", ["close", "forget", "fail"])
async def test_parent_that_ends(how: str, fds: tuple[int, int]) -> None:
    async with parent(how, fds) as running:
        process_id = int(await running.line())
        output = await running.rest()
        assert output == ("failed\n" if how == "fail" else "")
        assert running.exit_code == (1 if how == "fail" else 0)
    assert not is_running(process_id)


@both_fds
async def test_parent_that_is_killed(fds: tuple[int, int]) -> None:
    async with parent("wait", fds) as running:
        process_id = int(await running.line())
        assert is_running(process_id)
        running.kill()
        assert await running.rest() == ""  # and it ended thereby: it held the other end
    await until(lambda: not is_running(process_id))


async def test_parent_that_is_interrupted() -> None:
    async with parent("wait", (0, 1)) as running:
        process_id = int(await running.line())
        running.interrupt()
        assert (await running.rest()).endswith("KeyboardInterrupt\n")
    assert not is_running(process_id)


async def test_child_that_hangs_is_killed_at_the_end_of_the_event_loop() -> None:
    async with parent("hanging child", (0, 1)) as running:
        process_id = int(await running.line())
        assert await running.rest() == ""
        assert running.exit_code == 0
    assert not is_running(process_id)


@both_fds
async def test_parent_without_standard_error(fds: tuple[int, int]) -> None:
    code = (
        "import os, sys; os.close(2);"
        " os.execv(sys.executable, [sys.executable, '-m', 'tests.parent_program', *sys.argv[1:]])"
    )
    async with program("-c", code, "close", *map(str, fds), directory=ROOT) as running:
        process_id = int(await running.line())
        assert await running.rest() == ""
        assert running.exit_code == 0
    assert not is_running(process_id)


# -- What messages call it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ([], "python3.11"),
        (["directory/worker.py", "x"], "worker.py"),
        (["-u", "worker.py"], "worker.py"),
        (["-X", "dev", "-W", "error", "worker.py"], "worker.py"),
        (["-m", "package.worker", "x"], "package.worker"),
        (["-c", "import x"], "python3.11"),
        (["-m"], "python3.11"),
    ],
)
def test_title(arguments: list[str], title: str) -> None:
    from typed_amp.child_process import _title

    assert _title(["/usr/bin/python3.11", *arguments]) == title
    assert _title(["/usr/bin/git", *arguments]) == "git"
