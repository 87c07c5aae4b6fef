"""What `connect` and `serve` return: something to await, or to enter with `async with`.

Rule of this module: whoever opens a thing with `async with` finds it closed at the end, whatever
happened in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, Self

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from types import TracebackType
    from typing import Any

__all__ = ["Closable", "ClosedAtEnd", "Opening"]


class Closable(Protocol):
    """Something that `async with` closes."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ClosedAtEnd(ABC):
    """A base of what `async with` closes, and waits for until it is closed."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Begin to close."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until it is closed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()


T_co = TypeVar("T_co", bound=Closable, covariant=True)


class Opening(Awaitable[T_co], AbstractAsyncContextManager[T_co, None]):
    """A connection or a server that is opened when this is awaited or entered, once.

    Args:
        coroutine: opens it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T_co]) -> None:
        self._coroutine = coroutine
        self._opened: T_co

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> T_co:
        self._opened = await self._coroutine
        return self._opened

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(exception_type, exception, traceback)
