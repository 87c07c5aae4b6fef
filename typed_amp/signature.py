"""What there is to know of one command: its name, how its arguments, answer and errors are written.

Rule of this module: everything a connection asks about a command, it asks here, and gets bytes or
an object, never a question back.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from typing_extensions import TypeVar

from typed_amp.box import (
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    INVALID_ARGUMENTS,
    MAX_VALUE_LENGTH,
    NOT_ALLOWED,
    UNHANDLED,
    UNKNOWN,
    encode_pairs,
    printable,
)
from typed_amp.command_error import CommandError
from typed_amp.descriptors import refuse_to_attach, refuse_to_claim
from typed_amp.errors import (
    DecodeError,
    DefinitionError,
    EncodeError,
    InvalidArgumentsError,
    NotAllowedError,
    RemoteAmpError,
    UnhandledCommandError,
    UnknownRemoteError,
)
from typed_amp.planning import UnresolvedError, is_model, plan_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typed_amp.box import Box
    from typed_amp.plan import Plan

__all__ = [
    "DeclaredError",
    "Options",
    "Signature",
    "error_fields",
    "remote_error",
]

C_co = TypeVar("C_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

_PROTOCOL_ERRORS: Final[Mapping[bytes, type[RemoteAmpError]]] = {
    UNHANDLED: UnhandledCommandError,
    UNKNOWN: UnknownRemoteError,
    INVALID_ARGUMENTS: InvalidArgumentsError,
}


_ERROR_KEYS: Final = frozenset({ERROR, ERROR_CODE, ERROR_DESCRIPTION})


class DeclaredError(NamedTuple):
    """How one class of exceptions travels: under which code, and whether it ends the connection."""

    code: bytes
    is_fatal: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The class keywords of a command, with what it inherits.

    Attributes:
        name: the name on the wire, if one was given to this very class.
        errors: the exceptions that travel.
        requires_answer: whether the caller asks for an answer.
        idempotent: whether carrying it out twice does what carrying it out once does.
    """

    name: str | None = None
    errors: Mapping[type[Exception], DeclaredError] = field(
        default_factory=lambda: MappingProxyType({})
    )
    requires_answer: bool = True
    idempotent: bool = False

    @classmethod
    def merged(
        cls,
        owner: str,
        parents: Iterable[Options],
        *,
        name: str | None,
        errors: Mapping[type[Exception], str] | None,
        fatal_errors: Mapping[type[Exception], str] | None,
        requires_answer: bool | None,
        idempotent: bool | None = None,
    ) -> Options:
        """Put a class's own keywords over those of its parents, nearest first.

        Raises:
            DefinitionError: the name or a code is empty or too long, an error can't travel, or
                two of this class's errors have one code.
        """
        # Type checkers don't see class keywords behind pydantic's metaclass.
        declared_in: tuple[Any, ...] = tuple(
            {} if declared is None else declared for declared in (errors, fatal_errors)
        )
        if name is not None:
            _check_length(f"{owner}: the name", name)
        for keyword, value in (("requires_answer", requires_answer), ("idempotent", idempotent)):
            if not (value is None or isinstance(value, bool)):
                raise DefinitionError(f"{owner}: {keyword}= is True or False")
        if not all(isinstance(declared, Mapping) for declared in declared_in):
            raise DefinitionError(
                f"{owner}: errors= and fatal_errors= are dicts of exception classes and codes"
            )
        own: dict[type[Exception], DeclaredError] = {}
        for declared, is_fatal in zip(declared_in, (False, True), strict=True):
            for error_type, code in declared.items():
                _check_error(owner, error_type)
                _check_length(f"{owner}: the code of {error_type.__name__}", code)
                for other, (other_code, _) in own.items():
                    if other_code == code.encode() or other is error_type:
                        raise DefinitionError(
                            f"{owner}: {other.__name__} and {error_type.__name__} are declared"
                            f" twice or have one code, {code!r}; the caller could not tell them"
                            " apart"
                        )
                own[error_type] = DeclaredError(code.encode(), is_fatal)
        parents = list(parents)
        inherited: dict[type[Exception], DeclaredError] = {}
        for parent in reversed(parents):
            inherited.update(parent.errors)
        if requires_answer is None:
            requires_answer = parents[0].requires_answer if parents else True
        if idempotent is None:
            idempotent = parents[0].idempotent if parents else False
        return cls(name, MappingProxyType({**inherited, **own}), requires_answer, idempotent)


