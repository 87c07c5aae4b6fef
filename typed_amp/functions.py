"""Functions that users register: what they take, and where they are written.

Rule of this module: it looks at a function and never calls it.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

from typed_amp.errors import DefinitionError

__all__ = ["check_function", "place_of"]


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


def check_function(
    function: Any, role: str, arguments: dict[int, str], *, plain_since: str | None = None
) -> int:
    """Refuse what can't be called as it will be; say how many arguments it wants.

    Args:
        function: what was registered.
        role: what it is to be, for the message.
        arguments: by how many it may take, the words for them.
        plain_since: of what must not be async, why that is so; None of what must be.

    Raises:
        DefinitionError: it is not.
    """
    if isinstance(function, type):
        raise DefinitionError(
            f"{role} must be a function: {place_of(function)} is a class. Give an instance of it"
        )
    bare = function
    while isinstance(bare, functools.partial):
        bare = bare.func
    if not callable(function):
        raise DefinitionError(f"{role} must be a function, not {function!r}")
    called = (bare, getattr(bare, "__call__", None))  # noqa: B004
    if plain_since is None and not any(map(inspect.iscoroutinefunction, called)):
        raise DefinitionError(f"{role} must be an async function: {place_of(function)} is not")
    if plain_since is not None and any(is_kind(each) for is_kind in _NOT_PLAIN for each in called):
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
