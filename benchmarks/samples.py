"""The works as typed_amp writes them: the commands, the answers, and their bytes.

Rule of this module: each is encoded by the functions that a connection runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import work
from benchmarks.peers import models
from benchmarks.peers.models import NumbersResult, RepeatResult, ValueResult
from benchmarks.peers.typed import Find, Numbers, Repeat, Rows, Value
from typed_amp import encode_box

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp import Command

TAG = b"1f"

ASK_HEAD = encode_box({b"_ask": TAG})[:-2]  # without the box's end
ANSWER_HEAD = encode_box({b"_answer": TAG})[:-2]

COMMANDS: dict[str, Callable[[], Command[Any]]] = {
    "repeat": lambda: Repeat(text=work.TEXT, times=work.TIMES),
    "value": lambda: Value(data=work.VALUE),
    "list": lambda: Numbers(numbers=work.NUMBERS),
    "rows": lambda: Rows(first=work.FIRST, count=work.COUNT),
    "error": lambda: Find(name=work.MISSING),
}
"""What makes the command of each work."""

ANSWERS: dict[str, Callable[[], Any]] = {
    "repeat": lambda: RepeatResult(text=work.REPEATED),
    "value": lambda: ValueResult(data=work.VALUE),
    "list": lambda: NumbersResult(numbers=work.REVERSED),
    "rows": lambda: models.rows(work.FIRST, work.COUNT),
}
"""What makes the answer of each work that has one."""


def ask_bytes(name: str) -> bytes:
    """Give the bytes of a work's call."""
    command = COMMANDS[name]()
    signature = command.__amp_signature__()
    return signature.arguments.encode(command, ASK_HEAD + signature.head)


def answer_bytes(name: str) -> bytes:
    """Give the bytes of its answer, or of its error."""
    if name in ANSWERS:
        signature = COMMANDS[name]().__amp_signature__()
        return signature.encode_answer(ANSWERS[name](), ANSWER_HEAD)
    return encode_box(
        {
            b"_error": TAG,
            b"_error_code": b"NO_SUCH_ITEM",
            b"_error_description": work.complaint(work.MISSING).encode(),
        }
    )
