"""`typed-amp call`, from the shell to a server and back."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.peers import HOST, until
from tests.supervised_programs import Served, serve
from tests.test_cli import PROGRAM
from typed_amp.cli_call import _progress
from typed_amp.load import Result


@dataclass
class Shell:
    """A shell in the directory of a shop that is served."""

    served: Served
    directory: Path

    async def call(self, *arguments: str, address: str = "") -> tuple[int, str, str]:
        """Run `typed-amp call` to its end: its exit code, and what it printed on both outputs."""
        process = await self.begin(*arguments, address=address)
        output, errors = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in errors
        return process.returncode, output.decode(), errors.decode()

    async def begin(self, *arguments: str, address: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            PROGRAM,
            *("call", address or f"{HOST}:{self.served.port}", *arguments),
            cwd=self.directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def succeed(self, *arguments: str, address: str = "") -> str:
        code, output, errors = await self.call(*arguments, address=address)
        assert (code, errors) == (0, "")
        return output

    async def fail(self, code: int, *arguments: str, address: str = "") -> str:
        found, output, errors = await self.call(*arguments, address=address)
        assert (found, output) == (code, ""), errors
        return errors


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    async with serve("--workers", "2", directory=tmp_path) as served:
        await served.workers()
        yield Shell(served, tmp_path)


async def test_an_answer_is_a_table_or_json(shell: Shell) -> None:
    output = await shell.succeed("shop:Look", "seconds=0.01")
    assert re.fullmatch(r"process_id  \d+\nversion     one\n", output)
    answer = json.loads(await shell.succeed("shop:Look", "--json"))
    assert answer == {"process_id": answer["process_id"], "version": "one"}
    assert await shell.succeed("shop:Log", "line=hello") == ""
    assert "hello" in await shell.served.line("hello")


async def test_errors_of_the_peer_have_their_code_and_fields(shell: Shell) -> None:
    errors = await shell.fail(1, "shop:Buy", "sku=tea\x1b")
    assert errors == "typed-amp: OUT_OF_STOCK: sku='tea\\x1b'\n"
    errors = await shell.fail(1, "shop:Buy", "sku=tea", "--json")
    assert json.loads(errors) == {
        "error": {"code": "OUT_OF_STOCK", "description": "sku='tea'", "fields": {"sku": "tea"}}
    }
    source = "from typed_amp import Command\nclass Other(Command):\n    pass\n"
    (shell.directory / "others.py").write_text(source)
    assert "typed-amp: UNHANDLED: " in await shell.fail(1, "others:Other")


async def test_wrong_arguments_are_never_sent(shell: Shell) -> None:
    errors = await shell.fail(2, "shop:Look", "seconds=soon")
    assert errors.startswith("typed-amp: shop:Look: seconds: Input should be a valid number")
    assert await shell.fail(2, "shop:Buy") == "typed-amp: shop:Buy: sku: missing; say sku=value\n"
    assert "has no such field" in await shell.fail(2, "shop:Look", "sceonds=1")
    assert "it has Look, Die" in await shell.fail(2, "shop:Loook")
    assert "can't import 'shp'" in await shell.fail(2, "shp:Look")
    assert "names a module or nothing" in await shell.fail(2, "shop")
    assert "is no address; say HOST:PORT" in await shell.fail(2, "shop:Look", address="localhost")
    assert "--in-flight needs --repeat" in await shell.fail(2, "shop:Look", "--in-flight", "2")
    assert "--tls-key needs --tls-cert" in await shell.fail(2, "shop:Look", "--tls-key", "k.pem")
    assert "65,535" in await shell.fail(2, "shop:Buy", f"sku={'x' * 70_000}")


async def test_no_connection_and_no_answer_have_codes_of_their_own(shell: Shell) -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    errors = await shell.fail(3, "shop:Look", address=f"{HOST}:{port}")
    assert errors.startswith(f"typed-amp: NO_CONNECTION: can't connect to {HOST}:{port}: ")
    errors = await shell.fail(3, "shop:Die")
    assert errors.startswith("typed-amp: CONNECTION_LOST: ")
    errors = await shell.fail(4, "shop:Look", "seconds=60", "--timeout", "0.2")
    assert errors.startswith("typed-amp: TIMEOUT: Look: no answer")


async def test_a_call_under_load_is_measured(shell: Shell) -> None:
    arguments = ("shop:Look", "--repeat", "500", "--in-flight", "20", "--connections", "4")
    output = await shell.succeed(*arguments)
    assert re.search(r"^calls  500 in \d+\.\d\d s$", output, re.MULTILINE)
    for name in ("p50", "p90", "p99", "max"):
        assert re.search(rf"^{name}    [\d.]+ (us|ms|s)$", output, re.MULTILINE)
    bars = re.findall(r"^[\d.]+ \w+ to [\d.]+ \w+ +([\d,]+)  ?#*$", output, re.MULTILINE)
    assert sum(map(int, bars)) == 500
    result = json.loads(await shell.succeed(*arguments, "--json"))
    assert (result["calls"], result["errors"]) == (500, {})
    assert 0 < result["latency"]["p50"] <= result["latency"]["p99"] <= result["latency"]["max"]


async def test_errors_under_load_are_counted_by_their_codes(shell: Shell) -> None:
    code, output, _ = await shell.call("shop:Buy", "sku=a", "--repeat", "30", "--in-flight", "3")
    assert code == 1
    assert re.search(r"^OUT_OF_STOCK  30$", output, re.MULTILINE)
    assert "p50" not in output
    code, output, _ = await shell.call(
        *("shop:Look", "seconds=60", "--repeat", "4", "--in-flight", "4", "--timeout", "0.1")
    )
    assert code == 1
    assert re.search(r"^TIMEOUT  4$", output, re.MULTILINE)


async def test_a_reload_under_load_costs_no_call(shell: Shell) -> None:
    process = await shell.begin(
        *("shop:Look", "seconds=0.001", "--repeat", "4000", "--in-flight", "20"),
        *("--connections", "4", "--json"),
    )
    await shell.served.reload()
    output, _ = await process.communicate()
    assert json.loads(output)["errors"] == {}
    assert process.returncode == 0


async def test_an_interrupted_load_says_how_far_it_came(shell: Shell) -> None:
    path = shell.directory / "go"
    process = await shell.begin("shop:Hold", f"path={path}", "--repeat", "10")
    await until(path.with_suffix(".begun").exists)
    process.send_signal(signal.SIGINT)
    output, errors = await process.communicate()
    assert process.returncode == 130
    assert output.startswith(b"calls  0 in ")
    assert errors == b""


@pytest.mark.skipif(sys.platform != "linux", reason="terminals end in other ways elsewhere")
async def test_a_terminal_shows_how_far_it_is(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("call", f"{HOST}:{shell.served.port}", "shop:Look", "seconds=0.05"),
        *("--repeat", "10", "--in-flight", "2"),
        cwd=shell.directory,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    await process.wait()
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:
        pass  # nobody has the other end any more
    os.close(ours)
    assert process.returncode == 0
    assert b"/10" in shown
    assert b"calls/s, 0 errors" in shown


async def test_nothing_of_the_bar_goes_on_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    before = asyncio.all_tasks()
    async with _progress(Result(), 10):
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before


async def test_tls_and_unix_sockets(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for name in ("server.example.org", "ann@example.org"):
        certificate = authority.issue_cert(name)
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    options = (
        *("--tls-cert", "server.example.org.pem", "--tls-ca", "authority.pem"),
        *("--unix", "socket", "--port", "0", "--host", HOST),
    )
    async with serve(*options, directory=tmp_path) as served:
        assert re.search(r"127\.0\.0\.1:\d+, socket, with TLS", served.lines[0])
        await served.workers()
        shell = Shell(served, tmp_path)
        tls = ("--tls-ca", "authority.pem", "--server-name", "server.example.org")
        own = ("--tls-cert", "ann@example.org.pem")
        assert "one" in await shell.succeed("shop:Look", *tls, *own)
        assert "one" in await shell.succeed("shop:Look", address="unix:socket")
        errors = await shell.fail(3, "shop:Look", "--tls")
        assert "certificate verify failed" in errors
        assert "NO_CONNECTION" in await shell.fail(3, "shop:Look", *tls[:2], *own)
        # Certificates are read anew when all is reloaded.
        certificate = authority.issue_cert("other.example.org")
        certificate.private_key_and_cert_chain_pem.write_to_path(
            tmp_path / "server.example.org.pem"
        )
        await served.reload()
        await served.drained(1)
        assert "NO_CONNECTION" in await shell.fail(3, "shop:Look", *tls, *own)
        tls = (*tls[:3], "other.example.org")
        assert "one" in await shell.succeed("shop:Look", *tls, *own)
        # Those that can't be used leave all as it was.
        (tmp_path / "server.example.org.pem").write_text("nothing")
        served.signal(signal.SIGHUP)
        await served.line("can't use the certificate .*; the workers that there are go on")
        assert "one" in await shell.succeed("shop:Look", *tls, *own)
        await served.stop()
