"""Any bytes, sent to a served connection: each ask is answered once, and nobody else notices.

Nothing may come out: no exception, no error in the log but those of the responder that fails, no
task, no timer and no ask that is left. Afterwards another connection is served as before.

An ask is answered with `CANCELLED`, `TIMEOUT`, `BUSY` and `CLOSING` only where there is a reason,
and what was given up long before its end isn't carried out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from fuzz.bench import LONG, TRANSITIONS, Conditions, bench, joined, read, send
from typed_amp import Box, DecodeError
from typed_amp.built_in import Capabilities

__all__ = ["check"]

_ENDINGS = {b"Close", b"Buy"}


def check(data: bytes) -> None:
    """Send the bytes behind the first two, which say how, and see what comes back."""
    bench().run(_serve(Conditions(data), data[2:]))


async def _serve(conditions: Conditions, stream: bytes) -> None:
    router = bench().hooked_router if conditions.is_special else bench().router
    server = conditions.connection(router, is_server=True)
    async with joined(conditions, server) as (theirs, peer):
        async for _ in send(conditions, stream, theirs):
            pass
        if conditions.is_patient:
            await asyncio.sleep(LONG * LONG)
        if conditions.is_ending:
            server.close()
            await asyncio.sleep(LONG)
        theirs.close()
    expected = _Expected(conditions, *read(stream))
    expected.check(read(bytes(peer.data))[0])


@dataclass
class _Ask:
    """What is known of the asks with one tag.

    Attributes:
        name: the command of the last.
        count: how many there are.
        is_given_up: whether the peer gave up one of them.
        has_deadline: whether one has.
        is_urgent: whether it ends long before `Hold` does by itself.
    """

    name: bytes = b""
    count: int = 0
    is_given_up: bool = False
    has_deadline: bool = False
    is_urgent: bool = False


class _Expected:
    """What a peer may be answered.

    Args:
        conditions: of the connection.
        boxes: what the peer has sent.
        is_violated: whether something else is behind them.
    """

    def __init__(self, conditions: Conditions, boxes: list[Box], is_violated: bool) -> None:
        self._conditions = conditions
        self._asks: dict[bytes, _Ask] = {}
        self._may_close = is_violated or conditions.is_watched or conditions.is_ending
        self._has_transition = False
        self._has_ending = False
        self._has_deadlines = False
        self._has_details = False
        for box in boxes:
            if b"_answer" in box or b"_error" in box:
                continue
            if b"_command" not in box:
                self._may_close = True
                break
            self._read(box, box[b"_command"])

    def _read(self, box: Box, name: bytes) -> None:
        self._has_ending |= name in _ENDINGS
        self._has_transition |= name in TRANSITIONS
        if self._conditions.has_extensions:
            if name == b"typed-amp.capabilities":
                self._know(box)
            elif name == b"typed-amp.cancel" and box.get(b"ask") in self._asks:
                self._asks[box[b"ask"]].is_given_up = True
        if b"_ask" in box:
            ask = self._asks.setdefault(box[b"_ask"], _Ask())
            ask.name = name
            ask.count += 1
            if self._has_deadlines and b"_deadline" in box:
                milliseconds = box[b"_deadline"]
                ask.has_deadline = True
                ask.is_urgent = milliseconds.isdigit() and len(milliseconds) <= 4

    def _know(self, box: Box) -> None:
        try:
            features = Capabilities.__amp_signature__().arguments.decode(box).features
        except DecodeError:
            return
        self._has_deadlines = "deadline" in features
        self._has_details |= "details" in features

    def check(self, received: list[Box]) -> None:
        answers = [box for box in received if b"_command" not in box]
        asked = Counter({tag: ask.count for tag, ask in self._asks.items()})
        answered = Counter(box.get(b"_answer", box.get(b"_error", b"")) for box in answers)
        assert answered <= asked, (asked, answered)
        conditions = self._conditions
        # A peer that doesn't read may lose what it was sent last.
        is_certain = conditions.is_patient and not (
            conditions.is_watched
            or self._has_ending
            or self._has_transition
            or (self._may_close and conditions.is_slow)
        )
        if is_certain:
            assert answered == asked, (asked, answered)
        for box in answers:
            if b"_answer" in box:
                self._check_answer(self._asks[box[b"_answer"]])
            else:
                self._check_error(self._asks[box[b"_error"]], box)

    def _check_answer(self, ask: _Ask) -> None:
        # With small limits what would have ended it may not have been read in time.
        if ask.name == b"Hold" and ask.count == 1 and not self._conditions.is_tight:
            assert not (ask.is_given_up or ask.is_urgent), ask

    def _check_error(self, ask: _Ask, box: Box) -> None:
        code = box[b"_error_code"]
        may_close = self._may_close or self._has_ending or not self._conditions.is_patient
        match code:
            case b"CANCELLED":
                assert ask.is_given_up or may_close, ask
            case b"TIMEOUT":
                assert ask.has_deadline, ask
            case b"BUSY":
                assert self._conditions.is_tight, ask
            case b"CLOSING":
                assert may_close, ask
            case _:
                pass
        if b"_error_details" in box:
            assert self._has_details and code == b"INVALID_ARGUMENTS", box
