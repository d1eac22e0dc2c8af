"""One picture a tick at absolute times: held when late, dropped when several are due, never in bursts."""

from __future__ import annotations

import numpy as np
import pytest

from engine.stream.frame_queue import FrameQueue
from engine.stream.pacer import Pacer
from engine.stream.sample_clock import SampleClock

FPS, DELAY_S, ORIGIN_S = 25, 0.1, 7.0


class Rig:
    """A pacer, its queue, and what it presented with the time it did."""

    def __init__(self, slots=8, fps=FPS):
        self.fps = fps
        self.queue, self.clock = FrameQueue(slots=slots), SampleClock(ORIGIN_S)
        self.queue.set_size(4, 2)
        self.composed, self.presented = [], []
        self.pacer = Pacer(
            self.queue, self.clock, fps=fps, delay_s=DELAY_S, compose=self._compose, present=self.presented.append
        )

    def _compose(self, image, scene):
        self.composed.append((int(image[0, 0, 0]), scene))
        return image

    def make(self, *frames):
        for frame in frames:
            self.queue.next_image()[:] = frame % 251
            self.queue.commit(frame)

    def due(self, tick):
        return ORIGIN_S + tick / self.fps + DELAY_S

    def shown(self):
        return [(f.tick, f.frame) for f in self.presented]

    def counts(self):
        p = self.pacer
        return {"presented": p.presented, "held": p.held, "dropped": p.dropped, "late": p.late}


def test_each_frame_at_its_own_time():
    rig = Rig()
    for tick in range(5):
        rig.make(tick)
        assert rig.pacer.tick(rig.due(tick)) == pytest.approx(rig.due(tick + 1))
    assert rig.shown() == [(t, t) for t in range(5)]
    assert [f.due_s for f in rig.presented] == pytest.approx([rig.due(t) for t in range(5)])
    assert rig.counts() == {"presented": 5, "held": 0, "dropped": 0, "late": 0}


def test_woken_early_does_nothing_but_say_when():
    rig = Rig()
    rig.make(0)
    assert rig.pacer.tick(rig.due(0) - 0.001) == pytest.approx(rig.due(0))
    assert rig.presented == [] and rig.pacer.ticks == 0


def test_frame_that_is_not_due_waits_for_its_tick():
    rig = Rig()
    rig.make(0, 1, 2)
    rig.pacer.tick(rig.due(0))
    assert rig.shown() == [(0, 0)] and len(rig.queue) == 2


def test_nothing_is_presented_before_the_first_frame():
    rig = Rig()
    for tick in range(3):
        rig.pacer.tick(rig.due(tick))
    assert rig.presented == [] and rig.counts()["held"] == 0 and rig.pacer.ticks == 3


def test_late_frame_is_held_for_and_shown_when_it_comes():
    rig = Rig()
    rig.make(0)
    for tick in range(3):
        rig.pacer.tick(rig.due(tick))
    rig.make(1, 2)
    rig.pacer.tick(rig.due(3))
    assert rig.shown() == [(0, 0), (1, 0), (2, 0), (3, 2)]
    assert rig.counts() == {"presented": 2, "held": 2, "dropped": 1, "late": 0}
    assert len(rig.composed) == 2, "a held picture is not composed again"


def test_held_in_a_row_ends_with_the_next_picture():
    rig = Rig()
    rig.make(0)
    for tick in range(4):
        rig.pacer.tick(rig.due(tick))
    assert rig.pacer.held_in_a_row == 3
    rig.make(4)
    rig.pacer.tick(rig.due(4))
    assert rig.pacer.held_in_a_row == 0


@pytest.mark.parametrize("missed", [1, 10, 1000])
def test_woken_late_skips_ticks_and_shows_one_picture(missed):
    rig = Rig(slots=2000)
    rig.make(*range(missed + 3))
    rig.pacer.tick(rig.due(0))
    following = rig.pacer.tick(rig.due(1 + missed))
    assert rig.shown() == [(0, 0), (1 + missed, 1 + missed)], "one picture, not a burst"
    assert rig.counts() == {"presented": 2, "held": 0, "dropped": missed, "late": missed}
    assert following == pytest.approx(rig.due(2 + missed))
    assert rig.pacer.tick(rig.due(1 + missed) + 0.001) == following and len(rig.presented) == 2


def test_two_pictures_are_never_nearer_than_half_a_tick():
    """Whenever it is woken: 30 ms late every time, or at random."""
    rng = np.random.default_rng(0)
    rig, times, now_s = Rig(slots=20_000), [], ORIGIN_S
    rig.make(*range(10_000))
    while now_s < ORIGIN_S + 200:
        before = len(rig.presented)
        due_s = rig.pacer.tick(now_s)
        if len(rig.presented) > before:
            times.append(now_s)
        now_s = max(now_s + 1e-6, due_s + rng.choice([0.0, 0.003, 0.030, 0.039, 0.1], p=[0.5, 0.2, 0.1, 0.1, 0.1]))
    assert np.diff(times).min() >= 0.5 / FPS - 1e-9
    ticks = [f.tick for f in rig.presented]
    assert ticks == sorted(set(ticks)) and rig.pacer.late > 100
    assert rig.pacer.ticks == rig.pacer.presented + rig.pacer.held + rig.pacer.late


def test_deadlines_are_absolute_for_hours():
    rig = Rig(fps=30)
    rig.make(0)
    rig.pacer.tick(rig.due(30 * 3600 * 5))
    assert rig.pacer.due_s(30 * 3600 * 5) == pytest.approx(ORIGIN_S + 5 * 3600 + DELAY_S, abs=1e-6)
    assert rig.pacer.next_tick == 30 * 3600 * 5 + 1


def test_scene_travels_with_its_frame():
    rig = Rig()
    rig.queue.scene = "old"
    rig.make(0)
    rig.queue.scene = "new"
    rig.make(1)
    for tick in range(2):
        rig.pacer.tick(rig.due(tick))
    assert rig.composed == [(0, "old"), (1, "new")]


def test_latency_is_the_median_over_the_last_ten_seconds():
    rig = Rig()
    assert rig.pacer.latency_s() == 0.0
    for tick in range(300):
        rig.make(tick)
        rig.pacer.tick(rig.due(tick) + (0.015 if tick < 40 or tick % 3 == 0 else 0.002))
    assert rig.pacer.latency_s() == pytest.approx(DELAY_S + 0.002)


def test_first_tick_may_be_another():
    pacer = Pacer(FrameQueue(2), SampleClock(0.0), fps=25, delay_s=0.0, compose=None, present=None, first_tick=100)
    assert pacer.tick(3.99) == pytest.approx(4.0) and pacer.ticks == 0 and pacer.next_tick == 100
