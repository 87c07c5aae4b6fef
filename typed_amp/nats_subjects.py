"""Where the commands of a service are asked for in NATS.

Rule of this module: any command of AMP has a subject, and no two have the same.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from typed_amp.box import printable
from typed_amp.errors import TooLongError

__all__ = ["QUEUE", "any_subject", "cancel_subject", "check_names", "endpoint_name", "subject_of"]

QUEUE: Final = "q"
"""The queue group of responders that say none: that of NATS micro."""

_MAX_LENGTH: Final = 512
"""How long a subject may be. Clients take lines of 1,024 bytes, with two subjects in them."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUEUE: Final = re.compile(r"[^\s.*>]+")


def check_names(service: str, queue: str = QUEUE) -> None:
    """Refuse a name that NATS micro doesn't allow for a service, or NATS for a queue group.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(service):
        raise ValueError(
            f"{service!r} can't be the name of a service: NATS micro allows letters and digits of"
            " ASCII, - and _"
        )
    if not _QUEUE.fullmatch(queue):
        raise ValueError(
            f"{queue!r} can't be the name of a queue group: it has at least one character, and no"
            " space, dot, * or >"
        )


def subject_of(service: str, name: bytes) -> str:
    """Give the subject of a command: `calc.Sum`. What may not be in one is written as in a URL.

    Raises:
        TooLongError: the command's name is too long for it.
    """
    subject = f"{service}.{quote(name, safe='').replace('.', '%2E')}"
    if len(subject) > _MAX_LENGTH:
        raise TooLongError(
            f"the subject of {printable(name[:100])}",
            len(subject),
            _MAX_LENGTH,
            f"over NATS it may have at most {_MAX_LENGTH}. Give the command a shorter name",
        )
    return subject


def any_subject(service: str) -> str:
    """Give what stands for the subjects of all commands of a service."""
    return f"{service}.*"


def cancel_subject(service: str) -> str:
    """Give where a service is told of calls that nobody waits for any more. No command has it, nor
    does `any_subject` stand for it: it has a dot more."""
    return f"{service}.typed-amp.cancel"


def endpoint_name(name: bytes) -> str:
    """Give what NATS micro calls the endpoint of a command: a _ for each character it forbids."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name.decode("utf-8", "replace")) or "_"
