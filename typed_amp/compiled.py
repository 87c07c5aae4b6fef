"""Which of the two typed_amps this is: the compiled one, or the one that Python interprets.

Rule of this module: it is for people to ask. Both are made from the same files and do the same, so
that no code of the package depends on it; and it is never compiled itself.
"""

from __future__ import annotations

from types import FunctionType
from typing import Final

from typed_amp.box import encode_box

__all__ = ["COMPILED"]

COMPILED: Final[bool] = not isinstance(encode_box, FunctionType)
"""Whether the parts of typed_amp that each call goes through are compiled.

They are in a wheel that was built where there was a C compiler, and not in an editable install. The
two differ in speed alone.
"""
