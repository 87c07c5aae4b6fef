"""Try to read notes without a login, with a wrong one, and with a right one."""

import asyncio

from pydantic import SecretStr

from examples import address
from examples.login.commands import AddNote, ListNotes, Login, WrongPasswordError
from typed_amp import NotAllowedError, connect


async def main(host: str, port: int) -> None:
    async with connect(host, port) as connection:
        try:
            await connection.call(ListNotes())
        except NotAllowedError as error:
            print(f"not allowed: {error.description}")

        try:
            await connection.call(Login(user="ann", password=SecretStr("guess")))
        except WrongPasswordError as error:
            print(f"not logged in: {error}")

        login = Login(user="ann", password=SecretStr("correct horse"))
        await connection.call(login)
        print(f"done: {login!r}")
        await connection.call(AddNote(line="buy a teapot"))
        print((await connection.call(ListNotes())).lines)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    asyncio.run(main(options.host, options.port))
