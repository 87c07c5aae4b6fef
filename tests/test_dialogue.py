from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)

from tests import strategies
from typed_amp.box import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    BoxReader,
    encode_box,
    encode_pairs,
)
from typed_amp.dialogue import Answered, Asked, Dialogue
from typed_amp.errors import ProtocolViolationError


def asked_by(dialogue: Dialogue[str], box: Box) -> Asked:
    event = dialogue.receive(box)
    assert isinstance(event, Asked)
    return event


# -- What a box means ----------------------------------------------------------------------------


def test_command_with_a_tag_is_an_ask() -> None:
    dialogue: Dialogue[str] = Dialogue()
    box = {ASK: b"7", COMMAND: b"Sum", b"a": b"1"}
    asked = asked_by(dialogue, box)
    assert (asked.name, asked.tag, asked.box) == (b"Sum", b"7", box)
    assert dialogue.unanswered == 1


def test_command_without_a_tag_wants_no_answer() -> None:
    dialogue: Dialogue[str] = Dialogue()
    asked = asked_by(dialogue, {COMMAND: b"Log", b"line": b"hello"})
    assert (asked.name, asked.tag, dialogue.unanswered) == (b"Log", None, 0)
    assert dialogue.answer_head(asked) == b""
    assert not dialogue.answered(asked)
    assert dialogue.error(asked, b"NO", "no") is None
    assert dialogue.unanswered == 0


@pytest.mark.parametrize("key", [ANSWER, ERROR])
def test_answer_goes_to_whoever_asked(key: bytes) -> None:
    dialogue: Dialogue[str] = Dialogue()
    dialogue.ask(b"1", "first")
    dialogue.ask(b"2", "second")
    box = {key: b"2", b"total": b"3"}
    assert dialogue.receive(box) == Answered("second", box)
    assert (dialogue.pending, dialogue.strays) == (1, 0)


@pytest.mark.parametrize("key", [ANSWER, ERROR])
def test_answer_that_nobody_waits_for_is_counted_and_ignored(key: bytes) -> None:
    dialogue: Dialogue[str] = Dialogue()
    dialogue.ask(b"1", "asked")
    dialogue.receive({key: b"1"})
    dialogue.ask(b"2", "given up")
    dialogue.abandon(b"2")
    for stray in (b"2", b"1", b"never asked", b""):
        assert dialogue.receive({key: stray}) is None
    assert (dialogue.late, dialogue.strays, dialogue.pending) == (1, 3, 0)


def test_answer_that_names_a_command_is_an_answer() -> None:
    dialogue: Dialogue[str] = Dialogue()
    dialogue.ask(b"1", "asked")
    box = {COMMAND: b"Sum", ANSWER: b"1"}
    assert dialogue.receive(box) == Answered("asked", box)


@pytest.mark.parametrize("box", [{b"key": b"value"}, {ASK: b"1"}, {ERROR_CODE: b"NO"}])
def test_box_of_no_kind_is_a_violation(box: Box) -> None:
    dialogue: Dialogue[str] = Dialogue()
    with pytest.raises(ProtocolViolationError) as caught:
        dialogue.receive(box)
    # It knows boxes, not bytes: it must not claim to know at which byte it was.
    assert str(caught.value) == "a box with none of _command, _answer and _error"


def test_tags_are_counted_in_hexadecimal() -> None:
    dialogue: Dialogue[str] = Dialogue()
    tags = [dialogue.new_tag() for _ in range(300)]
    assert (tags[0], tags[9], tags[15], tags[-1]) == (b"1", b"a", b"10", b"12c")
    assert len(set(tags)) == 300


def test_abandoning_twice_does_nothing() -> None:
    dialogue: Dialogue[str] = Dialogue()
    dialogue.ask(b"1", "asked")
    dialogue.abandon(b"1")
    dialogue.abandon(b"1")
    assert dialogue.pending == 0


# -- Answering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [b"", b"1f", b"\0\xff opaque", b"t" * 65_535])
def test_answer_carries_the_tag_as_it_came(tag: bytes) -> None:
    dialogue: Dialogue[str] = Dialogue()
    asked = asked_by(dialogue, {ASK: tag, COMMAND: b"Sum"})
    data = dialogue.answer_head(asked) + encode_pairs({b"total": b"3"}) + b"\0\0"
    assert dialogue.answered(asked)
    assert data == encode_box({ANSWER: tag, b"total": b"3"})
    assert dialogue.unanswered == 0


def test_error_carries_code_description_and_fields() -> None:
    dialogue: Dialogue[str] = Dialogue()
    asked = asked_by(dialogue, {ASK: b"1", COMMAND: b"Buy"})
    fields = encode_pairs({b"sku": b"A1"})
    box = {ERROR: b"1", ERROR_CODE: b"NO_SKU", ERROR_DESCRIPTION: "größe".encode(), b"sku": b"A1"}
    assert dialogue.error(asked, b"NO_SKU", "größe", fields) == encode_box(box)
    assert dialogue.unanswered == 0


