"""The event loop that a benchmark asked for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run_on_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop if `--uvloop` is among the arguments, on the default loop otherwise."""
    factory = None
    if "--uvloop" in sys.argv:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)
