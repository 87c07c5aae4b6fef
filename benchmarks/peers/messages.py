"""The messages of both peers that speak gRPC, made when the program starts.

Rule of this module: it says what a `.proto` file would say. The classes are the same that `protoc`
makes the generated code build, by protobuf's own C code, and no compiler is needed to have them.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from benchmarks import work

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "benchmark.Works"
FIELD: Any = descriptor_pb2.FieldDescriptorProto

TYPES: dict[str, Any] = {
    "int64": FIELD.TYPE_INT64,
    "string": FIELD.TYPE_STRING,
    "bytes": FIELD.TYPE_BYTES,
    "double": FIELD.TYPE_DOUBLE,
    "bool": FIELD.TYPE_BOOL,
}

MESSAGES = {
    "Repeat": {"text": "string", "times": "int64"},
    "RepeatResult": {"text": "string"},
    "Value": {"data": "bytes"},
    "ValueResult": {"data": "bytes"},
    "Numbers": {"numbers": "repeated int64"},
    "NumbersResult": {"numbers": "repeated int64"},
    "Row": {
        "number": "int64",
        "name": "string",
        "city": "string",
        "quantity": "int64",
        "price": "double",
        "is_active": "bool",
    },
    "Rows": {"first": "int64", "count": "int64"},
    "RowsResult": {"rows": "repeated Row"},
    "Find": {"name": "string"},
    "FindResult": {},
}


def define() -> dict[str, Any]:
    """Make the classes of the messages."""
    file: Any = descriptor_pb2.FileDescriptorProto(
        name="benchmark.proto", package="benchmark", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, declared) in enumerate(fields.items(), 1):
            repeated, _, kind = declared.rpartition(" ")
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            defined = message.field.add(name=field, number=number, label=label)
            if kind in TYPES:
                defined.type = TYPES[kind]
            else:
                defined.type = FIELD.TYPE_MESSAGE
                defined.type_name = f".benchmark.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"benchmark.{name}"))
        for name in MESSAGES
    }


CLASSES = define()

METHODS = {
    name: (f"/{SERVICE}/{name}", CLASSES[name], CLASSES[f"{name}Result"])
    for name in ("Repeat", "Value", "Numbers", "Rows", "Find")
}
"""Each method's path, and the classes of its request and response."""


class OutOfRangeError(Exception):
    """What protobuf can't check: a number is not in its range."""


def repeat(request: Any) -> Any:
    if not 0 <= request.times <= work.MAX_TIMES:
        raise OutOfRangeError("times")
    return CLASSES["RepeatResult"](text=request.text * request.times)


def value(request: Any) -> Any:
    return CLASSES["ValueResult"](data=request.data)


def numbers(request: Any) -> Any:
    return CLASSES["NumbersResult"](numbers=request.numbers[::-1])


def rows(request: Any) -> Any:
    if not 0 <= request.count <= work.MAX_COUNT:
        raise OutOfRangeError("count")
    found = map(work.row, range(request.first, request.first + request.count))
    make = CLASSES["Row"]
    return CLASSES["RowsResult"](rows=[make(**row._asdict()) for row in found])


ANSWERS = {"Repeat": repeat, "Value": value, "Numbers": numbers, "Rows": rows}
"""What answers each method; `Find` fails, as each library has it."""

REQUESTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "repeat": ("Repeat", lambda: CLASSES["Repeat"](text=work.TEXT, times=work.TIMES)),
    "value": ("Value", lambda: CLASSES["Value"](data=work.VALUE)),
    "list": ("Numbers", lambda: CLASSES["Numbers"](numbers=work.NUMBERS)),
    "rows": ("Rows", lambda: CLASSES["Rows"](first=work.FIRST, count=work.COUNT)),
    "error": ("Find", lambda: CLASSES["Find"](name=work.MISSING)),
}
"""The method of each work, and what makes its request."""

LAST = CLASSES["Row"](**work.LAST._asdict())


def check_repeat(response: Any) -> None:
    assert response.text == work.REPEATED


def check_value(response: Any) -> None:
    assert response.data == work.VALUE


def check_list(response: Any) -> None:
    assert list(response.numbers) == work.REVERSED


def check_rows(response: Any) -> None:
    assert len(response.rows) == work.COUNT
    assert response.rows[-1] == LAST


CHECKS = {"repeat": check_repeat, "value": check_value, "list": check_list, "rows": check_rows}
