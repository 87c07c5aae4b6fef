"""With what an ask is answered that fails, or that is never carried out.

Rule of this module: whatever went wrong, who asked gets a code and a text for it, and learns
nothing that isn't declared; the rest is for this side's log. What carries the answer is not known
here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from typed_amp.box import (
    CANCELLED,
    CLOSING,
    INVALID_ARGUMENTS,
    NOT_ALLOWED,
    TIMEOUT,
    UNHANDLED,
    UNKNOWN,
    encode_pairs,
)
from typed_amp.details import ERROR_DETAILS, encode_details
from typed_amp.errors import NotAllowedError
from typed_amp.log import log

if TYPE_CHECKING:
    from typed_amp.dialogue import Asked
    from typed_amp.errors import DecodeError
    from typed_amp.log import Named
    from typed_amp.signature import DeclaredError, Signature

__all__ = [
    "UNKNOWN_ERROR",
    "Refusal",
    "declared_error",
    "ended",
    "invalid",
    "log_failure",
    "undeclared_error",
    "unhandled",
]

Refusal: TypeAlias = tuple[bytes, str, bytes]
"""The `_error_code` of an error, its `_error_description`, and further pairs, already written."""

UNKNOWN_ERROR: Final[Refusal] = (UNKNOWN, "Unknown Error", b"")
"""What is told of a failure that isn't declared."""

_ENDED: Final = {
    None: "its responder was cancelled, since this side is closing",
    CANCELLED: "its responder was cancelled, since the caller has given up",
    CLOSING: "this side is closing; it was not carried out",
    TIMEOUT: "the caller's time is over",
}


def unhandled(asked: Asked) -> Refusal:
    """Say that there is no responder."""
    # As Twisted words it, but for the b of its bytes.
    return UNHANDLED, f"Unhandled Command: '{asked.shown_name}'", b""


def invalid(error: DecodeError, *, has_details: bool) -> Refusal:
    """Say that the arguments are not those of the command.

    Args:
        error: what is wrong with them.
        has_details: whether the caller reads more than a text.
    """
    details = encode_pairs({ERROR_DETAILS: encode_details(error.errors)}) if has_details else b""
    return INVALID_ARGUMENTS, str(error), details


def ended(verdict: bytes | None) -> Refusal:
    """Say why a responder was cancelled, or never begun.

    Args:
        verdict: the `verdict` of the ask; None if it runs no longer since this side is closing.
    """
    return verdict or CANCELLED, _ENDED[verdict], b""


def declared_error(
    owner: Named,
    asked: Asked,
    error: BaseException,
    signature: Signature[Any, Any],
    declared: DeclaredError,
) -> Refusal:
    """Say what a responder has raised, where its command declares that.

    Args:
        owner: what log records call this side.
        asked: what was asked.
        error: what was raised.
        signature: that of the command.
        declared: how the command declares it.
    """
    if asked.tag is None:  # who asked is told nothing of it
        log_failure(owner, asked, error)
    try:
        description, fields = signature.error_parts(error)
    except Exception as failure:
        log_failure(owner, asked, failure)
        return UNKNOWN_ERROR
    return declared.code, description, fields


def undeclared_error(
    owner: Named, asked: Asked, error: BaseException, *, is_ended: bool
) -> Refusal:
    """Say as much as may be said of what a responder has raised; the log has all of it.

    Args:
        owner: what log records call this side.
        asked: what was asked.
        error: what was raised, which the command doesn't declare.
        is_ended: whether this side has cancelled the responder.
    """
    if isinstance(error, NotAllowedError) and not error.is_received:
        return NOT_ALLOWED, error.description, b""
    if is_ended and isinstance(error, asyncio.CancelledError):
        return ended(asked.verdict)
    log_failure(owner, asked, error)
    return UNKNOWN_ERROR


def log_failure(owner: Named, asked: Asked, error: BaseException) -> None:
    """Log that a responder failed, or that its answer can't be sent."""
    name = asked.shown_name
    told = "the responder of %s failed"
    log(logging.ERROR, "responder_failed", owner, told, name, error=error, command=name)
