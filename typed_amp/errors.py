"""Every error that typed_amp raises by itself.

Rule of this module: one tree. Whatever goes wrong in AMP is an `AmpError`, and beside that the
builtin error that somebody who has never heard of AMP would catch::

    AmpError
    ├── DefinitionError (TypeError)          a command or a responder that can never work
    ├── EncodeError (ValueError)             a value of ours that can't be put on the wire
    │   └── TooLongError                     a key or a value longer than AMP can carry
    ├── DecodeError (ValueError)             a value of the peer's that isn't what was declared
    ├── ProtocolViolationError (ConnectionError)   bytes that are not AMP; ends the connection
    ├── ConnectionLostError (ConnectionError)      the connection is gone, or was never made
    │   └── NoRespondersError                nobody in the NATS cluster answers the command
    ├── ProcessEndedError (ChildProcessError)      why it is gone: the peer's process has ended
    ├── CallTimeoutError (TimeoutError)      no answer within the time the caller gave
    ├── QueueFullError                       too many calls wait for a worker of a pool
    ├── WorkerStartError                     a worker of a pool can't begin
    ├── StartTLSError                        TLS can't begin on this connection
    └── RemoteAmpError                       the peer answered with an error
        ├── UnhandledCommandError            ... it has no responder for the command
        ├── InvalidArgumentsError (ValueError)     ... it refused the arguments
        ├── NotAllowedError (PermissionError)      ... it allows that to others, or later
        └── UnknownRemoteError               ... its responder failed in an undeclared way

Errors that a command declares (see `typed_amp.Command`) are the user's own classes and come back
as themselves; those that derive from `typed_amp.CommandError` belong to this tree too.

All of them can be pickled, so that they survive a process pool.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from typed_amp.details import ERROR_DETAILS, decode_details

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typed_amp.details import ErrorDetail

__all__ = [
    "AmpError",
    "CallTimeoutError",
    "ConnectionLostError",
    "DecodeError",
    "DefinitionError",
    "EncodeError",
    "InvalidArgumentsError",
    "NoRespondersError",
    "NotAllowedError",
    "ProcessEndedError",
    "ProtocolViolationError",
    "QueueFullError",
    "RemoteAmpError",
    "StartTLSError",
    "TooLongError",
    "UnhandledCommandError",
    "UnknownRemoteError",
    "WorkerStartError",
]


_NO_FIELDS: Final[Mapping[bytes, bytes]] = {}


class AmpError(Exception):
    """The root of every error that has to do with AMP."""


class DefinitionError(AmpError, TypeError):
    """A command, an error or a responder is written in a way that can never work.

    Raised where it is written, when the class or the registration runs: a program that starts
    does not meet it later. Mend the code that the message names.
    """


class EncodeError(AmpError, ValueError):
    """A value of this side can't be put on the wire.

    Raised at the caller before anything is sent: the connection has noticed nothing. The message
    names the class, the field and the type of the value, never the value.
    """


class TooLongError(EncodeError):
    """A key, a value or an element is longer than its length prefix can say, or its mark allows.

    Twisted calls it `TooLong`. `typed_amp.Large` marks fields whose values may be longer.

    Attributes:
        what: what is too long, with the names of its command and field.
        length: how long it is, in bytes.
        limit: how long it may be, in bytes.
        rule: what sets the limit, and what to do about it.
    """

    def __init__(self, what: str, length: int, limit: int, rule: str | None = None) -> None:
        super().__init__(what, length, limit, rule)
        self.what = what
        self.length = length
        self.limit = limit
        self.rule: str = f"AMP carries at most {limit:,}" if rule is None else rule

    def __str__(self) -> str:
        return f"{self.what} is {self.length:,} bytes long; {self.rule}"


class DecodeError(AmpError, ValueError):
    """A value that the peer sent isn't what its field declares.

    The message says which field and why, never the value itself: it may be a secret, and it may
    be a megabyte. At a responder's side it travels to the caller as `InvalidArgumentsError`; at a
    caller's side it says that the peer's answer is not the one the command declares.

    Attributes:
        reason: what is wrong with the value.
        location: the way to it: field names, and the indexes of elements and rows.
        errors: all that is wrong, if it is more than one thing, or if pydantic says of what type.
    """

    def __init__(
        self,
        reason: str,
        location: tuple[str | int, ...] = (),
        errors: Sequence[ErrorDetail] = (),
    ) -> None:
        super().__init__(reason, location, errors)
        self.reason = reason
        self.location = location
        self.errors: list[ErrorDetail] = list(errors) or [
            {"type": "undecodable", "loc": location, "msg": reason}
        ]

    def within(self, *steps: str | int) -> DecodeError:
        """Give the same error of something around what it is about."""
        errors: list[ErrorDetail] = [
            {**detail, "loc": (*steps, *detail["loc"])} for detail in self.errors
        ]
        return DecodeError(self.reason, (*steps, *self.location), errors)

    def __str__(self) -> str:
        # A location may hold keys that the peer chose.
        where = ".".join(_plain(str(step)) for step in self.location)
        return f"{where}: {self.reason}" if where else self.reason


class ProtocolViolationError(AmpError, ConnectionError):
    """The peer sent bytes that are not AMP, or more of them than the limits allow.

    The only error that comes out of reading a peer's bytes. The place in the stream where one box
    ends and the next begins is lost after it, so the connection is closed.

    Attributes:
        reason: what was wrong with the bytes.
        offset: how many bytes of the stream came before the box that was wrong; None if the bytes
            are right and the box as a whole is not.
        boxes: the complete boxes that came before it in the same piece of data. They are valid:
            how a network happens to cut a stream decides nothing.
    """

    def __init__(
        self, reason: str, offset: int | None = None, boxes: Sequence[dict[bytes, bytes]] = ()
    ) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (reason, offset, boxes)  # OSError would take them for an errno
        self.reason = reason
        self.offset = offset
        self.boxes = boxes

    def __str__(self) -> str:
        if self.offset is None:
            return self.reason
        return f"{self.reason} (in the box at byte {self.offset:,} of what the peer sent)"


class ConnectionLostError(AmpError, ConnectionError):
    """The connection went away, so no answer can come; or it was closed before the call.

    `__cause__` is the error that ended it, if there was one. Whether the peer has carried out the
    command is not known, unless it was never sent.

    Attributes:
        was_sent: whether the peer may have heard of the call. False: it has certainly not left this
            side, since it waited its turn or came too late; so it may be made again, whatever it
            does.
        exit_status: if the peer was a child process that has ended, its exit status; the negative
            number of the signal if one ended it. None otherwise.
    """

    was_sent: bool = True
    exit_status: int | None = None


class NoRespondersError(ConnectionLostError):
    """Nobody in the NATS cluster answers this command: no responder of the service runs, or none
    of them has it.

    The servers say so at once. Nothing was carried out, so the call may be made again, whatever it
    does; unless `was_sent` is true, of an idempotent command that was sent before.
    """

    was_sent: bool = False


class ProcessEndedError(AmpError, ChildProcessError):
    """The peer was a child process, and has ended.

    The `__cause__` of the `ConnectionLostError` that calls fail with. Twisted has `ProcessDone` and
    `ProcessTerminated` for this.

    Attributes:
        title: what ran in the process.
        process_id: the system's number for it, which others may have by now.
        exit_status: its exit status; the negative number of the signal if one ended it.
    """

    def __init__(self, title: str, process_id: int, exit_status: int) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (title, process_id, exit_status)  # not an errno, as OSError's
        self.title = title
        self.process_id = process_id
        self.exit_status = exit_status

    def __str__(self) -> str:
        if self.exit_status >= 0:
            end = f"ended with exit status {self.exit_status}"
        else:
            end = f"was killed by {_signal_name(-self.exit_status)}"
        return f"the process {_plain(self.title)} (process {self.process_id}) {end}"


class CallTimeoutError(AmpError, TimeoutError):
    """No answer came within the time that there was.

    The connection is usable. Whether the peer has carried out the command, or is doing so now,
    is not known.

    Attributes:
        command: the name of the command.
        timeout: the seconds that there were: what the caller gave, or what was left to it.
        peer: who didn't answer.
    """

    def __init__(self, command: str, timeout: float, peer: str = "") -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (command, timeout, peer)  # not an errno, as OSError's
        self.command = command
        self.timeout = timeout
        self.peer = peer

    def __str__(self) -> str:
        peer = f" from {self.peer}" if self.peer else ""
        if self.timeout <= 0:
            return f"{self.command}: no time was left for an answer{peer}"
        return f"{self.command}: no answer{peer} within {self.timeout:.3g} seconds"


class QueueFullError(AmpError):
    """So many calls wait for a worker of a pool that this one may not.

    It was not sent, so that it may be made again later, whichever command it is.

    Attributes:
        command: the name of the command.
        queued: how many calls wait.
    """

    def __init__(self, command: str, queued: int) -> None:
        super().__init__(command, queued)
        self.command = command
        self.queued = queued

    def __str__(self) -> str:
        return (
            f"{self.command}: {self.queued:,} calls wait for a worker already, as many as"
            " max_queued lets wait"
        )


class WorkerStartError(AmpError):
    """A worker of a pool can't begin: its router can't be imported, or a hook fails.

    Attributes:
        target: what it was to serve.
        reason: what was wrong.
        traceback: the worker's traceback, as text; empty if it could tell of none.
    """

    def __init__(self, target: str, reason: str, traceback: str = "") -> None:
        super().__init__(target, reason, traceback)
        self.target = target
        self.reason = reason
        self.traceback = traceback

    def __str__(self) -> str:
        told = f"a worker can't serve {self.target}: {self.reason}"
        return f"{told}\n\n{self.traceback}" if self.traceback else told


class StartTLSError(AmpError):
    """TLS can't begin on this connection: it is encrypted already, for example.

    The side that began it or the peer refused; the connection goes on as it was. A handshake that
    fails is something else: it costs the connection, with the `ssl.SSLError` as the cause of a
    `ConnectionLostError`. Twisted has `OnlyOneTLS` for the second TLS on a connection.
    """


class RemoteAmpError(AmpError):
    r"""The peer answered a call with an error.

    This class itself stands for codes that the command does not declare. Twisted's class has the
    same name; its `errorCode` is `code` here.

    Attributes:
        code: the peer's `_error_code`. Bytes that are not UTF-8 are shown as `\xNN`.
        description: the peer's `_error_description`, likewise.
        fields: the other pairs of the peer's box, as they came.
    """

    def __init__(
        self, code: str, description: str, fields: Mapping[bytes, bytes] = _NO_FIELDS
    ) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (code, description)  # OSError would take them for an errno
        self.code = code
        self.description = description
        self.fields: dict[bytes, bytes] = dict(fields)

    def __str__(self) -> str:
        return f"{_plain(self.code)}: {_plain(self.description)}"


class UnhandledCommandError(RemoteAmpError):
    """The peer has no responder for this command (`UNHANDLED`).

    Twisted's `UnhandledCommand`. Compare the command's name with what the peer registers.
    """


class InvalidArgumentsError(RemoteAmpError, ValueError):
    """The peer refused the arguments (`INVALID_ARGUMENTS`).

    One was missing, could not be decoded, or broke a constraint of the peer's model; the
    description says which and why. Compare the two sides' versions of the command.
    """

    @property
    def errors(self) -> list[ErrorDetail]:
        """All that was wrong, as pydantic tells it: type, location, message, never the value.

        Of a field whose bytes can't be read at all nothing else is told, and of rows the first
        twenty errors or so. Empty if the peer is no typed_amp program.
        """
        return decode_details(self.fields.get(ERROR_DETAILS, b"[]"))


class NotAllowedError(RemoteAmpError, PermissionError):
    """The peer doesn't allow this command, or not yet (`NOT_ALLOWED`).

    A guard raises it to refuse a command, see `Router.guard`; and so may any responder, whatever
    its command declares. The caller gets it with the text that was given, and nothing is logged.

    Attributes:
        is_received: whether the peer raised it. A responder that doesn't catch what it got from a
            call of its own doesn't refuse by that: it has failed.
    """

    is_received: bool = False

    def __init__(self, description: str, fields: Mapping[bytes, bytes] = _NO_FIELDS) -> None:
        super().__init__("NOT_ALLOWED", description, fields)
        self.args: tuple[Any, ...] = (description,)


class UnknownRemoteError(RemoteAmpError):
    """The peer's responder failed in a way that the command does not declare (`UNKNOWN`).

    Nothing about it is told, on purpose: the traceback is in the peer's log. Twisted's
    `UnknownRemoteError`.
    """


def _plain(text: str) -> str:
    """Show a text that a peer chose so that it breaks no log line and no terminal."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real-time programs have no names
        return f"signal {number}"
