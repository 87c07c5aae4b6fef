from __future__ import annotations

import copy
import pickle
import re

import pytest

from typed_amp import CommandError, errors
from typed_amp.errors import (
    AmpError,
    CallTimeoutError,
    ConnectionLostError,
    DecodeError,
    DefinitionError,
    EncodeError,
    InvalidArgumentsError,
    NoRespondersError,
    NotAllowedError,
    ProcessEndedError,
    ProtocolViolationError,
    QueueFullError,
    RemoteAmpError,
    StartTLSError,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
    WorkerStartError,
)


class OutOfStockError(CommandError):
    sku: str
    left: int = 0


class MutedError(CommandError):
    reason: str

    def __str__(self) -> str:
        return f"muted for {self.reason}"


EXAMPLES = [
    (AmpError("something"), "something", Exception),
    (DefinitionError("Buy.sku: no codec"), "Buy.sku: no codec", TypeError),
    (EncodeError("Buy.sku: not a text"), "Buy.sku: not a text", ValueError),
    (
        TooLongError("Buy.sku", 65_536, 65_535),
        "Buy.sku is 65,536 bytes long; AMP carries at most 65,535",
        ValueError,
    ),
    (
        TooLongError("Buy.note", 70_000, 65_535, "AMP carries less. Shorten it"),
        "Buy.note is 70,000 bytes long; AMP carries less. Shorten it",
        ValueError,
    ),
    (DecodeError("not an integer"), "not an integer", ValueError),
    (
        DecodeError("not an integer", ("rows", 3, "count")),
        "rows.3.count: not an integer",
        ValueError,
    ),
    (
        ProtocolViolationError("a box without any key", 12_345, [{b"k": b"v"}]),
        "a box without any key (in the box at byte 12,345 of what the peer sent)",
        ConnectionError,
    ),
    (ProtocolViolationError("a box of no kind"), "a box of no kind", ConnectionError),
    (
        ConnectionLostError("Buy: the connection is closed"),
        "Buy: the connection is closed",
        ConnectionError,
    ),
    (
        NoRespondersError("Buy: nobody answers at shop.Buy"),
        "Buy: nobody answers at shop.Buy",
        ConnectionLostError,
    ),
    (
        ProcessEndedError("worker.py", 123, 3),
        "the process worker.py (process 123) ended with exit status 3",
        ChildProcessError,
    ),
    (
        ProcessEndedError("worker.py", 123, -9),
        "the process worker.py (process 123) was killed by SIGKILL",
        ChildProcessError,
    ),
    (
        ProcessEndedError("worker.py", 123, -40),
        "the process worker.py (process 123) was killed by signal 40",
        ChildProcessError,
    ),
    (
        QueueFullError("Buy", 1_000),
        "Buy: 1,000 calls wait for a worker already, as many as max_queued lets wait",
        AmpError,
    ),
    (
        WorkerStartError("shop:router", "ImportError: no such module"),
        "a worker can't serve shop:router: ImportError: no such module",
        AmpError,
    ),
    (
        WorkerStartError("shop:router", "ValueError: 5", "Traceback\nValueError: 5"),
        "a worker can't serve shop:router: ValueError: 5\n\nTraceback\nValueError: 5",
        AmpError,
    ),
    (CallTimeoutError("Buy", 2.50), "Buy: no answer within 2.5 seconds", TimeoutError),
    (StartTLSError("it is encrypted already"), "it is encrypted already", AmpError),
    (RemoteAmpError("NO_SKU", "no such sku"), "NO_SKU: no such sku", Exception),
    (UnhandledCommandError("UNHANDLED", "'Buy'"), "UNHANDLED: 'Buy'", RemoteAmpError),
    (InvalidArgumentsError("INVALID_ARGUMENTS", "sku"), "INVALID_ARGUMENTS: sku", ValueError),
    (NotAllowedError("log in first"), "NOT_ALLOWED: log in first", PermissionError),
    (NotAllowedError("no", {b"k": b"v"}), "NOT_ALLOWED: no", RemoteAmpError),
    (UnknownRemoteError("UNKNOWN", "Unknown Error"), "UNKNOWN: Unknown Error", RemoteAmpError),
    (OutOfStockError(sku="A1", left=2), "sku='A1', left=2", AmpError),
    (MutedError(reason="spam"), "muted for spam", AmpError),
]

