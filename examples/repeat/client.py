"""Call Repeat twice."""

import asyncio

from examples import address
from examples.repeat.commands import Repeat
from typed_amp import connect


async def main(host: str, port: int) -> None:
    async with connect(host, port) as connection:
        # The type checker knows that this is a RepeatResult.
        result = await connection.call(Repeat(text="abc", times=3))
        print(result.text)
        # The same, spelled as Twisted's callRemote, and checked just as strictly.
        result = await connection.call_remote(Repeat, text="ab", times=2)
        print(result.text)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    asyncio.run(main(options.host, options.port))
