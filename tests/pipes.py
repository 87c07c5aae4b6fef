"""Pipes whose ends tests give away."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest


class Pipe:
    """A pipe of which a test gives the writing end away and reads the other."""

    def __init__(self, add_finalizer: Callable[[Callable[[], None]], None]) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}
        add_finalizer(self.close)

    def close_writing(self) -> None:
        """Close this side's own writing end."""
        if self.writing in self._open:
            self._open.discard(self.writing)
            os.close(self.writing)

    def read_all(self) -> bytes:
        """Read what was written by those who have a writing end, until the last has closed it."""
        self.close_writing()
        data = b""
        while chunk := os.read(self.reading, 65_536):
            data += chunk
        return data

    def close(self) -> None:
        """Close both ends."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


@pytest.fixture
def new_pipe(request: pytest.FixtureRequest) -> Callable[[], Pipe]:
    """Make pipes that are closed at the end."""
    return lambda: Pipe(request.addfinalizer)