every_error = pytest.mark.parametrize(
    ("error", "text", "caught_as"),
    [pytest.param(*example, id=repr(example[0])[:40]) for example in EXAMPLES],
)


def documented_tree() -> dict[str, set[str]]:
    """Read the tree in the module's docstring: each class, and the classes it derives from."""
    assert errors.__doc__ is not None
    tree: dict[str, set[str]] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?(?:  .*| )?", line)
        if match is None:
            continue
        indent, name, builtin = match.groups()
        path[len(indent) // 4 :] = [name]
        tree[name] = {path[-2] if len(path) > 1 else "Exception"} | {builtin} - {None}
    return tree


def test_tree_is_the_documented_one() -> None:
    tree = {
        name: {base.__name__ for base in getattr(errors, name).__bases__} for name in errors.__all__
    }
    assert tree == documented_tree()


def test_every_class_has_an_example_here() -> None:
    assert set(errors.__all__) <= {type(error).__name__ for error, _, _ in EXAMPLES}


@every_error
def test_error_can_be_raised_and_read(
    error: AmpError, text: str, caught_as: type[Exception]
) -> None:
    with pytest.raises(AmpError) as caught:
        raise error
    assert str(caught.value) == text
    assert type(error).__name__ in repr(error)


@every_error
def test_error_is_caught_by_those_who_never_heard_of_amp(
    error: AmpError, text: str, caught_as: type[Exception]
) -> None:
    with pytest.raises(caught_as):
        raise error


@every_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(
    error: AmpError, text: str, caught_as: type[Exception], protocol: int
) -> None:
    came = pickle.loads(pickle.dumps(error, protocol))
    assert type(came) is type(error)
    assert (str(came), repr(came), vars(came)) == (text, repr(error), vars(error))
    assert came.args == error.args


def test_what_is_known_of_a_lost_connection_survives_pickling() -> None:
    error = ConnectionLostError("gone")
    error.exit_status = -9
    error.was_sent = False
    came = pickle.loads(pickle.dumps(error))
    assert (came.exit_status, came.was_sent) == (-9, False)


@every_error
def test_error_can_be_copied(error: AmpError, text: str, caught_as: type[Exception]) -> None:
    for came in (copy.copy(error), copy.deepcopy(error)):
        assert (type(came), str(came), vars(came)) == (type(error), text, vars(error))


@every_error
def test_error_that_is_an_os_error_claims_no_errno(
    error: AmpError, text: str, caught_as: type[Exception]
) -> None:
    # OSError takes two arguments for an errno and its text, and a third for a file.
    claims = [getattr(error, name, None) for name in ("errno", "strerror", "filename")]
    assert claims == [None, None, None]


def test_attributes_are_the_documented_ones() -> None:
    assert vars(TooLongError("a key", 256, 255)) == {
        "what": "a key",
        "length": 256,
        "limit": 255,
        "rule": "AMP carries at most 255",
    }
    assert vars(DecodeError("no", ("a", 1))) == {
        "reason": "no",
        "location": ("a", 1),
        "errors": [{"type": "undecodable", "loc": ("a", 1), "msg": "no"}],
    }
    assert vars(ProtocolViolationError("no", 7, [{b"k": b""}])) == {
        "reason": "no",
        "offset": 7,
        "boxes": [{b"k": b""}],
    }
    assert vars(ProcessEndedError("worker.py", 123, 3)) == {
        "title": "worker.py",
        "process_id": 123,
        "exit_status": 3,
    }
    assert ConnectionLostError("gone").exit_status is None
    assert ConnectionLostError("gone").was_sent
    assert vars(CallTimeoutError("Buy", 3, "shop:1")) == {
        "command": "Buy",
        "timeout": 3,
        "peer": "shop:1",
    }
    assert vars(RemoteAmpError("NO", "no", {b"k": b""})) == {
        "code": "NO",
        "description": "no",
        "fields": {b"k": b""},
    }
    assert vars(OutOfStockError(sku="A1")) == {"sku": "A1", "left": 0}
