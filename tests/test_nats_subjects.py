from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from typed_amp import TooLongError
from typed_amp.nats_subjects import check_names, endpoint_name, subject_of

names = st.binary(min_size=1, max_size=40)


@given(names, names)
def test_each_name_has_a_subject_of_its_own(name: bytes, other: bytes) -> None:
    subject = subject_of("shop", name)
    assert re.fullmatch(r"shop\.[A-Za-z0-9_~%-]+", subject)
    assert (subject == subject_of("shop", other)) == (name == other)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", endpoint_name(name))


def test_names_of_commands_are_themselves() -> None:
    assert subject_of("shop", b"Move-file_2") == "shop.Move-file_2"
    assert subject_of("shop", b"a.b *>") == "shop.a%2Eb%20%2A%3E"
    assert endpoint_name(b"a.b") == "a_b"


def test_name_that_is_too_long() -> None:
    with pytest.raises(TooLongError, match="shorter name"):
        subject_of("shop", b"x" * 508)
    assert len(subject_of("shop", b"x" * 507)) == 512


@pytest.mark.parametrize("service", ["", "a.b", "a b", "é", "a*", ">"])
def test_names_that_nats_does_not_allow(service: str) -> None:
    with pytest.raises(ValueError, match="name of a service"):
        check_names(service)
