from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from tests.peers import joined, knows_all, raw_client_of, until
from typed_amp import Command, InvalidArgumentsError, Router
from typed_amp.box import MAX_VALUE_LENGTH
from typed_amp.details import ErrorDetail, decode_details, encode_details

steps = st.one_of(st.text(max_size=5), st.integers(0, 10**6))
details = st.builds(
    lambda kind, loc, message: ErrorDetail(type=kind, loc=tuple(loc), msg=message),
    st.text(max_size=10),
    st.lists(steps, max_size=4),
    st.text(max_size=20),
)


@given(st.lists(details, max_size=5))
def test_details_come_as_they_went(errors: list[ErrorDetail]) -> None:
    assert decode_details(encode_details(errors)) == errors


@given(
    st.binary(max_size=60) | st.sampled_from([b"1", b"[1]", b'[{"loc":3}]', b"null", b"[" * 5000])
)
def test_whatever_a_peer_says_makes_no_trouble(data: bytes) -> None:
    assert isinstance(decode_details(data), list)


def test_of_too_many_the_first_travel() -> None:
    errors = [ErrorDetail(type="t", loc=(index,), msg="m" * 100) for index in range(2_000)]
    data = encode_details(errors)
    assert len(data) <= MAX_VALUE_LENGTH
    told = decode_details(data)
    assert told == errors[: len(told)]
    assert len(told) > 300


class Item(BaseModel):
    sku: str = Field(min_length=2)
    count: int = Field(gt=0)


class Order(Command):
    items: list[Item]
    total: int = 0


def order_router() -> Router:
    router = Router()

    @router.responder(Order)
    async def order(command: Order) -> None:
        raise AssertionError

    return router


async def test_the_caller_learns_of_each_field_and_never_the_value() -> None:
    async with joined(order_router()) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        wrong = [Item(sku="ok", count=1), Item.model_construct(sku="X", count=-7)]
        with pytest.raises(InvalidArgumentsError) as caught:
            await client.call(Order.model_construct(items=wrong, total=0))
    errors = caught.value.errors
    assert [(error["type"], error["loc"]) for error in errors] == [
        ("string_too_short", ("items", 1, "sku")),
        ("greater_than", ("items", 1, "count")),
    ]
    assert errors[1]["msg"] == "Input should be greater than 0"
    assert "-7" not in str(errors)


async def test_the_caller_learns_of_all_rows_within_reason() -> None:
    async with joined(order_router()) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        items = [Item.model_construct(sku="ok", count=1 - row % 2) for row in range(1_000)]
        with pytest.raises(InvalidArgumentsError) as caught:
            await client.call(Order.model_construct(items=items, total=0))
    places = [error["loc"] for error in caught.value.errors]
    assert places == [("items", row, "count") for row in range(1, 41, 2)]


@pytest.mark.parametrize(
    ("box", "error"),
    [
        ({b"total": b"x"}, {"type": "missing", "loc": ("items",), "msg": "Field required"}),
    ],
)
async def test_what_can_not_be_read_is_told_too(
    box: dict[bytes, bytes], error: ErrorDetail
) -> None:
    async with joined(order_router()) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        with pytest.raises(InvalidArgumentsError) as caught:
            await client.call_box("Order", {b"items": b"", **box})
        assert caught.value.errors == [
            {"type": "undecodable", "loc": ("total",), "msg": "not an integer"}
        ]
        with pytest.raises(InvalidArgumentsError) as caught:
            await client.call_box("Order", {b"total": b"1"})
        assert caught.value.errors == [error]


async def test_a_plain_peer_is_told_nothing_more() -> None:
    async with raw_client_of(order_router()) as (peer, _):
        refused = await peer.ask({b"_ask": b"1", b"_command": b"Order"})
        assert set(refused) == {b"_error", b"_error_code", b"_error_description"}
    assert InvalidArgumentsError("INVALID_ARGUMENTS", "no").errors == []