def test_ask_is_answered_once() -> None:
    dialogue: Dialogue[str] = Dialogue()
    first = asked_by(dialogue, {ASK: b"1", COMMAND: b"Sum"})
    second = asked_by(dialogue, {ASK: b"2", COMMAND: b"Sum"})
    assert dialogue.answered(first)
    assert dialogue.error(second, b"NO", "no") is not None
    for asked in (first, second):
        assert not dialogue.answered(asked)
        assert dialogue.error(asked, b"NO", "no") is None
    assert dialogue.unanswered == 0


def test_head_alone_answers_nothing() -> None:
    # An answer that turns out unwritable can still be answered with an error.
    dialogue: Dialogue[str] = Dialogue()
    asked = asked_by(dialogue, {ASK: b"1", COMMAND: b"Sum"})
    dialogue.answer_head(asked)
    assert dialogue.unanswered == 1
    assert dialogue.error(asked, b"UNKNOWN", "Unknown Error") is not None


def description_sent(description: str) -> bytes:
    dialogue: Dialogue[str] = Dialogue()
    asked = asked_by(dialogue, {ASK: b"1", COMMAND: b"Buy"})
    data = dialogue.error(asked, b"NO", description)
    assert data is not None
    (box,) = BoxReader().feed(data)
    return box[ERROR_DESCRIPTION]


@pytest.mark.parametrize(
    ("description", "length"),
    [
        ("x" * 65_535, 65_535),
        ("x" * 65_536, 65_535),
        ("é" * 32_767 + "x", 65_535),
        ("é" * 40_000, 65_534),
        ("€" * 21_845, 65_535),
        ("x" + "€" * 30_000, 65_533),
        ("😀" * 20_000, 65_532),
    ],
)
def test_description_is_cut_between_characters(description: str, length: int) -> None:
    sent = description_sent(description)
    assert description.startswith(sent.decode())
    assert len(sent) == length


@settings(max_examples=30)
@given(st.text(max_size=8), st.integers(65_520, 65_540))
def test_description_of_any_text_can_be_sent(text: str, length: int) -> None:
    sent = description_sent("x" * length + text).decode()
    assert ("x" * length + text).startswith(sent)
    assert len(sent.encode()) > 65_535 - 4 or len(sent) == length + len(text)


def test_description_with_half_a_surrogate_pair_is_escaped() -> None:
    assert description_sent("a\udcffb") == b"a\\udcffb"


# -- The end -------------------------------------------------------------------------------------


def test_end_gives_back_everybody_who_waits_once() -> None:
    dialogue: Dialogue[str] = Dialogue()
    for tag, waiter in ((b"1", "first"), (b"2", "second"), (b"3", "third")):
        dialogue.ask(tag, waiter)
    dialogue.receive({ANSWER: b"1"})
    assert set(dialogue.end()) == {"second", "third"}
    assert list(dialogue.end()) == []
    assert dialogue.receive({ANSWER: b"2"}) is None


def test_nothing_is_pending_at_the_end() -> None:
    dialogue: Dialogue[str] = Dialogue()
    dialogue.ask(b"0", "aside", is_aside=True)
    dialogue.ask(b"1", "call")
    assert sorted(dialogue.end()) == ["aside", "call"]
    assert (dialogue.pending, dialogue.expected) == (0, 0)


def test_waiter_may_give_up_another_while_all_are_given_back() -> None:
    dialogue: Dialogue[bytes] = Dialogue()
    for tag in (b"1", b"2"):
        dialogue.ask(tag, tag)
    given_back = []
    for waiter in dialogue.end():
        given_back.append(waiter)
        dialogue.abandon(b"1")
        dialogue.abandon(b"2")
    assert len(given_back) == 1


# -- Two of them ---------------------------------------------------------------------------------


@dataclass
class Ask:
    """One ask, as whoever made it remembers it."""

    number: int
    tag: bytes
    question: bytes
    waits: bool = True


@dataclass(eq=False)
class Side:
    """One end of a wire: what it must do, beside the dialogue that does it."""

    dialogue: Dialogue[int] = field(default_factory=lambda: Dialogue())
    reader: BoxReader = field(default_factory=BoxReader)
    wire: bytearray = field(default_factory=bytearray)
    """What this side has written and the other not yet read."""
    asks: dict[int, Ask] = field(default_factory=dict)
    open: list[Asked] = field(default_factory=list)
    """What the other side asked and this one not yet answered."""
    done: list[Asked] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    to_be_told: list[bytes] = field(default_factory=list)
    strays: int = 0


SIDES = st.integers(0, 1)
TEXTS = st.binary(max_size=30)


