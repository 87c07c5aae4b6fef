"""Which of several connections is chosen, whatever happened before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from typed_amp.balancing import BALANCES, Balance, Chooser

balances = st.sampled_from(BALANCES)


@dataclass(eq=False)
class Server:
    calls: int = 0
    turn: int = 0
    avoided_until: float = 0.0


def test_one_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"^balance must be 'least_loaded' or 'round_robin', not"):
        Chooser(cast("Any", "random"))


@given(balances)
def test_nothing_to_choose_from(balance: Balance) -> None:
    assert Chooser[Server](balance).choose([], (), 0) is None


@given(balances, st.integers(1, 10), st.integers(0, 100))
def test_equals_have_their_turns(balance: Balance, count: int, calls: int) -> None:
    servers = [Server() for _ in range(count)]
    chooser = Chooser[Server](balance)
    chosen = [chooser.choose(servers, (), 0) for _ in range(calls)]
    assert chosen[:count] == servers[:calls]
    assert chosen[count:] == chosen[:-count]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_what_waits_counts_for_one_and_not_for_the_other(waiting: list[int]) -> None:
    servers = [Server(calls=calls) for calls in waiting]
    least = Chooser[Server]("least_loaded").choose(servers, (), 0)
    assert least is servers[waiting.index(min(waiting))]
    servers = [Server(calls=calls) for calls in waiting]
    assert Chooser[Server]("round_robin").choose(servers, (), 0) is servers[0]


class Choosing(RuleBasedStateMachine):
    """Calls come and go, and so do servers; each choice is held against what was said of it."""

    balance: Balance

    def __init__(self) -> None:
        super().__init__()
        self.chooser = Chooser[Server](self.balance)
        self.servers = [Server(), Server()]
        self.now = 0.0
        self.since_change: Counter[Server] = Counter()

    def change(self) -> None:
        self.since_change.clear()

    @rule()
    def join(self) -> None:
        self.servers.append(Server())
        self.change()

    @rule(number=st.integers(0, 20))
    def leave(self, number: int) -> None:
        if self.servers:
            self.servers.pop(number % len(self.servers))
            self.change()

    @rule(number=st.integers(0, 20))
    def finish(self, number: int) -> None:
        busy = [server for server in self.servers if server.calls]
        if busy:
            busy[number % len(busy)].calls -= 1

    @rule(number=st.integers(0, 20), seconds=st.floats(0, 3))
    def avoid(self, number: int, seconds: float) -> None:
        if self.servers:
            self.servers[number % len(self.servers)].avoided_until = self.now + seconds
            self.change()

    @rule(seconds=st.floats(0, 3))
    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.change()

    @rule(refused=st.sets(st.integers(0, 20), max_size=3))
    def call(self, refused: set[int]) -> None:
        said_no = {self.servers[number % len(self.servers)] for number in refused if self.servers}
        before = {server: (server.calls, server.turn) for server in self.servers}
        chosen = self.chooser.choose(self.servers, said_no, self.now)
        assert (chosen is None) == (not self.servers)
        if chosen is None:
            return
        rivals = self.servers
        for is_bad in (lambda one: one in said_no, lambda one: one.avoided_until > self.now):
            rivals = [one for one in rivals if not is_bad(one)] or rivals
        assert chosen in rivals
        calls, turn = before[chosen]
        for rival in rivals:
            rival_calls, rival_turn = before[rival]
            if self.balance == "least_loaded":
                assert (calls, turn) <= (rival_calls, rival_turn)
            else:
                assert turn <= rival_turn
        chosen.calls += 1
        self.since_change[chosen] += 1
        if said_no:
            self.change()

    @invariant()
    def round_robin_is_even(self) -> None:
        if self.balance == "round_robin" and self.servers:
            fit = [one for one in self.servers if one.avoided_until <= self.now] or self.servers
            counts = [self.since_change[one] for one in fit]
            assert max(counts) - min(counts) <= 1


class LeastLoaded(Choosing):
    balance: Balance = "least_loaded"


class RoundRobin(Choosing):
    balance: Balance = "round_robin"


TestLeastLoaded = LeastLoaded.TestCase
TestRoundRobin = RoundRobin.TestCase
