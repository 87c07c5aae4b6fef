"""How many responders may run on several connections together.

Rule of this module: it counts. Who is refused what, and how it is told, is said elsewhere.
"""

from __future__ import annotations

import sys

__all__ = ["Budget"]


class Budget:
    """How many responders may run on several connections together.

    Args:
        most: how many.
    """

    __slots__ = ("in_use", "most")

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most: int = most
        self.in_use: int = 0

    @property
    def is_used_up(self) -> bool:
        """Whether no further one may run."""
        return self.in_use >= self.most
