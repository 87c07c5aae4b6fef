"""What may be said of a program's connection to NATS.

Rule of this module: nothing is said twice: what nats-py can be told, it is told by the names that
it has for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from ssl import SSLContext

__all__ = ["DEFAULT_NATS_OPTIONS", "NatsOptions", "check_nats_options", "servers_of"]


class NatsOptions(TypedDict, total=False):
    """The options that `connect_nats` and `serve_nats` hand on to nats-py's `connect`.

    Attributes:
        tls: a client's context for TLS, if the system's authorities won't do.
        tls_hostname: the name that the server's certificate must have, if not that of its address.
        tls_handshake_first: whether the server expects TLS from the first byte.
        user: a name, with `password`; or a function that gives it.
        password: the password, or a function that gives it.
        token: a token, or a function that gives it.
        user_credentials: the path of a `.creds` file, or those of a JWT and of a seed.
        nkeys_seed: the path of a file with an NKey's seed.
        nkeys_seed_str: the seed itself.
        name: what the servers' monitoring calls this connection; the service's name, if left out.
        connect_timeout: seconds for each step of an attempt to connect; 2, if left out.
        reconnect_time_wait: seconds until a server is tried again; 0.5, if left out.
        max_reconnect_attempts: how often each server is tried; -1, which is for ever, if left out.
        ping_interval: seconds after which the server is asked whether it is there; 10, if left
            out. It is given up when it owes `max_outstanding_pings` answers.
        max_outstanding_pings: how many answers it may owe; 2, if left out.
        dont_randomize: whether to try the servers in the order in which they were given.
        inbox_prefix: with which the subjects of answers begin, where permissions demand it.
        pending_size: how many bytes may wait to be sent; 2 MiB, if left out.
    """

    tls: SSLContext
    tls_hostname: str
    tls_handshake_first: bool
    user: str | Callable[[], str]
    password: str | Callable[[], str]
    token: str | Callable[[], str]
    user_credentials: str | os.PathLike[str] | tuple[str, str]
    nkeys_seed: str
    nkeys_seed_str: str
    name: str
    connect_timeout: float
    reconnect_time_wait: float
    max_reconnect_attempts: int
    ping_interval: float
    max_outstanding_pings: int
    dont_randomize: bool
    inbox_prefix: str | bytes
    pending_size: int


DEFAULT_NATS_OPTIONS: Final[Mapping[str, Any]] = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.5,
    "ping_interval": 10,
    "skip_subject_validation": True,
}
"""What differs from nats-py's own: who serves doesn't give up, and wants to know who is gone. All
subjects are made here, or came in a line of the server's."""


def check_nats_options(options: NatsOptions) -> None:
    """Refuse options that don't exist.

    Raises:
        TypeError: there is no such option.
    """
    unknown = sorted(options.keys() - NatsOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(NatsOptions.__annotations__)
        raise TypeError(f"no such option: {', '.join(unknown)}. There are {known}")


def servers_of(servers: str | Sequence[str]) -> list[str]:
    """Give the servers one by one.

    Raises:
        ValueError: there is none.
    """
    found: list[Any] = [servers] if isinstance(servers, str) else list(servers)
    if not found or not all(isinstance(each, str) and each for each in found):
        raise ValueError(
            f'servers are addresses such as "nats://localhost:4222", one at least, not {servers!r}'
        )
    return found
