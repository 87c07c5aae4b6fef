"""A child of ours, for Twisted parents and for ampoule's pool.

python -m tests.interop.our_child READ_FD WRITE_FD
"""

from __future__ import annotations

import asyncio
import sys

from tests.interop import peers
from tests.interop.ampoule_commands import Echo, Ping, Response, Shutdown
from tests.interop.peers import Session
from typed_amp import Connection, Router, serve_fds, serve_stdio

router = Router(state=Session)
router.include(peers.router)


@router.responder(Echo)
async def echo(command: Echo) -> Response:
    return Response(response=command.data)


@router.responder(Ping)
async def pong(command: Ping) -> Response:
    return Response(response=b"pong")


@router.responder(Shutdown)
async def shut_down(command: Shutdown, connection: Connection[Session]) -> None:
    connection.close()  # when this was answered


async def main(read_fd: int, write_fd: int) -> None:
    is_standard = (read_fd, write_fd) == (0, 1)
    async with (
        serve_stdio(router) if is_standard else serve_fds(router, read_fd, write_fd) as connection
    ):
        print("the child prints")
        await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
