"""A secret travels, and is seen nowhere but at its other end."""

from __future__ import annotations

import dataclasses
import logging
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretBytes, SecretStr, ValidationError

from tests.peers import HOST, LogCapture, port_of, raw_client
from typed_amp import (
    Command,
    CommandError,
    DecodeError,
    EncodeError,
    InvalidArgumentsError,
    Large,
    Router,
    TooLongError,
    UnknownRemoteError,
    connect,
    serve,
)
from typed_amp.testing import connection_pair

HUSH = "hush"


class Card(BaseModel):
    number: SecretStr


@dataclasses.dataclass
class Key:
    material: SecretBytes


class Token(BaseModel):
    token: SecretStr
    keys: list[Key] = []


class Locked(CommandError):
    recovery: SecretStr


def odd(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value().startswith(HUSH):
        return secret
    raise ValueError("a password begins otherwise")


class Login(Command[Token], errors={Locked: "LOCKED"}):
    password: Annotated[SecretStr, AfterValidator(odd)]
    otp: SecretBytes | None = None
    others: list[SecretStr] = []
    cards: list[Card] = []
    picture: Annotated[SecretBytes, Large()] = SecretBytes(b"")
    want: str = "token"


class CarelessLogin(Command, name="Login"):
    """The same from a peer that is written otherwise."""

    password: bytes | None = None
    otp: bytes = b""
    cards: bytes = b""
    want: str = "token"


router = Router()
full = Login(
    password=SecretStr(f"{HUSH}1"),
    otp=SecretBytes(b"hush2"),
    others=[SecretStr("hush3"), SecretStr("")],
    cards=[Card(number=SecretStr("hush4"))],
    picture=SecretBytes(b"hush5" * 20_000),
)


@router.responder(Login)
async def login(command: Login) -> Token:
    match command.want:
        case "token":
            assert command == full
            return Token(token=SecretStr("hush6"), keys=[Key(SecretBytes(b"hush7"))])
        case "locked":
            raise Locked(recovery=SecretStr("hush8"))
        case "too long":
            return Token(token=SecretStr(HUSH * 20_000))
        case "not a secret":
            wrong: Any = HUSH
            return Token.model_construct(token=wrong, keys=[])
        case _:
            raise ValueError(f"{command!r} of {command.password}")


async def test_secrets_arrive_in_commands_answers_rows_lists_and_slices() -> None:
    async with connection_pair(router) as (client, _):
        answer = await client.call(full)
        assert answer.token == SecretStr("hush6")
        assert answer.keys == [Key(SecretBytes(b"hush7"))]
        assert type(answer.token) is SecretStr


async def test_a_secret_of_an_error_arrives() -> None:
    async with connection_pair(router) as (client, _):
        with pytest.raises(Locked) as caught:
            await client.call(Login(password=SecretStr(HUSH), want="locked"))
        assert caught.value.recovery == SecretStr("hush8")
        assert HUSH not in repr(caught.value) + str(caught.value)


async def test_on_the_wire_they_are_what_they_hide() -> None:
    async with serve(router, HOST, 0) as server, raw_client(server) as peer:
        box = {b"_ask": b"1", b"_command": b"Login", b"password": b"hush", b"want": b"locked"}
        answer = await peer.ask(box)
        assert answer[b"recovery"] == b"hush8"
        assert HUSH not in answer[b"_error_description"].decode()


@pytest.mark.parametrize("want", ["locked", "too long", "not a secret", "nothing we know"])
async def test_no_failure_of_a_responder_shows_one(want: str, log: LogCapture) -> None:
    async with connection_pair(router) as (client, _):
        with pytest.raises((Locked, UnknownRemoteError)) as caught:
            await client.call(Login(password=SecretStr(HUSH), want=want))
        assert HUSH not in repr(caught.value) + str(caught.value)
    lines = log.lines(logging.DEBUG)
    assert lines  # at the least, that it is answered with an error
    assert not [line for line in lines if HUSH in line]


@pytest.mark.parametrize(
    "command",
    [
        CarelessLogin(otp=b"hush"),
        CarelessLogin(password=b"\xffhush"),
        CarelessLogin(password=b"no hush"),
        CarelessLogin(password=b"hush", cards=b"\0\6number\0\5hush\xff\0\0"),
        CarelessLogin(password=b"hush", cards=b"\0\6number\0\xffhush"),
    ],
)
async def test_no_refusal_shows_one(command: CarelessLogin, log: LogCapture) -> None:
    async with connection_pair(router) as (client, _):
        with pytest.raises(InvalidArgumentsError) as caught:
            await client.call(command)
        assert HUSH not in repr(caught.value) + str(caught.value)
    assert not [line for line in log.lines(logging.DEBUG) if HUSH in line]


async def test_an_answer_that_does_not_fit_shows_none() -> None:
    class BytesToken(BaseModel):
        token: bytes
        keys: bytes = b""

    class OddLogin(Command[BytesToken], name="Login"):
        password: str

    odd_router = Router()

    @odd_router.responder(OddLogin)
    async def odd_login(command: OddLogin) -> BytesToken:
        return BytesToken(token=b"\xffhush", keys=b"hush")

    async with (
        serve(odd_router, HOST, 0) as server,
        connect(HOST, port_of(server)) as client,
    ):
        with pytest.raises(DecodeError) as caught:
            await client.call(Login(password=SecretStr(HUSH)))
        assert HUSH not in repr(caught.value) + str(caught.value)


async def test_what_can_not_be_written_is_not_shown() -> None:
    async with connection_pair(router) as (client, _):
        with pytest.raises(TooLongError) as too_long:
            await client.call(Login(password=SecretStr(HUSH * 20_000)))
        bad = Login(password=SecretStr(HUSH))
        vars(bad)["otp"] = HUSH
        with pytest.raises(EncodeError) as not_secret:
            await client.call(bad)
        with pytest.raises(EncodeError) as surrogate:
            await client.call(Login(password=SecretStr("hush\ud800")))
        for caught in (too_long, not_secret, surrogate):
            assert HUSH not in repr(caught.value) + str(caught.value)


def test_a_command_or_an_error_that_is_made_wrongly_shows_none() -> None:
    class Start(Command):
        user: str
        password: SecretStr = Field(max_length=3)

    wrong: list[dict[str, Any]] = [{"password": HUSH}, {"user": "ann", "password": HUSH}]
    for fields in wrong:
        with pytest.raises(ValidationError) as caught:
            Start(**fields)
        assert HUSH not in repr(caught.value) + str(caught.value)

    class Refused(CommandError):
        user: str
        password: SecretStr

    with pytest.raises(ValidationError) as refused:
        Refused(**wrong[0])
    assert HUSH not in repr(refused.value) + str(refused.value)
