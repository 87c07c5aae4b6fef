"""Commands that `typed-amp from-twisted` wrote, and the ones that it read: do they agree?"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from tests.interop import twisted_commands
from tests.interop.peers import ROOT, Session, TwistedProcess
from tests.interop.samples import SAMPLES
from tests.interop.values import CASES, described
from tests.peers import HOST, port_of
from tests.pipes import Pipe, new_pipe
from tests.programs import output_of, program
from typed_amp import Command, Connection, Router, connect, connect_unix, serve
from typed_amp.from_twisted import convert

__all__ = ["new_pipe"]

MODULES = [
    "tests.interop.odd_commands",
    "twisted.trial._dist.workercommands",
    "twisted.trial._dist.managercommands",
    "twisted.trial._dist.stream",
]

modules = pytest.mark.parametrize("module", MODULES)


@contextmanager
def converted(module: str, directory: Path) -> Iterator[ModuleType]:
    """Convert a module of Twisted commands, and import what came of it."""
    name = f"converted_{module.replace('.', '_')}"
    file = directory / f"{name}.py"
    file.write_text(convert([module]).source)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    try:
        yield made
    finally:
        del sys.modules[name]


def commands_of(module: ModuleType) -> list[type[Command[Any]]]:
    return [
        thing
        for name, thing in vars(module).items()
        if name.isidentifier()  # pydantic puts Command[Answer] there too
        and isinstance(thing, type)
        and issubclass(thing, Command)
        and thing.__module__ == module.__name__
    ]


BY_TYPE = {type(value): value for value in SAMPLES.values()} | {Path: SAMPLES["Path"]}


def sample(annotation: Any) -> Any:
    if isinstance(annotation, UnionType):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not list:
        return BY_TYPE[annotation]
    (element,) = get_args(annotation)
    if isinstance(element, type) and issubclass(element, BaseModel):
        return [sample_of(element), sample_of(element, full=False)]
    return [sample(element)] * 2


def sample_of(model: type[BaseModel], *, full: bool = True) -> Any:
    """Give a sample of a model; if it is not full, what is optional is None."""
    fields = model.model_fields.items()
    values = {
        name: sample(field.annotation) for name, field in fields if full or field.is_required()
    }
    return model(**values)


def answer_type(command: type[Command[Any]]) -> Any:
    plan = command.__amp_signature__().answer
    return None if plan is None else plan.model


@modules
async def test_they_call_the_original(module: str, tmp_path: Path) -> None:
    server = program("-m", "tests.interop.sample_peer", "server", module, directory=ROOT)
    with converted(module, tmp_path) as made:
        async with server as peer, connect(HOST, int(await peer.line())) as connection:
            assert commands_of(made)
            for command in commands_of(made):
                expected = answer_type(command)
                for full in (True, False):
                    answer = await connection.call(sample_of(command, full=full))
                    assert answer == (expected and sample_of(expected, full=full))
            peer.end_input()
            assert await peer.rest() == ""


def responder(command: type[Command[Any]]) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    expected = answer_type(command)

    async def respond(asked: Command[Any]) -> Any:
        for full in (True, False):
            if asked == sample_of(command, full=full):
                return expected and sample_of(expected, full=full)
        raise AssertionError(f"{asked} is no sample")

    return respond


@modules
async def test_they_answer_the_original(module: str, tmp_path: Path) -> None:
    with converted(module, tmp_path) as made:
        router = Router()
        for command in commands_of(made):
            router.responder(command)(responder(command))
        async with serve(router, HOST, 0) as server:
            arguments = "client", module, str(port_of(server))
            printed = await output_of("-m", "tests.interop.sample_peer", *arguments, directory=ROOT)
    outcomes = json.loads(printed)
    assert outcomes
    assert {*outcomes.values()} == {"as expected"}, outcomes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The commands of the other tests here, converted."""
    directory = tmp_path_factory.mktemp("converted")
    with converted("tests.interop.twisted_commands", directory) as module:
        yield module


@pytest.fixture
def transport() -> str:
    return "tcp"


KNOWN = [
    name
    for name, command in vars(twisted_commands).items()
    if name.startswith("Echo")
    and not any(
        type(argument).__module__.endswith("twisted_large") for _, argument in command.arguments
    )
]
"""The commands without arguments that only their authors know."""


async def test_descriptors_reach_the_original(
    twisted_server: TwistedProcess, made: Any, new_pipe: Callable[[], Pipe]
) -> None:
    pipe = new_pipe()
    async with connect_unix(twisted_server.places["unix"]) as connection:
        rows = [made.WriteToAllRowsRow(descriptor=pipe.writing, text="a row, ")]
        await connection.call(made.WriteToAll(rows=rows, last=pipe.writing))
    assert pipe.read_all() == b"a row, the end"


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in KNOWN])
async def test_every_value_is_written_alike(
    connection: Connection[Session], made: Any, case: str
) -> None:
    name, value = CASES[case]
    value = [value] if name == "EchoRow" else value
    answer = await connection.call(getattr(made, name)(value=value))
    assert described(answer.value) == described(value)


async def test_errors_come_back_as_themselves(connection: Connection[Session], made: Any) -> None:
    for error in (made.OutOfStockError, made.TwistedAloneError, KeyError):
        with pytest.raises(error, match="said the peer, é"):
            await connection.call(made.Fail(error=error.__name__))
    with pytest.raises(made.BrokenError, match="said the peer, é"):
        await connection.call(made.Fail(error="BrokenError"))
    await connection.wait_closed()


async def test_errors_reach_the_original(twisted_client: TwistedProcess, made: Any) -> None:
    router = Router()

    @router.responder(made.Fail)
    async def fail(command: Any) -> None:
        error_type = getattr(made, command.error, KeyError)
        raise error_type("said we, é")

    names = "OutOfStockError", "TwistedAloneError", "KeyError", "BrokenError", "KeyError"
    async with serve(router, HOST, 0) as server:
        where = {"transport": "tcp", "port": port_of(server)}
        outcomes = await twisted_client.call(where, *(("Fail", {"error": name}) for name in names))
    # The fourth is fatal.
    assert [outcome["error"] for outcome in outcomes] == [*names[:4], "ConnectionDone"]
