"""Errors with typed fields.

Rule of this module: a declared error travels whole. Its code and text go where every AMP peer
looks for them; its fields go beside them as further keys, which Twisted ignores.
"""

from __future__ import annotations

import contextlib
import types
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
from pydantic import BaseModel, ConfigDict
from typing_extensions import Format, dataclass_transform, get_annotations

from typed_amp.errors import AmpError, DefinitionError
from typed_amp.planning import UnresolvedError, local_names, plan_of_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typed_amp.plan import Plan

__all__ = ["CommandError"]


class _Fields(BaseModel):
    """The fields of an error, as a model: pydantic reads the annotations and checks the values."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        allow_inf_nan=True,
        hide_input_in_errors=True,  # where a field is missing, all others would be shown
    )


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(pydantic.Field,))
class CommandError(AmpError):
    """An error of a command that carries fields of its own to the caller.

    ::

        class OutOfStock(CommandError):
            sku: str
            left: int = 0

        class Buy(Command[Receipt], errors={OutOfStock: "OUT_OF_STOCK"}): ...

    A responder raises `OutOfStock(sku="A1")`; the caller catches `OutOfStock` with the same
    fields. The constructor takes the fields by name and checks them as pydantic does. The text,
    `str(error)`, names the fields, but for those with `Field(repr=False)`; define `__str__` to say
    it better. At the caller's side it is the text that the peer sent.

    A peer that knows no fields sends none: fields without a default are then missing, and the
    caller gets a `RemoteAmpError` with the code instead.

    Raises:
        DefinitionError: when the class is written, a field has no codec, or has the name of
            something that exceptions have already, such as `args`.
        pydantic.ValidationError: from the constructor, a field is missing or wrong.
    """

    __amp_model__: ClassVar[type[BaseModel]] = _Fields
    __amp_plan__: ClassVar[Plan | None] = None
    __amp_namespace__: ClassVar[Mapping[str, Any] | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        annotations = get_annotations(cls, format=Format.FORWARDREF)
        namespace: dict[str, Any] = {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__annotations__": annotations,
        }
        for name in annotations:
            if hasattr(CommandError, name):
                raise DefinitionError(
                    f"{cls.__qualname__}.{name}: every exception has a {name} already. Name the"
                    f' field otherwise, with Annotated[..., Key("{name}")]'
                )
            if name in vars(cls):
                namespace[name] = vars(cls)[name]
        namespace |= {
            name: value
            for name, value in vars(cls).items()
            if hasattr(value, "decorator_info")  # a validator of pydantic's
        }
        bases = tuple(
            base.__amp_model__ for base in cls.__bases__ if issubclass(base, CommandError)
        )
        cls.__amp_model__ = types.new_class(
            cls.__name__, bases, exec_body=lambda body: body.update(namespace)
        )
        cls.__amp_plan__ = None
        cls.__amp_namespace__ = local_names()
        with contextlib.suppress(UnresolvedError):
            _work_out(cls, cls.__amp_namespace__)

    def __init__(self, /, **fields: Any) -> None:
        super().__init__()
        type(self).__amp_fields_plan__()  # completes the model, if that had to wait
        validator = type(self).__amp_model__.__pydantic_validator__
        model = validator.validate_python(fields, by_alias=False, by_name=True)
        vars(self).update(vars(model))

    @classmethod
    def __amp_fields_plan__(cls) -> Plan:
        """Give the plan that writes and reads the fields, made when first needed."""
        if cls.__amp_plan__ is None:
            namespace = {**(cls.__amp_namespace__ or {}), **(local_names() or {})}
            try:
                _work_out(cls, namespace)
            except UnresolvedError as error:
                raise DefinitionError(
                    f"{cls.__qualname__} can't be used yet: {error}. Define what it names before"
                    " it is used"
                ) from None
        assert cls.__amp_plan__ is not None
        return cls.__amp_plan__

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self._shown_fields()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown_fields()})"

    def _shown_fields(self) -> str:
        """Name the fields, but for those that are hidden by `Field(repr=False)`."""
        fields = type(self).__amp_model__.model_fields
        names = [name for name, field in fields.items() if field.repr]
        return ", ".join(f"{name}={vars(self).get(name)!r}" for name in names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bare, (type(self), self.args), vars(self)


def _work_out(cls: type[CommandError], namespace: Mapping[str, Any] | None) -> None:
    cls.__amp_plan__ = plan_of_fields(
        cls, cls.__amp_model__, lambda values: _restored(cls, values), namespace
    )
    cls.__amp_namespace__ = None


def _bare(cls: type[CommandError], args: tuple[Any, ...]) -> CommandError:
    error = cls.__new__(cls)
    error.args = args
    return error


def _restored(cls: type[CommandError], values: dict[str, Any]) -> CommandError:
    # Not cls(**values): a constructor of the user's own may take something else.
    error = cls.__new__(cls)
    CommandError.__init__(error, **values)
    return error
