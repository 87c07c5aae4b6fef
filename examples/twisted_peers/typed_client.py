"""typed_amp's client. It does not know which library answers."""

import asyncio

from examples import address
from examples.twisted_peers.typed_commands import Divide, Sum
from typed_amp import connect


async def main(host: str, port: int) -> None:
    async with connect(host, port) as connection:
        sum_result = await connection.call(Sum(a=13, b=81))
        print(f"13 + 81 = {sum_result.total}")
        divide_result = await connection.call(Divide(numerator=1, denominator=4))
        print(f"1 / 4 = {divide_result.result}")
        try:
            await connection.call(Divide(numerator=1, denominator=0))
        except ZeroDivisionError as error:
            print(f"1 / 0: {error}")


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    asyncio.run(main(options.host, options.port))
