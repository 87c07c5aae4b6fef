"""How what outlives a connection makes one.

Rule of this module: what may be said of each connection is checked before the first is made, and
said again for each.
"""

from __future__ import annotations

import ssl as tls
from typing import TYPE_CHECKING, Final

from typing_extensions import TypeVar

from typed_amp.client import connect, connect_unix
from typed_amp.options import check_options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from typed_amp.connection import Connection
    from typed_amp.opening import Opening
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router
    from typed_amp.supply import Address

__all__ = ["CONNECT_TIMEOUT", "check_lasting", "connector"]

S = TypeVar("S", default=None)

CONNECT_TIMEOUT: Final = 10.0
"""How many seconds an attempt to connect may take, unless told otherwise.

Where a machine is gone nothing answers, and the system alone would try for minutes.
"""


def check_lasting(
    addresses: Collection[Address],
    options: ConnectionOptions,
    *,
    attempts: int | None,
    connect_timeout: float | None,
    ssl: tls.SSLContext | bool | None,
    server_hostname: str | None,
) -> None:
    """Refuse what can't hold for any connection, before the first is made.

    Raises:
        TypeError: there is no such option.
        ValueError: an option makes no sense.
    """
    check_options(options)
    for name, value in (("attempts", attempts), ("connect_timeout", connect_timeout)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, or None, not {value}")
    if ssl and not server_hostname and any(isinstance(one, str) for one in addresses):
        raise ValueError(
            "TLS over a Unix socket needs server_hostname, the name in the server's certificate"
        )


def connector(
    router: Router[S] | None,
    *,
    ssl: tls.SSLContext | bool | None,
    server_hostname: str | None,
    options: ConnectionOptions,
) -> Callable[[Address], Opening[Connection[S]]]:
    """Give what connects to an address, of whichever kind it is.

    Raises:
        DefinitionError: the router has a plain function that is not to run in a thread.
    """
    if router is not None:
        router.begin_serving()
    # Their overloads tell a router from None; here it may be either.
    given: Router[S] = router  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def open_connection(address: Address) -> Opening[Connection[S]]:
        if isinstance(address, str):
            return connect_unix(
                address,
                router=given,
                ssl=tls.create_default_context() if ssl is True else ssl or None,
                server_hostname=server_hostname,
                **options,
            )
        return connect(*address, router=given, ssl=ssl, server_hostname=server_hostname, **options)

    return open_connection