def _check_length(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise DefinitionError(f"{what} must be a str, not {type(text).__name__}")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise DefinitionError(f"{what} must be a text without surrogates") from None
    if not 0 < length <= MAX_VALUE_LENGTH:
        raise DefinitionError(f"{what} must have 1 to {MAX_VALUE_LENGTH:,} bytes")


def _check_error(owner: str, error_type: Any) -> None:
    if not (isinstance(error_type, type) and issubclass(error_type, Exception)):
        raise DefinitionError(f"{owner}: {error_type!r} is no subclass of Exception")
    if issubclass(error_type, CommandError):
        return
    try:
        try:
            inspect.signature(error_type).bind("description")
        except ValueError:  # what is written in C has no signature, and no side effects either
            error_type("description")
    except TypeError:
        raise DefinitionError(
            f"{owner}: {error_type.__name__} can't be made from its text alone, so it can't be"
            " made again at the caller's side; derive it from CommandError, whose fields travel"
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class Signature(Generic[C_co, R_co]):
    """One command, worked out. Made by `of`, once for each class.

    Attributes:
        title: the name, as text for messages; never breaks a line.
        name: the name on the wire.
        head: the pair that says it, already written.
        arguments: writes and reads the command itself.
        answer: writes and reads the answer; None where that is None.
        errors: the exceptions that travel.
        error_types: the same by code.
        requires_answer: whether the caller asks for an answer.
        idempotent: whether a caller that doesn't know whether it was carried out may ask again.
        transition: the type of what a responder returns instead of an answer, for a command that
            changes what the connection speaks; None for others.
        has_attachments: whether the arguments carry descriptors.
        answer_has_attachments: whether the answer does.
        is_plain: whether it is none of that: no transition, no attachments.
    """

    title: str
    name: bytes
    head: bytes
    arguments: Plan
    answer: Plan | None
    errors: Mapping[type[Exception], DeclaredError]
    error_types: Mapping[bytes, type[Exception]]
    requires_answer: bool
    idempotent: bool = False
    transition: type | None = None
    has_attachments: bool = False
    answer_has_attachments: bool = False
    is_plain: bool = True

    @classmethod
    def of(
        cls,
        command: type,
        answer: Any,
        options: Options,
        namespace: Mapping[str, Any] | None,
        transition: type | None = None,
    ) -> Signature[C_co, R_co]:
        """Work out a command.

        Args:
            command: the class.
            answer: the type of its answer.
            options: its class keywords.
            namespace: local names that the answer's annotations may use.
            transition: what a responder returns instead of an answer.

        Raises:
            DefinitionError: it can't work.
            UnresolvedError: it names classes that don't exist yet.
        """
        if isinstance(answer, typing.TypeVar):
            raise UnresolvedError(f"its answer is {answer}, a type parameter")
        if answer is not None and not is_model(answer):
            raise DefinitionError(
                f"{command.__qualname__}: the answer is {answer!r}; it must be a pydantic model, a"
                " dataclass or None, since an answer travels as a box of named values"
            )
        if answer is not None and not options.requires_answer:
            raise DefinitionError(
                f"{command.__qualname__}: with requires_answer=False no answer can come; leave the"
                f" answer type {answer.__name__} out"
            )
        if transition is not None and not (answer is None and options.requires_answer):
            raise DefinitionError(
                f"{command.__qualname__} changes what the connection speaks: it needs an answer,"
                " and one without fields"
            )
        name = options.name or command.__name__
        _check_length(f"{command.__qualname__}: the name", name)
        arguments = plan_for(command, namespace)
        answer_plan = None if answer is None else plan_for(answer, namespace)
        has_attachments = arguments.carries_descriptors
        answer_has_attachments = answer_plan is not None and answer_plan.carries_descriptors
        return cls(
            title=printable(name.encode()),
            name=name.encode(),
            head=encode_pairs({COMMAND: name.encode()}),
            arguments=arguments,
            answer=answer_plan,
            errors=options.errors,
            error_types=MappingProxyType(
                {declared.code: error_type for error_type, declared in options.errors.items()}
            ),
            requires_answer=options.requires_answer,
            idempotent=options.idempotent,
            transition=transition,
            has_attachments=has_attachments,
            answer_has_attachments=answer_has_attachments,
            is_plain=not (transition or has_attachments or answer_has_attachments),
        )

    def encode_answer(
        self, answer: Any, head: bytes, attach: Callable[[int], int] = refuse_to_attach
    ) -> bytes:
        """Write an answer behind pairs already written.

        Args:
            answer: what the responder returned.
            head: the pairs.
            attach: gives the number of a descriptor that is to be sent.

        Raises:
            EncodeError: it isn't what the command declares, or can't be written.
        """
        if self.answer is None:
            if not isinstance(answer, self.transition or type(None)):
                due = (
                    f"is answered with a {self.transition.__name__}"
                    if self.transition
                    else ("has no answer")
                )
                raise EncodeError(
                    f"{self.title} {due}, but its responder returned a {type(answer).__name__}"
                )
            return head + b"\0\0"
        if not isinstance(answer, self.answer.accepted):
            raise EncodeError(
                f"{self.title} is answered with a {self.answer.model.__qualname__}, but its"
                f" responder returned a {type(answer).__name__}"
            )
        return self.answer.encode(answer, head, attach)

    def decode_answer(self, box: Box, claim: Callable[[int], int] = refuse_to_claim) -> Any:
        """Read an answer.

        Args:
            box: the answer.
            claim: gives the descriptor of a number.

        Raises:
            DecodeError: it isn't what the command declares.
        """
        if self.answer is None:
            return None
        try:
            return self.answer.decode(box, claim)
        except DecodeError as error:
            raise self.undecodable(error) from error.__cause__

    def undecodable(self, error: DecodeError) -> DecodeError:
        """Say of an error that it is the answer's."""
        return error.within(f"the answer to {self.title}")

    def declared(self, error: BaseException) -> DeclaredError | None:
        """How an exception travels: as the nearest of its classes that is declared, if any."""
        for error_type in type(error).__mro__:
            if error_type in self.errors:
                return self.errors[error_type]
        return None

    def error_parts(self, error: BaseException) -> tuple[str, bytes]:
        """Give the description of an error that is declared, and its further pairs, written.

        Raises:
            EncodeError: a field can't be written.
            Exception: what the error's own `__str__` raises.
        """
        return str(error), error_fields(error)

    def error_from(self, box: Box) -> Exception:
        """Make the exception that an error box stands for."""
        remote = remote_error(box)
        error_type = self.error_types.get(box.get(ERROR_CODE, b""))
        if error_type is None:
            return remote
        description = remote.description
        try:
            if not issubclass(error_type, CommandError):
                return error_type(description)
            error: CommandError = error_type.__amp_fields_plan__().decode(box)
            error.args = (description,)
        except Exception as cause:
            remote.__cause__ = cause
            return remote
        return error


def remote_error(box: Box) -> RemoteAmpError:
    """Make the error that an error box stands for where no command says what its code means."""
    code = box.get(ERROR_CODE, b"")
    description = box.get(ERROR_DESCRIPTION, b"").decode("utf-8", "backslashreplace")
    fields = {key: value for key, value in box.items() if key not in _ERROR_KEYS}
    if code == NOT_ALLOWED:
        refusal = NotAllowedError(description, fields)
        refusal.is_received = True
        return refusal
    error_type = _PROTOCOL_ERRORS.get(code, RemoteAmpError)
    return error_type(code.decode("utf-8", "backslashreplace"), description, fields)


def error_fields(error: BaseException) -> bytes:
    """Write the fields of an exception that has some.

    Raises:
        EncodeError: a field can't be written.
    """
    if not isinstance(error, CommandError):
        return b""
    return error.__amp_fields_plan__().encode(error, b"")[:-2]
