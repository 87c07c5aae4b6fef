"""Addresses of sockets, as values and as text.

Rule of this module: whatever family a socket is of, its users see `(host, port)` or a path.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "OneAddress",
    "address_from",
    "address_of",
    "checked_address",
    "is_pair",
    "listed_addresses",
    "shown",
]

OneAddress: TypeAlias = "tuple[str, int] | str | os.PathLike[str]"
"""What users may name as one address: a pair of host and port, or the path of a Unix socket."""


def address_of(name: Any) -> tuple[str, int] | str | None:
    """Turn what a socket calls an address into `(host, port)`, a Unix path, or None."""
    if is_pair(name):
        return name  # as it is: no memory for another
    if isinstance(name, (tuple, list)):
        return str(name[0]), int(name[1])
    if isinstance(name, bytes):
        return name.decode("utf-8", "surrogateescape")  # Linux's abstract names
    return name if isinstance(name, str) else None


def shown(address: tuple[str, int] | str | None) -> str:
    """Say an address in a message."""
    if not address:
        return "a peer without an address"
    if isinstance(address, str):
        return ascii(address)[1:-1]
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def checked_address(address: Any) -> tuple[str, int] | str:
    """Take what a user names as one address to connect to: a pair of host and port, or a path.

    Raises:
        TypeError: it is neither.
        ValueError: the port is none, or a text can't be told from a host without its port.
    """
    if isinstance(address, (str, os.PathLike)):
        path = os.fspath(address)
        if not isinstance(path, str):
            raise TypeError(f"the path of a Unix socket is a str, not {type(path).__name__}")
        if isinstance(address, str) and "/" not in path and not path.startswith("\0"):
            raise ValueError(
                f"{path!r} is no address: a host needs a port, ({path!r}, 8000), and a Unix socket"
                f" in the current directory is './{path}'"
            )
        return path
    if not is_pair(address):
        raise TypeError(f"an address is (host, port) or the path of a Unix socket, not {address!r}")
    host, port = address
    if not 0 < port < 65_536:
        raise ValueError(f"there is no port {port} to connect to at {host}")
    return host, port


def is_pair(address: object) -> TypeGuard[tuple[str, int]]:
    """Say whether something is a pair of host and port."""
    return (
        isinstance(address, tuple)
        and len(address) == 2
        and isinstance(address[0], str)
        and isinstance(address[1], int)
    )


def listed_addresses(
    address: OneAddress | Sequence[OneAddress], port: int | None
) -> list[tuple[str, int] | str]:
    """Take what a user names as one address, or as several.

    Raises:
        TypeError: one is none.
        ValueError: likewise; or there is none at all.
    """
    if port is not None:
        return [checked_address((address, port))]
    if isinstance(address, (str, os.PathLike)) or is_pair(address):
        return [checked_address(address)]
    addresses = [checked_address(one) for one in address]
    if not addresses:
        raise ValueError("a client needs at least one address")
    return addresses


def address_from(text: str) -> tuple[str, int] | str:
    """Read what a user types as an address: `host:port`, `[::1]:port` or `unix:path`.

    Raises:
        ValueError: it is none of these.
    """
    kind, _, path = text.partition(":")
    if kind == "unix" and path and not path.isdigit():
        return path if "/" in path else f"./{path}"
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is no address: write [{host}]:{port}, if that is meant")
    if not (colon and host and port.isdecimal() and port.isascii() and 0 < int(port) < 65_536):
        raise ValueError(f"{text!r} is no address; say HOST:PORT, [::1]:PORT or unix:PATH")
    return host, int(port)
