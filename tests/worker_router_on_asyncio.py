"""The same as `tests/worker_router.py`, in workers that have no uvloop."""

from __future__ import annotations

import sys
from typing import Any, cast

from tests.worker_router import router

__all__ = ["router"]

cast("dict[str, Any]", sys.modules)["uvloop"] = None  # as if it were not installed
