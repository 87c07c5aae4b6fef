"""What the documentation shows is run, and what it links to is there.

The convention: a Python block that begins with `# name.py` is a file. Other Python blocks run one
after the other, as if they were one async program. Console blocks are commands: each is carried
out, and prints what stands below it. Ports 8000 to 8009 stand for free ones.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import shlex
import socket
import subprocess
import sys
import types
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme

from tests.documents import DOCUMENTS, ROOT, Block, anchors, blocks, links
from tests.nats_servers import nats_server
from tests.programs import output_of, program

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


@documents
def test_each_block_is_in_a_language_that_is_run(document: Path) -> None:
    assert {block.language for block in blocks(document)} <= {"python", "console"}


@documents
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert target.is_file(), f"{document}: {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT)), f"{document}: {link}"


@documents
@pytest.mark.usefixtures("workplace")
async def test_code_runs(document: Path, tmp_path: Path) -> None:
    ports: dict[str, str] = {}

    def adapted(text: str) -> str:
        return re.sub(r"\b800[0-9]\b", lambda port: ports.setdefault(port[0], free_port()), text)

    unused: set[str] = set()
    namespace = new_module(f"code_of_{document.stem.replace('-', '_')}")
    async with contextlib.AsyncExitStack() as servers:
        for block in blocks(document):
            if block.language == "console":
                for command, output in block.commands:
                    words = shlex.split(adapted(command))
                    unused -= {*words}
                    await carry_out(words, adapted("\n".join(output)), tmp_path, servers)
            elif block.file_name is not None:
                (tmp_path / block.file_name).write_text(adapted(block.text))
                unused.add(block.file_name)
            else:
                unused = {name for name in unused if f'"{name}"' not in block.text}  # started there
                await execute(block, adapted(block.text), document, namespace)
        for file_name in unused:  # such as commands.py, which others import
            await output_of(file_name, directory=tmp_path)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
async def test_the_files_of_the_readme_are_typed(checker: str, tmp_path: Path) -> None:
    for block in blocks(Path("README.md")):
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text)
    if checker == "mypy":
        options = "--config-file", str(ROOT / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")
        await output_of("-m", "mypy", *options, str(tmp_path), directory=tmp_path)
    else:
        (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        await output_of("-m", "basedpyright", "--pythonpath", sys.executable, directory=tmp_path)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None, None, None]:
    """A directory to work in, with the certificates that the documentation speaks of.

    Modules that are imported from it are forgotten afterwards: each document has its commands.py.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for name, identity in (("server", "localhost"), ("client", "ann@example.org")):
        certificate = authority.issue_cert(identity)
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        for part in certificate.cert_chain_pems:
            part.write_to_path(tmp_path / f"{name}.pem", append=True)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("code_of_") or (file and Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]


def free_port() -> str:
    with socket.create_server(("localhost", 0)) as listener:
        return str(listener.getsockname()[1])


def new_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


async def execute(block: Block, text: str, document: Path, module: types.ModuleType) -> None:
    tree = ast.parse("\n" * (block.line - 1) + text, str(document))
    code = compile(tree, str(ROOT / document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, vars(module))
    else:
        exec(code, vars(module))


async def carry_out(
    words: list[str], output: str, directory: Path, servers: contextlib.AsyncExitStack
) -> None:
    match words:
        case ["make", target, *variables]:
            makefile = (ROOT / "Makefile").read_text()
            recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
            assert recipe is not None, f"no target {target}"
            for variable in variables:
                assert f"$({variable.partition('=')[0]})" in recipe[1]
        case ["pip", "install", "." | ".[cli]" | ".[nats]"]:
            assert (ROOT / "pyproject.toml").is_file()
        case [".venv/bin/python", "-m", module, *_]:
            assert find_spec(module) is not None  # tests/test_examples.py runs it
        case ["typed-amp", "serve", *arguments]:
            await start_supervisor(arguments, directory, servers)
        case ["typed-amp", *arguments]:
            run_command_line(arguments, output, directory)
        case ["nats-server", "-a", "127.0.0.1", "-p", port]:
            place = directory / "nats"
            place.mkdir()
            servers.enter_context(nats_server(place, port=int(port)))
        case ["pytest", file]:
            await output_of("-m", "pytest", "-p", "no:cacheprovider", file, directory=directory)
        case ["python", file] if file.endswith("server.py"):
            await start_server(file, output, directory, servers)
        case ["python", file]:
            assert await output_of(file, directory=directory) == f"{output}\n"
        case _:
            pytest.fail(f"no test carries out {shlex.join(words)}")


def run_command_line(arguments: list[str], output: str, directory: Path) -> None:
    command = [sys.executable, "-m", "typed_amp", *arguments]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if output.startswith("typed-amp: "):
        assert result.stderr == f"{output}\n"
        return
    assert result.returncode in (0, 1), result.stderr  # 1: what it looked at is broken
    if "--repeat" in arguments:  # how long it took is another time every time
        pairs = zip(result.stdout.split("\n")[:6], output.split("\n")[:6], strict=True)
        assert all(found.split()[:1] == told.split()[:1] for found, told in pairs)
    elif output:
        assert result.stdout == f"{output}\n"


async def start_supervisor(
    arguments: list[str], directory: Path, servers: contextlib.AsyncExitStack
) -> None:
    command = ["-m", "typed_amp", "serve", *arguments]
    supervisor = await servers.enter_async_context(program(*command, directory=directory))

    async def stop() -> None:
        output = await supervisor.stop()
        assert supervisor.exit_code == 0, output

    servers.push_async_callback(stop)
    while ": serving: worker 1" not in await supervisor.line():
        pass


async def start_server(
    file: str, output: str, directory: Path, servers: contextlib.AsyncExitStack
) -> None:
    server = await servers.enter_async_context(program(file, directory=directory))

    async def stop() -> None:
        output = await server.stop()
        assert server.exit_code == 0, output

    servers.push_async_callback(stop)
    # "localhost" may stand for other addresses too, so that there is more than is shown.
    assert set(output.split()) <= set(re.split(r"[ ,]+", await server.line()))
