"""Commands that change what a connection speaks: to TLS, or to another protocol.

Rule of this module: it declares. Who calls these commands, and what happens on the connection
then, is `typed_amp.handover`'s business.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, ClassVar

from typed_amp.command import Command
from typed_amp.errors import StartTLSError

if TYPE_CHECKING:
    from typing import Self

    from typed_amp.signature import Signature

__all__ = ["StartTLS", "SwitchProtocol"]


class StartTLS(Command, errors={StartTLSError: "TLS_ERROR"}):
    """Begin TLS on a connection that is in the clear; Twisted's `StartTLS`.

    Called by `Connection.start_tls`. Its responder returns the `ssl.SSLContext` to use::

        @router.responder(StartTLS)
        async def start_tls(command: StartTLS) -> ssl.SSLContext:
            return server_context

    It runs at once, also while hooks of `on_connect` go on. Nothing is read until it is done, so it
    isn't told when the peer goes.

    A router that has no responder for it refuses, unlike Twisted's, which begins with a certificate
    made on the spot that nobody can verify. A responder may raise `StartTLSError` to refuse.
    Subclasses may have fields.

    TLS from the first byte (`connect(..., ssl=...)`) is better: somebody on the way who takes this
    command out of the stream keeps the connection in the clear, and all that was said before was
    read by anybody.
    """

    __amp_transition__: ClassVar[type | None] = ssl.SSLContext

    if TYPE_CHECKING:
        # What a responder returns is not what a caller gets, and only responders are checked by
        # this: `call` takes no such command.
        @classmethod
        def __amp_signature__(cls) -> Signature[Self, ssl.SSLContext]: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class SwitchProtocol(Command):
    """Hand the connection over to another protocol; Twisted's `ProtocolSwitchCommand`.

    A base for commands that say to which. They may have fields and errors::

        class SwitchToChat(SwitchProtocol):
            room: str

    Called by `Connection.switch_protocol`. The responder returns an `asyncio.Protocol` (or a
    `BufferedProtocol`), which has the transport from then on; or it raises, and AMP goes on::

        @router.responder(SwitchToChat)
        async def switch(command: SwitchToChat) -> asyncio.Protocol:
            return ChatProtocol(command.room)
    """

    __amp_transition__: ClassVar[type | None] = asyncio.BaseProtocol

    if TYPE_CHECKING:

        @classmethod
        def __amp_signature__(cls) -> Signature[Self, asyncio.BaseProtocol]: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
