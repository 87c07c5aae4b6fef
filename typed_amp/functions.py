"""Functions that users register: what they take, and where they are written.

Rule of this module: it looks at a function and never calls it.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

from typed_amp.errors import DefinitionError

__all__ = ["check_function", "is_async", "place_of"]


_NOT_PLAIN: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def place_of(function: Any) -> str:
    """Name a function or a class, and the line where it is written."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or isinstance(function, type)):
        function = type(function)
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        file = inspect.getsourcefile(function)
        line = inspect.getsourcelines(function)[1]
    except (OSError, TypeError):
        return name
    return f'{name} ("{file}", line {line})'


def is_async(function: Any) -> bool:
    """Say whether a function, or an object that is called like one, is async."""
    return any(map(inspect.iscoroutinefunction, _called(function)))


def _called(function: Any) -> tuple[Any, ...]:
    """Give what may say of which kind a function is: itself, and the method of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function, getattr(function, "__call__", None)  # noqa: B004


def check_function(
    function: Any,
    role: str,
    arguments: dict[int, str],
    *,
    plain_since: str | None = None,
    may_be_plain: bool = False,
) -> int:
    """Refuse what can't be called as it will be; say how many arguments it wants.

    Args:
        function: what was registered.
        role: what it is to be, for the message.
        arguments: by how many it may take, the words for them.
        plain_since: of what must not be async, why that is so; None of what must be.
        may_be_plain: whether it may be either.

    Raises:
        DefinitionError: it is not.
    """
    if isinstance(function, type):
        raise DefinitionError(
            f"{role} must be a function: {place_of(function)} is a class. Give an instance of it"
        )
    if not callable(function):
        raise DefinitionError(f"{role} must be a function, not {function!r}")
    if not (may_be_plain or plain_since or is_async(function)):
        raise DefinitionError(f"{role} must be an async function: {place_of(function)} is not")
    may_be_async = plain_since is None and is_async(function)
    if not may_be_async and any(
        is_kind(each) for is_kind in _NOT_PLAIN for each in _called(function)
    ):
        if plain_since is None:
            raise DefinitionError(
                f"{role} must be an async function or a plain one: {place_of(function)} is a"
                " generator"
            )
        raise DefinitionError(
            f"{role} must be a plain function: {place_of(function)} is async or a generator."
            f" {plain_since}"
        )
    signature = inspect.signature(function)
    is_unbound = next(iter(signature.parameters), None) == "self"
    for arity in () if is_unbound else arguments:
        try:
            signature.bind(*range(arity))
        except TypeError:
            continue
        return arity
    hint = "; register the method of an instance, not of the class" if is_unbound else ""
    raise DefinitionError(
        f"{role} takes {', or '.join(arguments.values())}, but"
        f" {place_of(function)} is written as {signature}{hint}"
    )
