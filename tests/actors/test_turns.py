"""Whose turn it is, beside the plainest thing that could be written: lists, and going round."""

import itertools
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from regsvc.actors.turns import Turns

CLIENTS = st.sampled_from([None, "a", "b", "c", "d"])


class GoingRound(RuleBasedStateMachine):
    """Lines as lists of numbers, the first line being the next."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns()
        self.lines: list[tuple[str | None, list[int]]] = []
        self.numbers = count()

    def line(self, client: str | None) -> list[int]:
        return next((line for one, line in self.lines if one == client), [])

    @rule(client=CLIENTS)
    def add(self, client: str | None) -> None:
        number = next(self.numbers)
        self.turns.add(client, number)
        if line := self.line(client):
            line.append(number)
        else:
            self.lines.append((client, [number]))

    @rule()
    def next(self) -> None:
        if not self.lines:
            with pytest.raises(KeyError):
                self.turns.next()
            return
        client, line = self.lines.pop(0)
        assert self.turns.next() == line.pop(0)
        if line:
            self.lines.append((client, line))

    @rule(client=CLIENTS, data=st.data())
    def remove(self, client: str | None, data: st.DataObject) -> None:
        line = self.line(client)
        assert not self.turns.remove(client, -1)
        if line:
            number = data.draw(st.sampled_from(line))
            assert self.turns.remove(client, number)
            line.remove(number)
            self.lines = [one for one in self.lines if one[1]]

    @rule(client=CLIENTS, more=st.integers(1, 4))
    def foresee(self, client: str | None, more: int) -> None:
        lines = [(one, list(line)) for one, line in self.lines]
        if not self.line(client):
            lines.append((client, []))
        next(line for one, line in lines if one == client).extend([-1] * (more - 1) + [-2])
        served = []
        while lines:
            one, line = lines.pop(0)
            served.append(line.pop(0))
            if line:
                lines.append((one, line))
        assert self.turns.before(client, more) == served.index(-2)

    @rule()
    def look_at_the_last(self) -> None:
        if not self.lines:
            with pytest.raises(KeyError):
                self.turns.last()
            return
        rounds = itertools.zip_longest(*(line for _, line in self.lines))
        assert self.turns.last() == [number for turn in rounds for number in turn if number is not None][-1]

    @invariant()
    def agree(self) -> None:
        assert len(self.turns) == sum(len(line) for _, line in self.lines)
        assert list(self.turns.clients) == [client for client, _ in self.lines]
        for client, line in self.lines:
            assert self.turns.of(client) == len(line)
            assert self.turns.newest(client) == line[-1]
        assert self.turns.of("nobody") == 0


TestGoingRound = GoingRound.TestCase
