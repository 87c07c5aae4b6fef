"""The examples run for real, each side as a process of its own, and say what a user should see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import sys
from collections.abc import AsyncGenerator

import pytest

from tests.documents import ROOT
from tests.leftovers import children
from tests.leftovers import is_running as is_there
from tests.programs import PATIENCE, Program, output_of, program

LOCAL = "--host", "127.0.0.1", "--port"


@contextlib.asynccontextmanager
async def serving(module: str) -> AsyncGenerator[tuple[Program, str], None]:
    """Run an example's server; give it and its port."""
    async with program("-m", f"examples.{module}", *LOCAL, "0", directory=ROOT) as server:
        line = await server.line()
        listening = re.fullmatch(r"serving at 127\.0\.0\.1:([0-9]+)", line)
        assert listening, line
        yield server, listening[1]


async def run_client(module: str, port: str, *arguments: str) -> list[str]:
    output = await output_of("-m", f"examples.{module}", *LOCAL, port, *arguments, directory=ROOT)
    return output.splitlines()


async def test_repeat() -> None:
    async with serving("repeat.server") as (server, port):
        assert await run_client("repeat.client", port) == ["abcabcabc", "abab"]
        await server.stop()
    assert server.exit_code == 0


async def test_division() -> None:
    async with serving("division.server") as (server, port):
        assert await run_client("division.client", port) == [
            "7 / 2 = 3.5",
            "7 / 2 = 3, and 1 is left over",
            "an error that the command does not declare: UNKNOWN: Unknown Error",
            "7 / 0: division by zero",
            "7 / 0: division by zero",
            "the server gives up after 3 mistakes",
            "it has closed the connection",
        ]
        # What the client was not told is in the server's log.
        assert "ZeroDivisionError: integer division or modulo by zero" in await server.stop()


async def test_login() -> None:
    async with serving("login.server") as (server, port):
        shown = "Login(user='ann', password=SecretStr('**********'))"
        assert await run_client("login.client", port) == [
            "not allowed: log in first",
            "not logged in: wrong user or password",
            f"done: {shown}",
            "['buy a teapot']",
        ]
        output = await server.stop()
        assert f"logged in: {shown}" in output
        assert "correct horse" not in output


async def test_chat() -> None:
    def client(user: str, port: str) -> contextlib.AbstractAsyncContextManager[Program]:
        return program("-m", "examples.chat.client", *LOCAL, port, user, directory=ROOT)

    async with serving("chat.server") as (server, port), client("ann", port) as ann:
        assert await ann.line() == "* you are in, with nobody else"
        async with client("ann", port) as other_ann:
            assert await other_ann.rest() == "ann is there already; choose another name\n"
        async with client("bob", port) as bob:
            assert await bob.line() == "* you are in, with ann"
            assert await ann.line() == "* bob has come in"
            bob.type("good morning")
            assert await ann.line() == "bob: good morning"
            assert await bob.line() == "* heard by 1"
            bob.end_input()
            assert await bob.rest() == ""
            assert bob.exit_code == 0
        assert await ann.line() == "* bob has left"
        await server.stop()
        assert await ann.rest() == "the server has gone\n"


@pytest.mark.parametrize("server_kind", ["twisted", "typed"])
@pytest.mark.parametrize("client_kind", ["twisted", "typed"])
async def test_any_client_talks_to_any_server(client_kind: str, server_kind: str) -> None:
    async with serving(f"twisted_peers.{server_kind}_server") as (_, port):
        assert await run_client(f"twisted_peers.{client_kind}_client", port) == [
            "13 + 81 = 94",
            "1 / 4 = 0.25",
            "1 / 0: division by zero",
        ]


async def test_primes() -> None:
    arguments = "--limit", "20000", "--children", "2"
    output = await output_of("-m", "examples.primes.parent", *arguments, directory=ROOT)
    # Several programs print on one output, so that lines may run into each other.
    assert output.count("lost a worker, exit status -6") == 1
    assert "worker: 19000 to 20000" in output
    assert "2262 primes below 20000" in output


