"""The rules by which a generator that is too slow makes do with less, and with more again; nothing but numbers."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from engine.stream.ladder import Ladder, Rung

CHUNK_S = 1.12
FULL = Rung(name="full", kind="full")
THREE = Rung(name="3 steps", kind="economy", cost=0.75, economy=1)
TWO = Rung(name="2 steps", kind="economy", cost=0.5, economy=2)
SMALL = Rung(name="512x320", kind="smaller", cost=0.21, economy=2, size=1)
PUPPET = Rung(name="puppet", kind="standby", cost=0.0)
CARD = Rung(name="card", kind="card", cost=0.0)
ALL = (FULL, THREE, TWO, SMALL, PUPPET)
TRUE_COSTS = {"full": 1.0, "3 steps": 0.79, "2 steps": 0.59, "512x320": 0.25, "card": 0.25}
"""As computed for one GPU: what does not depend on the number of steps makes an economy dearer than its share."""


class Machine:
    """A ladder on a clock, beside a generator whose full work takes `full_s` a chunk. A chunk is made when its sound is
    there and the one before is finished; the pipeline has `spare_s` in hand when it keeps up, and what is later than a
    chunk is skipped."""

    def __init__(self, rungs=ALL, chunk_s=CHUNK_S, spare_s=0.28):
        self.ladder = Ladder(rungs, chunk_s)
        self.chunk_s, self.spare_s = chunk_s, spare_s
        self.now_s = self.late_s = 0.0
        self.moves = []

    def chunk(self, took_s):
        """One that takes exactly so long."""
        self.now_s += max(took_s, self.chunk_s) if self.late_s <= 0 else took_s
        self.late_s = max(0.0, self.late_s + took_s - self.chunk_s)
        if self.late_s > self.chunk_s + self.spare_s:
            self.late_s = 0.0
        move = self.ladder.observe(self.now_s, took_s, self.spare_s - self.late_s)
        if move is not None:
            self.moves.append((round(self.now_s, 2), move.now.name))
        return move

    def run(self, seconds, full_s):
        """Chunks on whatever rung it is. `full_s` is a number or a function of the time."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            cost = TRUE_COSTS.get(self.ladder.rung.name, 0.01)
            self.chunk(cost * (full_s(self.now_s) if callable(full_s) else full_s))

    @property
    def names(self):
        return [name for _, name in self.moves]


def test_generator_that_keeps_up_is_left_alone():
    machine = Machine()
    machine.run(600, 1.1)
    assert machine.moves == []


@pytest.mark.parametrize(
    ("full_s", "name"), [(1.2, "3 steps"), (1.35, "3 steps"), (1.6, "2 steps"), (3.4, "512x320"), (9.0, "puppet")]
)
def test_first_rung_that_will_do_is_taken_at_once(full_s, name):
    machine = Machine()
    machine.run(30, full_s)
    assert machine.names == [name]


def test_one_that_turns_out_too_slow_as_well_is_left_for_the_next():
    """1.45 s at a share of 0.75 would have been quick enough; at 0.79 it is not."""
    machine = Machine()
    machine.run(30, 1.415 * 1.03)
    assert machine.names == ["2 steps"] or machine.names == ["3 steps", "2 steps"]


@pytest.mark.parametrize("excess_s", [0.03, 0.05, 0.1, 0.2])
def test_answer_comes_before_the_margin_is_used_up(excess_s):
    machine = Machine(spare_s=0.6)
    worst_s = 0.0
    while machine.chunk(CHUNK_S + excess_s) is None:
        worst_s = max(worst_s, machine.late_s)
        assert len(machine.moves) == 0 and machine.now_s < 60
    assert worst_s < 0.6


def test_what_the_margin_carries_for_long_is_watched_for_as_long():
    """Also where nothing else has been seen yet: three chunks, each a little too slow, use little of it up."""
    machine = Machine(spare_s=2.0)
    for took_s in (1.2, 1.2, 1.2, 0.9, 0.9, 0.9, 0.9, 0.9):
        machine.chunk(took_s)
    assert machine.moves == []


@pytest.mark.parametrize("full_s", [2.0, 5.0])
def test_two_chunks_are_enough_where_one_of_them_uses_the_margin_up(full_s):
    machine = Machine()
    machine.run(30, 1.0)
    seen = machine.now_s
    machine.run(4 * full_s, full_s)
    assert machine.moves[0][0] <= seen + 2 * full_s + 0.01


@pytest.mark.parametrize("hiccup_s", [1.5, 3.0, 30.0])
def test_hiccup_changes_nothing(hiccup_s):
    machine = Machine()
    for _ in range(20):
        machine.run(12, 0.9)
        machine.chunk(hiccup_s)
    assert machine.moves == []


def test_two_hiccups_close_together_change_nothing():
    machine = Machine()
    for _ in range(10):
        machine.run(20, 0.9)
        machine.chunk(2.5)
        machine.chunk(0.9)
        machine.chunk(2.5)
    assert machine.moves == []


def test_every_third_chunk_far_too_slow_is_too_slow():
    machine = Machine()
    for _ in range(30):
        for took_s in (0.9, 0.9, 2.6):
            machine.chunk(took_s)
        if machine.moves:
            break
    assert machine.moves


