"""One value of each type of argument, known to both processes by Twisted's name for the type."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

SAMPLES: dict[str, Any] = {
    "Integer": -7,
    "String": b"\x00\xff",
    "Unicode": "é €",
    "Boolean": True,
    "Float": 0.1,
    "Decimal": Decimal("1.10"),
    "DateTime": datetime(2012, 1, 23, 12, 34, 56, 54321, timezone(timedelta(hours=-1))),
    "Path": Path("/a b/ü"),
}