def server_pid(output: str) -> int:
    match = re.search(r"process of its own \(([0-9]+)\)", output)
    assert match, output
    return int(match[1])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_demo_shows_calls_of_each_kind() -> None:
    output = await output_of("-m", "examples.demo", directory=ROOT, environment={"COLUMNS": "80"})
    lines = [line.strip() for line in output.splitlines()]
    assert not [line for line in output.splitlines() if len(line) > 80]
    assert "\x1b" not in output  # it is no terminal
    assert not is_running(server_pid(output))
    (too_late,) = (
        line
        for line in lines
        if re.fullmatch(r"\| Wait: no answer from 127\.0\.0\.1:\d+ within 0\.1 seconds", line)
    )

    for expected in (
        "client -> server    _ask=1  _command=Repeat  text=abc  times=3",
        "server -> client    _answer=1  text=abcabcabc",
        "| RepeatResult(text='abcabcabc')",
        "| only 2 of teapot left",
        "server -> client    _error=6  _error_code=OUT_OF_STOCK",
        "| UNKNOWN: Unknown Error",
        "| refused here: Input should be greater than or equal to 0",
        "| refused there: times: Input should be greater than or equal to 0",
        "| UNHANDLED: Unhandled Command: 'MakeCoffee'",
        "client -> server    _command=Log  line='the teapot is empty'",
        too_late,
        "server -> client    _ask=1  _command=Progress  percent=50  dish=soup",
        "client -> server    _answer=1",
        "client 2 -> server  _ask=2  _command=Say  text='good morning'",
        "| heard by ['ann']",
        "items=[sku=teapot count=1 price=24.90][sku=cup count=6",
        "| 44.10 are due on 2024-06-16",
        "text.3='ing new under the su'... (24,930 bytes)",
        "| 30000 words",
        "| {b'text': b'abcabc'}",
    ):
        assert expected in lines, expected

    def in_order(*expected: str) -> bool:
        places = [lines.index(line) for line in expected]
        return places == sorted(places)

    assert in_order("| waited 0.1 seconds", "| waited 0.2 seconds", "| waited 0.3 seconds")
    assert in_order(
        "client -> server    _ask=b  _deadline=100  _command=Wait  seconds=0.4",
        too_late,
        "| still here",
    )
    assert "server -> client    _answer=b  seconds=0.4" not in lines  # nobody went on with it


@pytest.mark.parametrize("no_color", [False, True])
async def test_the_demo_is_in_colour_on_a_terminal(no_color: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
    )
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.demo", cwd=ROOT, env=environment, stdout=theirs
        )
        os.close(theirs)
        output = b""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(OSError):  # how a terminal says that its other end is gone
                while data := await reader.read(65_536):
                    output += data
            assert await process.wait() == 0
    finally:
        transport.close()
    assert b"abcabcabc" in output
    assert (b"\x1b[" in output) != no_color


async def test_the_demo_leaves_nothing_behind_when_it_is_stopped() -> None:
    async with program("-m", "examples.demo", directory=ROOT) as demo:
        output = ""
        while "_answer=1" not in output:
            output += await demo.line() + "\n"
        pid = server_pid(output)
        assert is_running(pid)
        await demo.stop()
        assert not is_running(pid)


async def test_cluster_loses_no_call_that_may_be_sent_again() -> None:
    before = children()
    output = await output_of("-m", "examples.cluster", "--seconds", "0.5", directory=ROOT)
    assert re.search(r"^lost calls that may be sent again: 0; others: \d+", output, re.MULTILINE)
    made = re.search(r"Price │ +([\d,]+) │ +0 │", output)
    assert made, output
    assert int(made[1].replace(",", "")) > 50
    for name in ("ann", "bob", "cat"):
        assert re.search(rf"│ {name} .*[1-9].*│", output), output
    assert "node 2 is killed" in output
    assert children() == before


async def test_cluster_leaves_nothing_when_it_is_ended() -> None:
    async with program("-m", "examples.cluster", directory=ROOT) as running:
        while "two clients ask" not in await running.line():
            pass
        started = children(running.process_id)
        assert len(started) == 8
        await running.stop()
    assert not any(is_there(each) for each in started)
