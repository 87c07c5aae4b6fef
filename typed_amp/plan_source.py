"""The source of a plan's functions.

Rule of this module: straight-line code, with keys and codecs as constants. It is made of field
names and keys alone, which Python itself has taken or quoted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from typed_amp.codecs import (
    BooleanCodec,
    BytesCodec,
    FloatCodec,
    IntegerCodec,
    TextCodec,
)
from typed_amp.columns import ColumnReader
from typed_amp.descriptors import DescriptorCodec, refuse_to_attach, refuse_to_claim
from typed_amp.errors import EncodeError
from typed_amp.rows import RowsCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typed_amp.codecs import Codec
    from typed_amp.plan import Plan

__all__ = [
    "decode_function",
    "encode_function",
    "encode_rows_function",
    "read_rows_function",
]


def encode_function(plan: Plan) -> Callable[..., bytes]:
    """Make `Plan.encode`."""
    names: dict[str, Any] = {"refuse_to_attach": refuse_to_attach}
    for index, field in enumerate(plan.fields):
        names[f"encode_{index}"] = _checked(field.codec)
        if field.large is not None:
            names[f"cut_{index}"] = partial(field.large.encode, field.key)
    return _compiled(plan, "encode", _encode_source(plan), names)


def decode_function(plan: Plan) -> Callable[..., Any]:
    """Make `Plan.decode`."""
    names: dict[str, Any] = {"refuse_to_claim": refuse_to_claim, "validate": plan.validate}
    for index, field in enumerate(plan.fields):
        names[f"decode_{index}"] = field.codec.decode
        if field.large is not None:
            names[f"join_{index}"] = partial(field.large.decode, field.key)
    return _compiled(plan, "decode", _decode_source(plan), names)


def encode_rows_function(plan: Plan) -> Callable[[Iterable[Any]], list[bytes]]:
    """Make `Plan.encode_rows`."""
    names: dict[str, Any] = {"encode": plan.encode}
    for index, field in enumerate(plan.fields):
        names[f"encode_{index}"] = field.codec.encode
    return _compiled(plan, "encode_rows", _encode_rows_source(plan), names)


def read_rows_function(plan: Plan) -> Callable[[bytes], list[dict[str, Any]] | None]:
    """Make `Plan.read_rows`."""
    return ColumnReader(plan.fields, _compiled(plan, "make_rows", _make_rows_source(plan), {})).read


def _compiled(
    plan: Plan, name: str, source: Iterable[str], names: dict[str, Any]
) -> Callable[..., Any]:
    code = compile("\n".join(source), f"<plan of {plan.model.__qualname__}>", "exec")
    names["plan"] = plan
    exec(code, names)  # noqa: S102  # see the rule
    function: Callable[..., Any] = names[name]
    return function


def _encode_source(plan: Plan) -> Iterable[str]:
    # at: the field at work, so that an error can name it.
    in_dict = _has_fields_in_dict(plan)
    form, values = b"%b", ["head"]
    yield "def encode(model, head, attach=refuse_to_attach):"
    yield "    at = 0"
    yield "    try:"
    if in_dict:
        yield "        fields = model.__dict__"
    for index, field in enumerate(plan.fields):
        value = f"fields[{field.name!r}]" if in_dict else f"model.{field.name}"
        encoded = _INLINE_ENCODE.get(type(field.codec), "encode_{index}({value})")
        pair = len(field.key).to_bytes(2, "big") + field.key
        yield f"        at = {index}"
        if field.large is not None:
            # Its pairs are complete already, however many there are.
            yield f"        v{index} = {value}"
            encoded = f"cut_{index}({encoded.format(index=index, value=f'v{index}')})"
            if field.optional:
                encoded += f" if v{index} is not None else b''"
            yield f"        v{index} = {encoded}"
            form += b"%b"
            values.append(f"v{index}")
        elif not field.optional:
            yield f"        v{index} = {encoded.format(index=index, value=value)}"
            yield f"        n{index} = len(v{index}).to_bytes(2, 'big')"
            form += pair.replace(b"%", b"%%") + b"%b%b"
            values += [f"n{index}", f"v{index}"]
        else:
            yield f"        v{index} = {value}"
            yield f"        if v{index} is not None:"
            encoded = encoded.format(index=index, value=f"v{index}")
            yield f"            v{index} = {encoded}"
            yield f"            n{index} = len(v{index}).to_bytes(2, 'big')"
            yield f"            v{index} = b'%b%b%b' % ({pair!r}, n{index}, v{index})"
            yield "        else:"
            yield f"            v{index} = b''"
            form += b"%b"
            values.append(f"v{index}")
    form += b"\0\0"
    yield f"        return {form!r} % ({', '.join(values)},)"
    yield "    except Exception as error:"
    yield "        failure = plan.encode_failure(model, at, error)"
    yield "        try:"
    yield "            raise failure from failure.__cause__"
    yield "        finally:"
    yield "            del failure  # which holds its traceback, and that this frame"


def _encode_rows_source(plan: Plan) -> Iterable[str]:
    in_dict = _has_fields_in_dict(plan)
    form, values = b"", []
    yield "def encode_rows(models):"
    yield "    rows = []"
    yield "    for model in models:"
    yield "        try:"
    if in_dict:
        yield "            fields = model.__dict__"
    for index, field in enumerate(plan.fields):
        value = f"fields[{field.name!r}]" if in_dict else f"model.{field.name}"
        expression = _INLINE_ROW_ENCODE.get(type(field.codec), "encode_{index}(v)")
        pair = (b"\0%c%b\0" % (len(field.key), field.key)).replace(b"%", b"%%") + b"%c%b"
        yield f"            v = {value}"
        if not field.optional:
            yield f"            v{index} = {expression.format(index=index)}"
            form += pair
            values += [f"len(v{index})", f"v{index}"]
        else:
            yield "            if v is None:"
            yield f"                v{index} = b''"
            yield "            else:"
            yield f"                v = {expression.format(index=index)}"
            yield f"                v{index} = {pair!r} % (len(v), v)"
            form += b"%b"
            values.append(f"v{index}")
    form += b"\0\0"
    yield f"            rows.append({form!r} % ({', '.join(values)},))"
    yield "        except Exception:  # a value of more than 255 bytes, or what can't be written"
    yield "            rows.append(encode(model, b''))"
    yield "    return rows"


def _decode_source(plan: Plan) -> Iterable[str]:
    yield "def decode(box, claim=refuse_to_claim):"
    yield "    at = 0"
    yield "    values = {}"
    yield "    try:"
    if _forbids_extra(plan.model):
        yield "        plan.refuse_unknown_keys(box)"
    for index, field in enumerate(plan.fields):
        decoded = _INLINE_DECODE.get(type(field.codec), "decode_{index}(data)")
        if field.large is None:
            yield f"        data = box.get({field.key!r})"
        else:
            yield f"        at = {index}"
            yield f"        data = join_{index}(box)"
            if field.large.zero_based and not (field.optional or field.has_default):
                yield "        if data is None:"
                yield "            data = b''"
        yield "        if data is not None:"
        if field.large is None:
            yield f"            at = {index}"
        yield f"            values[{field.name!r}] = {decoded.format(index=index)}"
        if field.optional and not field.has_default:
            yield "        else:"
            yield f"            values[{field.name!r}] = None"
    yield f"        at = {len(plan.fields)}"
    yield "        return validate(values)"
    yield "    except Exception as error:"
    yield "        failure = plan.decode_failure(at, error)"
    yield "        try:"
    yield "            raise failure from failure.__cause__"
    yield "        finally:"
    yield "            del failure  # which holds its traceback, and that this frame"


def _make_rows_source(plan: Plan) -> Iterable[str]:
    values = [f"v{index}" for index in range(len(plan.fields))]
    pairs = [f"{field.name!r}: {value}" for field, value in zip(plan.fields, values, strict=True)]
    yield "def make_rows(rows):"
    yield f"    return [{{{', '.join(pairs)}}} for {', '.join(values)}, in rows]"


def _has_fields_in_dict(plan: Plan) -> bool:
    return issubclass(plan.model, (BaseModel, BaseException))


def _checked(codec: Codec[Any]) -> Callable[[Any], bytes]:
    """Hold a codec of the user's own to its promise."""
    if type(codec).__module__.startswith("typed_amp."):
        return codec.encode

    def encode(value: Any) -> bytes:
        data: object = codec.encode(value)
        if not isinstance(data, bytes):
            raise EncodeError(
                f"{type(codec).__name__}.encode returned {type(data).__name__}, not bytes"
            )
        return data

    return encode


