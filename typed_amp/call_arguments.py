"""A command made of words such as `text=abc times=3 numbers=[1,2] data=@file`.

Rule of this module: what a word means the model decides. A text that a field takes as it is stays
one; only what it doesn't take is read as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from typed_amp.box import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typed_amp.command import Command

__all__ = ["ArgumentTrouble", "command_from"]


class ArgumentTrouble(Exception):  # noqa: N818 - it is the user's, not the program's
    """The words are not what the command needs; the text has a line for each that is wrong."""


def command_from(command: type[Command[Any]], words: Iterable[str]) -> Command[Any]:
    """Make a command.

    Args:
        command: its class.
        words: `name=value`, where the name is that of a field, an alias of it, or its key on the
            wire. `@file` stands for what is in a file, `@-` for standard input, and `@@` for an @
            at the beginning.

    Raises:
        ArgumentTrouble: a word is wrong, one is missing, or a file can't be read.
    """
    signature = command.__amp_signature__()
    if signature.has_attachments:
        raise ArgumentTrouble(f"{signature.title} takes open files, which a shell can't send")
    texts = _texts_by_field(command, words)
    try:
        return _validated(command, texts)
    except ValidationError as error:
        values, notes = _values(texts, {str(detail["loc"][0]) for detail in _details(error)})
        if values == texts:
            raise ArgumentTrouble(_told(error, notes)) from error
    try:
        return _validated(command, values)
    except ValidationError as error:
        raise ArgumentTrouble(_told(error, notes)) from error


def _validated(command: type[Command[Any]], values: Mapping[str, Any]) -> Command[Any]:
    return command.model_validate(dict(values), by_name=True, by_alias=True)


def _texts_by_field(command: type[Command[Any]], words: Iterable[str]) -> dict[str, str | bytes]:
    names = _names(command)
    texts: dict[str, str | bytes] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ArgumentTrouble(f"{_plain(word)}: say name=value")
        field = names.get(name)
        if field is None:
            known = ", ".join(command.model_fields) or "none"
            raise ArgumentTrouble(
                f"{_plain(name)}: {command.__name__} has no such field; its fields: {known}"
            )
        if field in texts:
            raise ArgumentTrouble(f"{name}: given twice")
        texts[field] = _content(name, text)
    return texts


def _names(command: type[Command[Any]]) -> dict[str, str]:
    """Give all names that fields go by; their own first."""
    names = {
        field.key.decode("utf-8", "backslashreplace"): field.name
        for field in command.__amp_signature__().arguments.fields
    }
    for name, field in command.model_fields.items():
        if isinstance(field.validation_alias, str):
            names[field.validation_alias] = name
    return names | {name: name for name in command.model_fields}


def _content(name: str, text: str) -> str | bytes:
    if not text.startswith("@"):
        return text
    if text.startswith("@@"):
        return text[1:]
    try:
        data = sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
    except (OSError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is closed"
        raise ArgumentTrouble(f"{name}: can't read {_plain(text[1:])}: {reason}") from error
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _values(
    texts: Mapping[str, str | bytes], refused: set[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the texts that were refused as JSON, where they are that.

    Returns:
        The values, and what is wrong with a text that looks like JSON and is none.
    """
    values: dict[str, Any] = dict(texts)
    notes: dict[str, str] = {}
    for name in refused & texts.keys():
        try:
            values[name] = json.loads(texts[name])
        except (ValueError, RecursionError) as error:
            start = texts[name][:1]
            if start in ("[", "{", b"[", b"{"):
                notes[name] = f"not JSON: {' '.join(str(error).split())}"
    return values, notes


def _details(error: ValidationError) -> list[Any]:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return [detail for detail in details if detail["loc"]]


def _told(error: ValidationError, notes: Mapping[str, str]) -> str:
    """Say what is wrong, with the names of fields, and never the values: some are secrets."""
    lines: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        location = detail["loc"]
        name = str(location[0]) if location else ""
        if name in notes:
            lines[f"{name}: {notes[name]}"] = None
        elif detail["type"] == "missing" and len(location) == 1:
            lines[f"{name}: missing; say {name}=value"] = None
        else:
            where = ".".join(map(str, location))
            lines[f"{where}: {detail['msg']}" if where else detail["msg"]] = None
    return "\n".join(lines)


def _plain(text: str) -> str:
    return printable(text.encode("utf-8", "surrogateescape"))
