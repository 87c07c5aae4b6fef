"""Which process is at the other end of a Unix socket.

Rule of this module: what the system doesn't say for certain is None, never a guess.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any, Final, NamedTuple

__all__ = ["PeerCredentials", "credentials_of"]


class PeerCredentials(NamedTuple):
    """Which process connected over a Unix socket, or listens there; as it was at that time.

    The system says so, not the peer. The user and the group are the effective ones. A process may
    pass an open connection on to another, and its number may be given to another once it has
    ended: go by the user and the group.

    Attributes:
        process_id: the process; 0 for one that this one can't see, in another container.
        user_id: its user.
        group_id: its group.
    """

    process_id: int
    user_id: int
    group_id: int


_LINUX_FORM: Final = struct.Struct("iII")  # struct ucred: pid_t, uid_t, gid_t


def credentials_of(sock: Any) -> PeerCredentials | None:
    """Ask the system who is at the other end of a connected socket.

    Args:
        sock: the socket, or what stands for one at a transport, or None.

    Returns:
        None where it isn't a Unix socket, or the system is another than Linux.
    """
    if sys.platform != "linux" or sock is None or sock.family != socket.AF_UNIX:
        return None
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX_FORM.size)
    except OSError:  # it is closed already
        return None
    return PeerCredentials(*_LINUX_FORM.unpack(data))
