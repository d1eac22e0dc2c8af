"""Which frames can still be in time, counted frame by frame; and the delay that a session needs."""

from __future__ import annotations

import pytest

from engine.clock import ManualClock
from engine.media import ChunkSpec
from engine.stream.deadlines import Deadlines, needed_delay_s
from engine.stream.sample_clock import SampleClock

DELAY_S = 0.2


@pytest.fixture
def clock():
    return ManualClock(10.0)


@pytest.fixture
def deadlines(clock):
    return Deadlines(SampleClock(10.0), clock, DELAY_S)


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_frame_is_due_a_delay_after_its_sound(clock, deadlines, fps):
    clock.advance(3.0)
    assert deadlines.left_s(fps, fps) == pytest.approx(1.0 + DELAY_S - 3.0)
    assert deadlines.left_s(4 * fps, fps) == pytest.approx(4.0 + DELAY_S - 3.0)


@pytest.mark.parametrize("fps", [24, 25, 30])
@pytest.mark.parametrize("passed_s", [0.0, 0.013, 1.0, 7.77])
@pytest.mark.parametrize("seconds", [0.0, 0.015, 0.4])
def test_first_frame_in_time_is_the_first_of_all_that_are(clock, deadlines, fps, passed_s, seconds):
    clock.advance(passed_s)
    first = deadlines.first_after(seconds, fps)
    in_time = [frame for frame in range(12 * fps) if deadlines.left_s(frame, fps) >= seconds]
    # One that is due at that very moment is left out.
    assert first in (in_time[0], in_time[0] + 1) and deadlines.left_s(first, fps) >= seconds


@pytest.mark.parametrize(("frames", "lookahead", "generate_s"), [(1, 640, 0.008), (28, 0, 0.6), (4, 0, 0.0)])
def test_needed_delay_covers_every_part_and_a_margin(frames, lookahead, generate_s):
    parts = frames / 25 + lookahead / 16_000 + 0.05 + generate_s
    spec = ChunkSpec(fps=25, frames=frames, lookahead_samples=lookahead)
    delay_s = needed_delay_s(spec, generate_s, 0.05)
    assert parts + 0.0099 <= delay_s <= parts + max(0.0101, 0.25 * generate_s)
