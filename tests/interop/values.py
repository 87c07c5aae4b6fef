"""Edge values of every type of argument, known to both processes by their names.

They are plain: a row is a dict, a path its text. Each side makes of them what it needs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import Any, NamedTuple

from pydantic import BaseModel
from twisted.python.filepath import FilePath


class Case(NamedTuple):
    command: str
    value: Any


def at_offset(**offset: float) -> datetime:
    return datetime(2012, 1, 23, 12, 34, 56, 54321, timezone(timedelta(**offset)))


PART = {"code": b"\x00\xff", "weights": [0.1, float("inf")]}
ROW = {
    "name": "é",
    "count": -1,
    "when": at_offset(hours=-1, minutes=-23),
    "tags": ["", "a"],
    "parts": [PART, {"code": b"", "weights": []}],
}
BARE_ROW = {"name": "", "count": 0, "when": None, "tags": [], "parts": []}

VALUES: dict[str, dict[str, Any]] = {
    "EchoInteger": {
        "zero": 0,
        "negative": -1,
        "64 bits": 2**64,
        "4,000 digits": 10**4000 - 1,
        "65,535 bytes": -(10**65_533),
    },
    "EchoString": {
        "empty": b"",
        "every byte": bytes(range(256)),
        "zeros": b"\0\0\0\0",
        "65,535 bytes": b"\xff" * 65_535,
    },
    "EchoUnicode": {
        "empty": "",
        "zero character": "\0",
        "beyond 16 bits": "é € 😀",
        "65,535 bytes": "€" * 21_845,
    },
    "EchoFloat": {
        "zero": 0.0,
        "negative zero": -0.0,
        "not exact": 0.1 + 0.2,
        "smallest": 5e-324,
        "largest": -1.7976931348623157e308,
        "whole": 1e16,
        "nan": float("nan"),
        "inf": float("inf"),
        "-inf": float("-inf"),
    },
    "EchoBoolean": {"true": True, "false": False},
    "EchoDecimal": {
        name: Decimal(name)
        for name in (
            *("0", "-0", "1.10", "1E+2", "-1.5E-999999", "0E-7", "3" * 5000),
            *("Infinity", "-Infinity", "NaN", "-NaN", "sNaN", "-sNaN", "NaN123"),
        )
    },
    "EchoDateTime": {
        "UTC": datetime(2012, 1, 23, 12, 34, 56, tzinfo=UTC),
        "one microsecond": datetime(2012, 1, 23, microsecond=1, tzinfo=UTC),
        "east": at_offset(hours=5, minutes=45),
        "west": at_offset(hours=-9, minutes=-30),
        "west by minutes": at_offset(minutes=-1),
        "farthest east": at_offset(hours=23, minutes=59),
        "farthest west": at_offset(hours=-23, minutes=-59),
        "first": datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        "last": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    },
    "EchoPath": {"root": "/", "blank and umlaut": "/a b/ü", "long": "/" + "x/" * 30_000 + "x"},
    "EchoIntegers": {"empty": [], "some": [0, -1, 10**100], "many": [7] * 21_845},
    "EchoStrings": {
        "empty": [],
        "of one empty": [b""],
        "some": [b"", b"\0", b"\xff" * 300],
        "65,535 bytes": [b"x" * 65_533],
    },
    "EchoDateTimes": {"empty": [], "some": [at_offset(hours=2), at_offset(hours=-2)]},
    "EchoPaths": {"empty": [], "some": ["/", "/a/b"]},
    "EchoNested": {
        "empty": [],
        "of empty": [[], [[]], [[""]]],
        "some": [[["a", "é"], []], [], [["", "b"]]],
    },
    "EchoRows": {
        "empty": [],
        "bare": [BARE_ROW],
        "some": [ROW, BARE_ROW, ROW],
        "65,535 bytes": [BARE_ROW, {**BARE_ROW, "name": "n" * (65_535 - 2 * 37)}],
    },
    "EchoRow": {"bare": BARE_ROW, "full": ROW},
    "EchoLargeBytes": {
        "empty": b"",
        "65,535 bytes": b"\xff" * 65_535,
        "65,536 bytes": b"\xff" * 65_536,
        "200,000 bytes": bytes(range(200)) * 1_000,
    },
    "EchoLargeText": {
        "empty": "",
        "65,535 bytes": "€" * 21_845,
        "65,536 bytes": "a" + "€" * 21_845,
        "200,000 bytes": "aa" + "€" * 66_666,  # cut within characters
    },
    "EchoCompressedBytes": {
        "empty": b"",
        "65,535 bytes": b"\xff" * 65_535,
        "65,536 bytes": b"\xff" * 65_536,
        "200,000 bytes": bytes(range(200)) * 1_000,
    },
}

CASES = {
    f"{command[4:]}: {name}": Case(command, value)
    for command, values in VALUES.items()
    for name, value in values.items()
}

NO_OPTIONALS = {"number": None, "text": None, "flag": None, "numbers": None, "rows": None}

OPTIONALS: dict[str, dict[str, Any]] = {
    "all missing": NO_OPTIONALS,
    "all empty": {"number": 0, "text": "", "flag": False, "numbers": [], "rows": []},
    "all there": {"number": 1, "text": "a", "flag": True, "numbers": [1], "rows": [ROW]},
    "one there": {**NO_OPTIONALS, "text": "a"},
}


def described(value: Any) -> Any:
    """Say in JSON what a value is, alike for both sides and down to the last bit."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return hex(value)  # which no limit on the digits of an int applies to
        case bytes():
            return value.hex()
        case float():
            return repr(value)
        case Decimal():
            return str(value)
        case datetime():
            return value.isoformat()
        case FilePath():
            return value.path
        case PurePath():
            return str(value)
        case BaseModel():
            return described(vars(value))
        case dict():
            return {key: described(item) for key, item in value.items()}
        case list() | tuple():
            return [described(item) for item in value]
        case _:
            raise TypeError(f"what is a {type(value).__name__}?")