class TwoDialogues(RuleBasedStateMachine):
    """Two dialogues on one wire that cuts at will: whatever happens, both tell the same story."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = Side(), Side()
        self.asks_made = 0

    # An answer says what was asked, so that one that goes to the wrong ask is noticed.

    @rule(which=SIDES, question=TEXTS)
    def ask(self, which: int, question: bytes) -> None:
        side = self.sides[which]
        self.asks_made += 1
        tag = side.dialogue.new_tag()
        side.dialogue.ask(tag, self.asks_made)
        side.asks[self.asks_made] = Ask(self.asks_made, tag, question)
        side.wire += encode_box({ASK: tag, COMMAND: b"Do", b"question": question})

    @rule(which=SIDES, line=TEXTS)
    def tell(self, which: int, line: bytes) -> None:
        self.sides[which].wire += encode_box({COMMAND: b"Log", b"line": line})
        self.sides[1 - which].to_be_told.append(line)

    @rule(which=SIDES, data=st.data())
    def answer(self, which: int, data: st.DataObject) -> None:
        side = self.sides[which]
        if not side.open:
            return
        asked = side.open.pop(data.draw(st.integers(0, len(side.open) - 1)))
        head = side.dialogue.answer_head(asked)
        assert side.dialogue.answered(asked)
        side.wire += head + encode_pairs({b"question": asked.box[b"question"]}) + b"\0\0"
        side.done.append(asked)

    @rule(which=SIDES, data=st.data(), description=st.text(max_size=9), has_fields=st.booleans())
    def fail(self, which: int, data: st.DataObject, description: str, has_fields: bool) -> None:
        side = self.sides[which]
        if not side.open:
            return
        asked = side.open.pop(data.draw(st.integers(0, len(side.open) - 1)))
        question = {b"question": asked.box[b"question"]}
        fields = encode_pairs(question) if has_fields else b""
        box = side.dialogue.error(asked, b"NO", description, fields)
        assert box is not None
        side.wire += box
        side.done.append(asked)

    @rule(which=SIDES)
    def answer_again(self, which: int) -> None:
        side = self.sides[which]
        for asked in side.done:
            assert not side.dialogue.answered(asked)
            assert side.dialogue.error(asked, b"NO", "again") is None

    @rule(which=SIDES, data=st.data())
    def abandon(self, which: int, data: st.DataObject) -> None:
        side = self.sides[which]
        if not side.asks:
            return
        ask = side.asks[data.draw(st.sampled_from(sorted(side.asks)))]
        side.dialogue.abandon(ask.tag)
        ask.waits = False

    @rule(which=SIDES, key=st.sampled_from([ANSWER, ERROR]))
    def answer_what_was_never_asked(self, which: int, key: bytes) -> None:
        self.sides[which].wire += encode_box({key: b"never asked"})

    @rule(which=SIDES, data=st.data())
    def deliver(self, which: int, data: st.DataObject) -> None:
        wire = self.sides[which].wire
        count = data.draw(st.integers(0, len(wire)))
        piece = bytes(wire[:count])
        del wire[:count]
        for part in data.draw(strategies.cuts(piece)):
            for box in self.sides[1 - which].reader.feed(part):
                self.receive(self.sides[1 - which], box)

    def receive(self, side: Side, box: Box) -> None:
        event = side.dialogue.receive(box)
        if isinstance(event, Asked):
            if event.tag is None:
                side.told.append(event.box[b"line"])
            else:
                side.open.append(event)
        elif isinstance(event, Answered):
            ask = side.asks.pop(event.waiter)  # once: a second answer would not find it
            assert ask.waits
            assert event.box is box
            assert box.get(b"question", ask.question) == ask.question
            assert (ERROR in box) == (box.get(ERROR_CODE) == b"NO")
        else:
            side.strays += 1
            tag = box.get(ANSWER, box.get(ERROR))
            assert tag not in {ask.tag for ask in side.asks.values() if ask.waits}

    @rule()
    def lose_the_connection(self) -> None:
        for side in self.sides:
            waiting = {ask.number for ask in side.asks.values() if ask.waits}
            given_back = list(side.dialogue.end())
            assert sorted(given_back) == sorted(waiting)
            assert list(side.dialogue.end()) == []
            assert side.dialogue.pending == 0
        self.sides = Side(), Side()

    @invariant()
    def counts_are_right(self) -> None:
        for side in self.sides:
            assert side.dialogue.pending == sum(ask.waits for ask in side.asks.values())
            assert side.dialogue.unanswered == len(side.open)
            assert side.dialogue.late + side.dialogue.strays == side.strays

    def teardown(self) -> None:
        """Let all arrive and be answered: then nobody waits, on either side."""
        while any(side.wire or side.open for side in self.sides):
            for side, other in (self.sides, self.sides[::-1]):
                data = bytes(side.wire)
                side.wire.clear()
                for box in other.reader.feed(data):
                    self.receive(other, box)
                for asked in other.open:
                    other.wire += other.dialogue.answer_head(asked) + b"\0\0"
                    assert other.dialogue.answered(asked)
                other.open.clear()
        for side in self.sides:
            assert side.told == side.to_be_told
            assert (side.dialogue.pending, side.dialogue.unanswered) == (0, 0)
            assert not [ask for ask in side.asks.values() if ask.waits]


TestTwoDialogues = TwoDialogues.TestCase
TestTwoDialogues.settings = settings(max_examples=100, stateful_step_count=40)
