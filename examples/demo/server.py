"""The demo's server: a program of its own, in a process of its own."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import typed_amp
from examples import address
from examples.demo.commands import (
    Audit,
    Buy,
    Cook,
    Counted,
    CountWords,
    Heard,
    Invoice,
    Join,
    Lines,
    Log,
    Order,
    OutOfStock,
    Progress,
    Reached,
    ReadLog,
    Receipt,
    Repeat,
    RepeatResult,
    Say,
    Wait,
    Waited,
)
from typed_amp import Connection


@dataclass
class Session:
    name: str = "nobody"


router = typed_amp.Router(state=Session)
members: list[Connection[Session]] = []
lines: list[str] = []


@router.responder(Repeat)
async def repeat(command: Repeat) -> RepeatResult:
    return RepeatResult(text=command.text * command.times)


@router.responder(Wait)
async def wait(command: Wait) -> Waited:
    await asyncio.sleep(command.seconds)
    return Waited(seconds=command.seconds)


@router.responder(Buy)
async def buy(command: Buy) -> Receipt:
    if command.count > 2:
        raise OutOfStock(sku=command.sku, left=2)
    return Receipt(price=Decimal("3.20") * command.count)


@router.responder(Audit)
async def audit(_: Audit) -> None:
    raise RuntimeError("the books of 1998 are in the cellar, under water")


@router.responder(Log)
async def log(command: Log) -> None:
    lines.append(command.line)


@router.responder(ReadLog)
async def read_log(_: ReadLog) -> Lines:
    return Lines(lines=lines)


@router.responder(Cook)
async def cook(command: Cook, connection: Connection[Session]) -> None:
    for percent in (50, 100):
        await connection.call(Progress(percent=percent, dish=command.dish))


@router.responder(Join)
async def join(command: Join, connection: Connection[Session]) -> None:
    connection.state.name = command.name
    members.append(connection)


@router.responder(Say)
async def say(command: Say, connection: Connection[Session]) -> Reached:
    others = [member for member in members if member is not connection]
    heard = Heard(name=connection.state.name, text=command.text)
    for other in others:
        await other.call(heard)
    return Reached(names=[other.state.name for other in others])


@router.responder(Order)
async def order(command: Order) -> Invoice:
    total = sum((item.price * item.count for item in command.items), Decimal())
    return Invoice(total=total, due=command.at.date() + timedelta(days=30))


@router.responder(CountWords)
async def count_words(command: CountWords) -> Counted:
    return Counted(words=len(command.text.split()))


class OneLine(logging.Formatter):
    """Keeps of a traceback its last line: the demo has no room for more."""

    def format(self, record: logging.LogRecord) -> str:
        first, *traceback = super().format(record).splitlines()
        return f"{first}: ... {traceback[-1]}" if traceback else first


def main() -> None:
    options = address.parser(__doc__).parse_args()
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    typed_amp.run(router, options.host, options.port)


if __name__ == "__main__":
    main()
