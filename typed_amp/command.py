"""Commands, their answers and their errors.

Rule of this module: a class is judged where it is written. What can't work is a `DefinitionError`
there, not a surprise at the first call.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar, ForwardRef, Generic, ParamSpec, Protocol, Self

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, ValidationError
from typing_extensions import TypeVar

from typed_amp.errors import DefinitionError
from typed_amp.planning import UnresolvedError, local_names, substitute
from typed_amp.signature import Options, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic.fields import FieldInfo

__all__ = ["Command", "CommandType", "make_command"]

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R", default=None)
C_co = TypeVar("C_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class CommandType(Protocol[C_co, R_co]):
    """A subclass of `Command`, as a type checker needs to see it.

    Taking the class by this protocol, rather than by `type[Command[R]]`, is what lets both mypy
    and pyright work out the command *and* its answer from the class alone.
    """

    def __amp_signature__(self) -> Signature[C_co, R_co]:
        """Give what there is to know of the command."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make one: what the class does and an instance doesn't, so that no instance fits."""
        ...


class Command(BaseModel, Generic[R]):
    """A call: its fields are the arguments, its type parameter is the answer.

    ::

        class Repeat(Command[RepeatResult], errors={TooMuch: "TOO_MUCH"}):
            text: str
            times: int = 1

    The answer is a pydantic model, a dataclass, or None (`Command` alone is `Command[None]`). A
    field's annotation decides how it is written; see `typed_amp.codecs`. Subclasses inherit
    fields, answer, errors, whether an answer is asked for and whether it is idempotent, but not the
    name. Twisted's class is
    `twisted.protocols.amp.Command`.

    Class keywords, beside those that pydantic takes:

    - `name`: the command's name on the wire. The name of the class, if it is left out.
    - `errors`: which exceptions of a responder travel to the caller, and under which code. A
      responder may raise subclasses of them too. Each must be constructible from its text alone,
      or be a `CommandError`.
    - `fatal_errors`: likewise; after one of them the responder's side closes the connection.
    - `requires_answer`: whether the caller waits for an answer. If False, the answer must be
      None, and nobody learns whether the command was carried out.
    - `idempotent`: whether carrying it out twice does no more than carrying it out once. If True,
      a `typed_amp.Client` sends it again when it lost a connection before the answer came. False,
      if it is left out. Nothing of it goes over the wire.

    Raises:
        DefinitionError: when the class is written: a field has no codec, two have one key, a key
            is too long or reserved, the answer is of no usable type, an error can't travel. Where
            the class names others that are written later, when it is first used.
    """

    if TYPE_CHECKING:  # pydantic evaluates them anew for each subclass
        model_config: ClassVar[ConfigDict]
        __amp_options__: ClassVar[Options]
        __amp_own_signature__: ClassVar[Signature[Any, Any] | None]
        __amp_answer_type__: ClassVar[Any]
        __amp_namespace__: ClassVar[Mapping[str, Any] | None]
        __amp_transition__: ClassVar[type | None]

    model_config = ConfigDict(
        allow_inf_nan=True,  # AMP has a form for each of them
        hide_input_in_errors=True,  # where a field is missing, all others would be shown
    )
    __amp_options__ = Options()
    __amp_own_signature__ = None
    __amp_answer_type__ = None
    __amp_namespace__ = None
    __amp_transition__ = None

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        errors: Mapping[type[Exception], str] | None = None,
        fatal_errors: Mapping[type[Exception], str] | None = None,
        requires_answer: bool | None = None,
        idempotent: bool | None = None,
        **config: Any,
    ) -> None:
        if config:
            raise DefinitionError(
                f"{cls.__qualname__}: Command takes no class keyword {next(iter(config))!r}"
            )
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        errors: Mapping[type[Exception], str] | None = None,
        fatal_errors: Mapping[type[Exception], str] | None = None,
        requires_answer: bool | None = None,
        idempotent: bool | None = None,
        **config: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**config)
        parents = [vars(base).get("__amp_options__") for base in cls.__mro__[1:]]
        origin = cls.__pydantic_generic_metadata__["origin"]
        if name is None and origin is not None and issubclass(origin, Command):
            name = origin.__amp_options__.name
        cls.__amp_options__ = Options.merged(
            cls.__qualname__,
            [parent for parent in parents if parent is not None],
            name=name,
            errors=errors,
            fatal_errors=fatal_errors,
            requires_answer=requires_answer,
            idempotent=idempotent,
        )
        cls.__amp_own_signature__ = None
        cls.__amp_namespace__ = local_names()
        if origin is Command:
            return  # Command[Answer] is a base to derive from
        with contextlib.suppress(UnresolvedError):
            _work_out(cls, cls.__amp_namespace__)

    @classmethod
    def __amp_signature__(cls) -> Signature[Self, R]:
        """Give what there is to know of the command, worked out when first needed.

        Raises:
            DefinitionError: it can't work.
        """
        if cls.__amp_own_signature__ is None:
            # What was missing may stand beside the class by now, or where it is used.
            namespace = {**(cls.__amp_namespace__ or {}), **(local_names() or {})}
            try:
                _work_out(cls, namespace)
            except UnresolvedError as error:
                raise DefinitionError(
                    f"{cls.__qualname__} can't be used yet: {error}. Define what it names before"
                    " it is used, or give its type parameters"
                ) from None
        assert cls.__amp_own_signature__ is not None
        return cls.__amp_own_signature__


