"""Records of the `typed_amp` logger, in a form that programs can read.

Rule of this module: what a message tells to people, attributes of its record tell to programs:
`amp_event`, always the same word for the same thing; `amp_connection`, the connection's name; and
where there is one, `amp_command`, `amp_code` and `amp_limit`. Records of clients that come back
have `amp_server` in place of `amp_connection`: where the server is.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from typed_amp.addresses import shown

__all__ = ["LOGGER", "Named", "log", "log_server"]

LOGGER: Final = logging.getLogger("typed_amp")
"""To which all goes."""


class Named(Protocol):
    """A connection, or what stands in its place. Its `repr` is what messages begin with."""

    @property
    def name(self) -> str:
        """What log records call it."""
        ...


def log(
    level: int,
    event: str,
    connection: Named,
    message: str,
    *arguments: object,
    error: BaseException | None = None,
    **attributes: str,
) -> None:
    """Log something about a connection.

    Args:
        level: of the `logging` module.
        event: the word for it.
        connection: the connection; the message begins with it.
        message: the rest of the message, with places for the arguments.
        arguments: for these places.
        error: whose traceback is to be shown.
        attributes: more for the record, without the `amp_` of their names.
    """
    if not LOGGER.isEnabledFor(level):
        return
    extra = {f"amp_{name}": value for name, value in attributes.items()}
    extra |= {"amp_event": event, "amp_connection": connection.name}
    template = "%r: " + message
    LOGGER.log(level, template, connection, *arguments, exc_info=error, extra=extra, stacklevel=2)


def log_server(
    level: int,
    event: str,
    server: tuple[str, int] | str,
    message: str,
    *arguments: object,
    error: BaseException | None = None,
) -> None:
    """Log something about a server that a client is connected to, or would be.

    Args:
        level: of the `logging` module.
        event: the word for it.
        server: where the server is.
        message: the message, with places for the arguments.
        arguments: for these places.
        error: whose traceback is to be shown.
    """
    extra = {"amp_event": event, "amp_server": shown(server)}
    LOGGER.log(level, message, *arguments, exc_info=error, extra=extra, stacklevel=2)
