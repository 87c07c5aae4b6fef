"""Divide until the server has had enough."""

import asyncio

from examples import address
from examples.division.commands import Divide, DivideWhole, NotWholeError, TooManyMistakesError
from typed_amp import ConnectionLostError, UnknownRemoteError, connect


async def main(host: str, port: int) -> None:
    async with connect(host, port) as connection:
        quotient = await connection.call(Divide(numerator=7, denominator=2))
        print(f"7 / 2 = {quotient.result}")

        try:
            await connection.call(DivideWhole(numerator=7, denominator=2))
        except NotWholeError as error:
            print(f"7 / 2 = {error.quotient}, and {error.remainder} is left over")

        try:
            await connection.call(DivideWhole(numerator=7, denominator=0))
        except UnknownRemoteError as error:
            print(f"an error that the command does not declare: {error}")

        try:
            while True:
                try:
                    await connection.call(Divide(numerator=7, denominator=0))
                except ZeroDivisionError as error:
                    print(f"7 / 0: {error}")
        except TooManyMistakesError as error:
            print(f"the server gives up after {error.mistakes} mistakes")

        await connection.wait_closed()
        try:
            await connection.call(Divide(numerator=7, denominator=2))
        except ConnectionLostError:
            print("it has closed the connection")


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    asyncio.run(main(options.host, options.port))