def make_command(command: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> C:
    """Make a command, for `call_remote`.

    Raises:
        pydantic.ValidationError: the fields are not those of the command, or there are none of
            such names, which pydantic's models ignore.
    """
    made = command(*args, **kwargs)
    _check_names(command, kwargs)
    return made


def _check_names(command: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a command has not. pydantic ignores them, unless told otherwise.

    Args:
        command: the class; what is none, or has an `__init__` of its own, is left to itself.
        arguments: what it was called with.

    Raises:
        pydantic.ValidationError: it has no such fields.
    """
    fields: Mapping[str, FieldInfo] = getattr(command, "__pydantic_fields__", {})
    if arguments.keys() <= fields.keys():
        return
    if not isinstance(command, type) or not issubclass(command, Command):
        return
    if command.__pydantic_custom_init__:
        return
    validators = command.__pydantic_decorators__.model_validators.values()
    if any(validator.info.mode != "after" for validator in validators):
        return  # which may know others
    known = {*fields, *(name for field in fields.values() for name in _aliases(field))}
    unknown = [name for name in arguments if name not in known]
    if unknown and command.model_config.get("extra") != "allow":
        raise ValidationError.from_exception_data(
            command.__name__,
            [
                {"type": "extra_forbidden", "loc": (name,), "input": arguments[name]}
                for name in unknown
            ],
            hide_input=command.model_config.get("hide_input_in_errors", False),
        )


def _aliases(field: FieldInfo) -> Iterator[str]:
    """Give the names of a field that stand for it, or for a part of what it is read from."""
    alias = field.validation_alias
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        name = choice.path[0] if isinstance(choice, AliasPath) else choice
        if isinstance(name, str):
            yield name


def _work_out(command: type[Command[Any]], namespace: Mapping[str, Any] | None) -> None:
    if not command.__pydantic_complete__:
        command.model_rebuild(raise_errors=False, _types_namespace=namespace)
    answer = _answer_type(command, namespace)
    command.__amp_own_signature__ = Signature.of(
        command, answer, command.__amp_options__, namespace, command.__amp_transition__
    )
    command.__amp_answer_type__ = answer
    command.__amp_namespace__ = None


def _answer_type(command: type[Command[Any]], namespace: Mapping[str, Any] | None) -> Any:
    """Find what stands in the brackets of `Command[...]`, with type parameters filled in.

    Raises:
        UnresolvedError: it is a name that stands for nothing yet.
    """
    arguments: dict[Any, Any] = {}
    owner = command
    for cls in command.__mro__[: command.__mro__.index(Command)]:
        if not issubclass(cls, Command):
            continue
        generic = cls.__pydantic_generic_metadata__
        origin = generic["origin"]
        if origin is None:
            owner = cls
            continue
        values = [substitute(value, arguments) for value in generic["args"]]
        if origin is Command:
            return substitute(_resolved(values[0], owner, namespace), arguments)
        arguments = dict(
            zip(origin.__pydantic_generic_metadata__["parameters"], values, strict=True)
        )
    return None


def _resolved(answer: Any, owner: type[Command[Any]], namespace: Mapping[str, Any] | None) -> Any:
    if isinstance(answer, ForwardRef):
        answer = answer.__forward_arg__
    if isinstance(answer, str):
        # A name belongs to the class that wrote it, which a subclass elsewhere did not.
        if owner.__amp_own_signature__ is not None:
            return owner.__amp_answer_type__
        try:
            # What is evaluated is the source of the class, as Python itself would.
            answer = eval(  # noqa: S307
                answer, vars(sys.modules[owner.__module__]), dict(namespace or {})
            )
        except NameError as error:
            raise UnresolvedError(str(error)) from None
    return None if answer is type(None) else answer
