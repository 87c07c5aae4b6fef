"""Addresses of sockets, as values and as text.

Rule of this module: whatever family a socket is of, its users see `(host, port)` or a path.
"""

from __future__ import annotations

from typing import Any

__all__ = ["address_of", "shown"]


def address_of(name: Any) -> tuple[str, int] | str | None:
    """Turn what a socket calls an address into `(host, port)`, a Unix path, or None."""
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
