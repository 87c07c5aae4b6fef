from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import typed_amp

PACKAGE = Path(typed_amp.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

DOCUMENTED = {
    # commands
    "Command", "CommandError", "Codec", "Descriptor", "Json", "Key", "Large",
    # connections
    "Connection", "ConnectionOptions", "Counters", "PeerCredentials", "ProcessConnection", "Router",
    "Server", "connect", "connect_process", "connect_unix", "remaining_time", "run", "serve",
    "serve_fds", "serve_sockets", "serve_stdio", "serve_unix",
    # a client that comes back
    "Backoff", "Client", "ClientState", "ClientStatus",
    # processes that compute
    "PoolCounters", "QueueFullError", "WorkerPool", "WorkerStartError", "WorkerState",
    "WorkerStatus",
    # one client over several servers
    "ConnectionPool", "PoolState", "ServerState", "connect_pool",
    # over NATS
    "NatsClient", "NatsOptions", "NatsService", "connect_nats", "nats_bridge", "serve_nats",
    # from AMP to something else
    "StartTLS", "SwitchProtocol",
    # boxes
    "Box", "BoxReader", "Limits", "encode_box",
    # which of the two it is
    "COMPILED",
    # errors
    "AmpError", "CallTimeoutError", "ConnectionLostError", "DecodeError", "DefinitionError",
    "EncodeError", "ErrorDetail", "InvalidArgumentsError", "NoRespondersError", "NotAllowedError",
    "ProcessEndedError", "ProtocolViolationError", "RemoteAmpError", "StartTLSError",
    "TooLongError", "UnhandledCommandError", "UnknownRemoteError",
}  # fmt: skip


def module_named(name: str) -> ModuleType:
    return importlib.import_module(f"typed_amp.{name}")


def test_public_names_are_the_documented_ones() -> None:
    assert set(typed_amp.__all__) == DOCUMENTED


def test_all_names_are_sorted() -> None:
    for module in (typed_amp, *map(module_named, MODULES)):
        names: list[str] = module.__all__
        # Constants first, then classes, then functions, as the linter sorts them.
        kinds = [(not name.isupper(), not name[0].isupper(), name) for name in names]
        assert kinds == sorted(kinds), module.__name__
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_public_name_is_there_and_comes_from_a_module_that_exports_it(name: str) -> None:
    thing = getattr(typed_amp, name)
    assert any(
        getattr(module, name, None) is thing and name in module.__all__
        for module in map(module_named, MODULES)
    )


def test_nothing_else_is_at_the_top_but_the_modules() -> None:
    names = {name for name in vars(typed_amp) if not name.startswith("_")}
    assert names <= DOCUMENTED | set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_module_exports_names_that_exist(module: str) -> None:
    exported: list[str] = module_named(module).__all__
    assert exported
    for name in exported:
        assert hasattr(module_named(module), name)
        assert not name.startswith("_")


@pytest.mark.parametrize("module", MODULES)
def test_module_exports_all_that_it_defines_in_public(module: str) -> None:
    defined = {
        name
        for name, thing in vars(module_named(module)).items()
        if name.isidentifier()  # pydantic keeps generic classes with their parameters there too
        and not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == f"typed_amp.{module}"
    }
    assert defined <= set(module_named(module).__all__)


@pytest.mark.parametrize("module", MODULES)
def test_module_opens_with_the_rule_it_keeps(module: str) -> None:
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert re.search(r"^Rule of this module: ", docstring, re.MULTILINE)


def is_compiled(module: str) -> bool:
    return Path(module_named(module).__file__ or "").suffix != ".py"


def public_things() -> Iterator[tuple[str, object]]:
    for module in MODULES:
        if is_compiled(module):
            continue  # only its source has docstrings
        for name in module_named(module).__all__:
            thing = getattr(module_named(module), name)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue  # a constant, or an alias of somebody else's class
            yield f"{module}.{name}", thing
            if inspect.isclass(thing):
                for attribute in vars(thing):
                    member = getattr(thing, attribute)
                    if not attribute.startswith("_") and (
                        callable(member) or isinstance(member, property)
                    ):
                        yield f"{module}.{name}.{attribute}", member


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for name, thing in public_things()])
def test_public_thing_has_a_docstring(thing: object) -> None:
    if inspect.isclass(thing):  # of its own: a base's says something else
        assert vars(thing).get("__doc__")
        assert not str(thing.__doc__).startswith(f"{thing.__name__}(")  # as dataclasses make up
    else:
        assert inspect.getdoc(thing)


def test_package_says_that_it_is_typed() -> None:
    assert files("typed_amp").joinpath("py.typed").is_file()


def test_importing_starts_and_changes_nothing() -> None:
    program = f"""
import asyncio, gc, logging, signal, socket, sys, threading, warnings
sys.path.insert(0, {str(PACKAGE.parent)!r})

kinds = socket.socket, asyncio.AbstractEventLoop

def state():
    return (
        threading.active_count(),
        asyncio._get_running_loop(),
        [thing for thing in gc.get_objects() if isinstance(thing, kinds)],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        logging.getLogger().handlers[:],
        logging.getLogger("typed_amp").handlers[:],
        logging.getLogger("typed_amp").level,
        sys.excepthook,
        asyncio.Task,
    )

before = state()
import {", ".join(f"typed_amp.{module}" for module in MODULES)}
after = state()
assert before == after, (before, after)
assert "uvloop" not in sys.modules
assert "twisted" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
