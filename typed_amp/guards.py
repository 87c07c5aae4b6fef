"""Guards: what decides whether a command may be carried out.

Rule of this module: nothing passes by mistake. What a guard does otherwise than it should is a
refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typed_amp.functions import check_function, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.connection import Connection

__all__ = ["Guard"]


@dataclass(frozen=True, slots=True)
class Guard:
    """A registered guard. Made by `of`.

    Attributes:
        function: the function.
        takes_name: whether it wants the command's name beside the connection.
    """

    function: Callable[..., None]
    takes_name: bool

    @classmethod
    def of(cls, function: Any) -> Guard:
        """Take a function for a guard.

        Raises:
            DefinitionError: it is async, or takes neither one argument nor two.
        """
        arity = check_function(
            function,
            "the guard",
            {1: "the connection", 2: "the connection and the command's name"},
            plain_since="A command that waited for its guard would be overtaken by those that came"
            " after it. Do what takes time in the responder that logs in, and keep what comes of it"
            " in connection.state for the guard",
        )
        return cls(function, takes_name=arity == 2)

    def check(self, connection: Connection[Any], name: bytes) -> None:
        """Let a command pass.

        Args:
            connection: that it came on.
            name: its name on the wire.

        Raises:
            NotAllowedError: it may not.
            TypeError: the guard returned something, such as False, where it was to raise.
            Exception: what the guard raises.
        """
        function: Callable[..., object] = self.function
        if self.takes_name:
            verdict = function(connection, name.decode("utf-8", "backslashreplace"))
        else:
            verdict = function(connection)
        if verdict is not None:
            raise TypeError(
                "a guard lets pass by returning None and refuses by raising NotAllowedError, but"
                f" {place_of(self.function)} returned a {type(verdict).__name__}"
            )