def test_back_up_one_by_one_and_only_after_a_surplus_that_lasts():
    machine = Machine()
    machine.run(30, 1.7)
    assert machine.names == ["2 steps"]
    relieved_s = machine.now_s
    machine.run(120, 0.8)
    assert machine.names == ["2 steps", "3 steps", "full"]
    up_s = [at_s for at_s, _ in machine.moves[1:]]
    assert up_s[0] - relieved_s > 10 and up_s[1] - up_s[0] > 10


def test_surplus_that_would_not_carry_the_dearer_rung_is_none():
    """2 steps take 0.81 s of 1.12 s; 3 steps would take 1.09 s, which is no room to live in."""
    machine = Machine()
    machine.run(1800, 1.38)
    assert machine.names[0] == "3 steps" and len(machine.names) <= 2


def test_flapping_becomes_rarer_and_rarer():
    """Quick whenever little is asked for, slow as soon as all is: no prediction can know that."""
    machine = Machine(rungs=(FULL, THREE, PUPPET))
    end_s = 3600
    while machine.now_s < end_s:
        machine.chunk(1.35 if machine.ladder.rung is FULL else 0.5)
    downs = [at_s for at_s, name in machine.moves if name == "3 steps"]
    gaps = [after - before for before, after in pairwise(downs)]
    assert len(downs) <= 16 and gaps[0] < 30 and gaps[5] > 250
    assert all(later >= 0.9 * earlier for earlier, later in pairwise(gaps[:6]))


def test_patience_is_as_at_first_after_ten_good_minutes():
    machine = Machine(rungs=(FULL, THREE, PUPPET))
    machine.run(30, 1.3)
    patience_s = machine.ladder.patience_s(machine.now_s)
    machine.run(25, 0.8)
    assert machine.ladder.rung is FULL
    machine.run(20, 1.3)
    assert machine.ladder.patience_s(machine.now_s) == 2 * patience_s
    machine.run(700, 1.3)
    assert machine.ladder.patience_s(machine.now_s) == patience_s


def test_larger_size_is_tried_after_a_longer_surplus():
    machine = Machine()
    machine.run(30, 3.4)
    assert machine.names == ["512x320"]
    relieved_s = machine.now_s
    machine.run(200, 0.9)
    assert machine.names[1] == "2 steps" and machine.moves[1][0] - relieved_s > 60


def test_who_rests_returns_when_tried_quick_enough_and_below_the_last_rung():
    machine = Machine()
    machine.run(30, 9.0)
    assert machine.ladder.rung is PUPPET
    assert not machine.ladder.may_return(1.0, 0) and machine.ladder.may_return(0.9, 0)
    assert machine.ladder.economy_of(0) == 2
    move = machine.ladder.returned(machine.now_s, 0.9, 0)
    assert (move.before, move.now, move.is_down) == (PUPPET, TWO, False)


def test_last_generator_is_shown_by_half_before_there_is_a_card():
    rungs = (Rung(name="full", kind="full", limit=2.0), CARD)
    machine = Machine(rungs, 0.04, 0.02)
    machine.run(30, 0.06)
    assert machine.moves == [], "half of the frames are better than a card"
    machine.run(10, 0.1)
    assert machine.names == ["card"]
    while machine.ladder.rung is CARD and machine.now_s < 300:
        machine.chunk(0.02)
    assert machine.names == ["card", "full"]


def test_long_good_run_before_hides_nothing_from_the_choice():
    """Three times too slow at once: half the size would not do, whatever the seconds before were like."""
    machine = Machine((FULL, Rung(name="half", kind="smaller", cost=0.35, size=1), PUPPET), 0.04, 0.05)
    machine.run(10, 0.015)
    machine.run(3, 0.12)
    assert machine.names == ["puppet"]


def test_frames_of_a_few_hundred_ms_are_a_hiccup_of_a_frame_wise_generator():
    machine = Machine((FULL, CARD), 0.04, 0.05)
    for _ in range(50):
        machine.run(3, 0.01)
        for _ in range(3):
            machine.chunk(0.15)
    assert machine.moves == []


def test_sizes_that_cannot_be_had_are_forgotten():
    machine = Machine()
    machine.run(30, 3.4)
    machine.ladder.give_up_sizes()
    assert machine.ladder.rung is TWO
    machine.run(30, 3.4)
    assert machine.names[-1] == "puppet"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_is_never_restless_nor_stuck(seed):
    """Any load: at most a change every ten seconds, and at the end of an idle hour it is where it began."""
    rng = random.Random(seed)
    machine = Machine(rungs=(FULL, THREE, TWO, SMALL, CARD))
    for _ in range(40):
        level_s, spread = rng.choice([0.5, 1.0, 1.2, 2.0, 4.0, 10.0]), rng.uniform(0, 0.6)
        machine.run(rng.uniform(1, 60), lambda _, a=level_s, b=spread: a * rng.uniform(1 - b, 1 + b))
    assert len(machine.moves) < machine.now_s / 10
    machine.run(3600, 0.5)
    assert machine.ladder.rung is FULL
