"""Boxes on paper: as text for people, and as JSON for programs.

Rule of this module: a peer chose the bytes. What goes out never steers a terminal, never breaks a
line, and is told apart from what it is not.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from typed_amp.box import printable
from typed_amp.transcript import HIDDEN, Hidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typed_amp.capture import Fault
    from typed_amp.transcript import Entry, Meaning

__all__ = [
    "SHOWN_CHARACTERS",
    "as_plain",
    "fault_as_json",
    "meaning_as_json",
    "meaning_as_text",
    "value_as_text",
]

SHOWN_CHARACTERS: Final = 200
"""How much of a value is shown, unless all of it is asked for."""


def meaning_as_text(meaning: Meaning, *, full: bool = False) -> str:
    """Write a box as a block of lines.

    Args:
        meaning: the box.
        full: whether long values are shown to their ends.
    """
    return "\n".join(_lines(meaning, full=full))


def _lines(meaning: Meaning, *, full: bool) -> Iterator[str]:
    yield f"byte {meaning.offset:,}: {_title(meaning)}"
    if meaning.problem is not None:
        yield f"    ! {meaning.problem}"
    for entry in meaning.entries:
        yield f"    {entry.name} = {_shown(entry, full=full)}"


def _title(meaning: Meaning) -> str:
    command = "" if meaning.command is None else printable(meaning.command)
    tag = "" if meaning.tag is None else printable(meaning.tag)
    match meaning.kind:
        case "ask":
            return f"ask {tag}, {command}"
        case "command":
            return f"{command}, which wants no answer"
        case "unknown":
            return "neither ask nor answer"
        case kind:
            title = f"{kind} to {tag}, {command or 'whose ask is not in the capture'}"
    if kind == "error":
        code = "no code" if meaning.code is None else printable(meaning.code)
        error_type = f" ({meaning.error_type})" if meaning.error_type else ""
        description = printable(meaning.description or b"")
        title += f": {code}{error_type}: {description}"
    return title


def _shown(entry: Entry, *, full: bool) -> str:
    text = _text(entry)
    notes = [entry.note] if entry.note else []
    if not full and len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}..."
        if entry.length is not None:
            notes.insert(0, f"{entry.length:,} bytes")
    return f"{text} ({', '.join(notes)})" if notes else text


def _text(entry: Entry) -> str:
    if isinstance(entry.value, bytes) and not entry.is_typed:
        return _literal(entry.value)
    return value_as_text(entry.value)


def value_as_text(value: Any) -> str:
    """Show a value as Python writes it, on one line that steers no terminal."""
    try:
        text = repr(value)
    except Exception as error:  # a user's own
        return f"<{type(error).__name__} in its repr>"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _literal(data: bytes) -> str:
    """Show bytes as the text they are, if they are one."""
    try:
        return repr(data.decode())
    except UnicodeDecodeError:
        return repr(data)


def meaning_as_json(meaning: Meaning, file: str) -> str:
    """Write a box as one line of JSON."""
    kept = {
        "tag": meaning.tag,
        "command": meaning.command,
        "code": meaning.code,
        "description": meaning.description,
    }
    line: dict[str, Any] = {
        "file": file,
        "offset": meaning.offset,
        "length": meaning.length,
        "kind": meaning.kind,
        **{name: _plain(data) for name, data in kept.items() if data is not None},
    }
    if meaning.error_type is not None:
        line["error"] = meaning.error_type
    if meaning.problem is not None:
        line["problem"] = meaning.problem
    typed = [entry for entry in meaning.entries if entry.is_typed]
    if typed:
        line["fields"] = {entry.name: as_plain(entry.value) for entry in typed}
    line["pairs"] = [
        {"key": entry.name, "offset": entry.offset, "value": _plain(entry.value)}
        for entry in meaning.entries
        if not entry.is_typed
    ]
    return json.dumps(line)


def fault_as_json(fault: Fault, file: str) -> str:
    """Write what is wrong with a capture as one line of JSON."""
    line: dict[str, Any] = {
        "file": file,
        "offset": fault.offset,
        "kind": "fault",
        "problem": fault.reason,
        "box": fault.box_offset,
    }
    if fault.key is not None:
        line["key"] = _plain(fault.key)
    if fault.missing is not None:
        line["missing"] = fault.missing
    return json.dumps(line)


def as_plain(value: Any) -> Any:
    """Turn a value that a peer may have nested as deep as it can be read into what JSON has.

    Bytes are a text if UTF-8 has them, else base64; what a model hides stays hidden.
    """
    try:
        return _plain(value)
    except RecursionError:
        return "<nested too deep to be shown>"


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has. Bytes are a text if UTF-8 has them, else base64."""
    match value:
        case None | bool() | enum.Enum():
            return _plain(value.value) if isinstance(value, enum.Enum) else value
        case int() | str():
            return int(value) if isinstance(value, int) else _without_surrogates(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode()}
        case Hidden() | Secret() | SecretStr() | SecretBytes():
            return repr(HIDDEN)
        case BaseModel():
            shown = [name for name, field in type(value).model_fields.items() if field.repr]
            return {name: _plain(getattr(value, name)) for name in shown}
        case list() | tuple() | set() | frozenset():
            return [_plain(element) for element in value]
        case dict():
            return {str(key): _plain(element) for key, element in value.items()}
    if dataclasses.is_dataclass(value):
        shown = [field.name for field in dataclasses.fields(value) if field.repr]
        return {name: _plain(getattr(value, name)) for name in shown}
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return str(value)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