_INLINE_ENCODE: Final = {
    BytesCodec: "{value} if type({value}) is bytes else encode_{index}({value})",
    TextCodec: "str.encode({value})",
    DescriptorCodec: "encode_{index}(attach({value}))",
    RowsCodec: "encode_{index}({value}, attach)",
}
"""Codecs that are one expression, spared a call: it does what the codec's method does. And those
that need more than the value."""

_INLINE_ROW_ENCODE: Final = {
    IntegerCodec: "b'%d' % v if type(v) is int else encode_{index}(v)",
    FloatCodec: "repr(v).encode() if type(v) is float else encode_{index}(v)",
    BooleanCodec: "b'True' if v is True else b'False' if v is False else encode_{index}(v)",
    BytesCodec: "v if type(v) is bytes else encode_{index}(v)",
    TextCodec: "str.encode(v)",
}

_INLINE_DECODE: Final = {
    BytesCodec: "data",
    TextCodec: "data.decode()",
    IntegerCodec: "int(data) if data.isdigit() and len(data) < 640 else decode_{index}(data)",
    DescriptorCodec: "claim(decode_{index}(data))",
    RowsCodec: "decode_{index}(data, claim)",
}


def _forbids_extra(model: type) -> bool:
    is_pydantic = issubclass(model, BaseModel)
    config = getattr(model, "model_config" if is_pydantic else "__pydantic_config__", {})
    return bool(config.get("extra") == "forbid")
