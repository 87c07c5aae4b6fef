"""`typed-amp serve`: its options, and files that change."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.peers import HOST, until
from tests.programs import program
from tests.supervised_programs import SHOP, serve, write
from tests.test_cli import fail


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    assert "'shop' is no router; say package.module:router" in fail(
        "serve", "shop", directory=tmp_path
    )
    for option in ("--tls-key", "--tls-ca"):
        errors = fail("serve", "shop:router", option, "a.pem", directory=tmp_path)
        assert f"{option} needs --tls-cert too" in errors
    errors = fail("serve", "shop:router", "--tls-cert", "a.pem", directory=tmp_path)
    assert "can't read" in errors
    errors = fail("serve", "shop:router", "--workers", "0", directory=tmp_path)
    assert "Invalid value for '--workers'" in errors
    errors = fail("serve", "shop:router", "--start-timeout", "0", directory=tmp_path)
    assert "--start-timeout must be positive, not 0" in errors


def test_where_nobody_can_listen_is_told(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("serve", "shop:router", "--host", HOST, "--port", port)
        errors = fail(*arguments, directory=tmp_path)
        assert "can't listen: [Errno" in errors
        assert port in errors
    (tmp_path / "file").touch()
    errors = fail("serve", "shop:router", "--unix", "file", directory=tmp_path)
    assert "can't listen: [Errno" in errors
    errors = fail("serve", "shop:router", "--pid-file", "no/where", directory=tmp_path)
    assert "can't write no/where: No such file" in errors


async def test_a_file_says_which_process_to_signal(tmp_path: Path) -> None:
    file = tmp_path / "serve.pid"
    async with serve("--pid-file", "serve.pid", directory=tmp_path) as served:
        await served.workers()
        assert int(file.read_text()) == served.process_id
        await served.stop()
    assert not file.exists()


async def test_only_what_is_asked_for_is_logged(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    arguments = ("serve", "shop:router", "--unix", "socket", "--log-level", "warning")
    async with program("-m", "typed_amp", *arguments, directory=tmp_path) as running:
        await until((tmp_path / "socket").is_socket)
        assert await running.stop() == ""
        assert running.exit_code == 0


async def test_a_file_that_changes_is_loaded(tmp_path: Path) -> None:
    async with serve("--reload", directory=tmp_path) as served:
        await served.workers()
        write(tmp_path, "1 +")
        await served.line("shop.py has changed: reloading")
        await served.line("SyntaxError.*; the workers that there are go on")
        write(tmp_path, SHOP)
        await served.line("shop.py has changed: reloading")
        await served.workers("reloaded")
        (tmp_path / "commands.py").touch()  # what shop may import from
        await served.line("commands.py has changed: reloading")
        await served.workers("reloaded")
        await served.stop()


async def test_with_reload_a_mistake_is_waited_over(tmp_path: Path) -> None:
    async with serve("--reload", directory=tmp_path, source="1 +") as served:
        await served.line("SyntaxError.*; waiting until a file changes")
        write(tmp_path, SHOP)
        await served.workers("serving")
        await served.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="terminals end in other ways elsewhere")
def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    write(tmp_path, SHOP)
    process_id, terminal = pty.fork()
    if process_id == 0:
        os.chdir(tmp_path)
        arguments = ("serve", "shop:router", "--unix", "socket", "--pid-file", "pid")
        os.execv(sys.executable, [sys.executable, "-m", "typed_amp", *arguments])
    shown = b""
    while b"serving: worker" not in shown:
        shown += os.read(terminal, 4096)
    worker = int(re.findall(rb"worker 1 \((\d+)\)", shown)[-1])
    os.close(terminal)
    _, status = os.waitpid(process_id, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not (tmp_path / "pid").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, signal.SIGTERM)
