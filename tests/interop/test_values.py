"""Every type of argument that Twisted has, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop import commands
from tests.interop.commands import Answer
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess
from tests.interop.values import CASES, OPTIONALS, described
from typed_amp import Command, Connection


@pytest.mark.parametrize("case", CASES)
async def test_twisted_echoes_our_value(connection: Connection[Session], case: str) -> None:
    name, value = CASES[case]
    command: Command[Answer[Any]] = getattr(commands, name)(value=value)
    answer = await connection.call(command)
    assert described(answer.value) == described(value)


@pytest.mark.parametrize("case", CASES)
async def test_we_echo_twisteds_value(
    our_server: OurServer, twisted_client: TwistedProcess, case: str
) -> None:
    name, value = CASES[case]
    echoed = await twisted_client.play("echo", our_server.where, case=case)
    assert echoed == described([value] if name == "EchoRow" else value)


@pytest.mark.parametrize("case", OPTIONALS)
async def test_twisted_echoes_our_optional_fields(
    connection: Connection[Session], case: str
) -> None:
    answer = await connection.call_remote(commands.EchoOptionals, **OPTIONALS[case])
    assert described(answer) == described(OPTIONALS[case])


@pytest.mark.parametrize("case", OPTIONALS)
async def test_we_echo_twisteds_optional_fields(
    our_server: OurServer, twisted_client: TwistedProcess, case: str
) -> None:
    echoed = await twisted_client.play("optionals", our_server.where, case=case)
    assert echoed == described(OPTIONALS[case])
