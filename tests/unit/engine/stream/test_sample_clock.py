"""The map from samples to time: smooth where clocks drift, quick to notice what is no drift."""

from __future__ import annotations

import numpy as np
import pytest

from engine.stream.sample_clock import RESYNC_S, SampleClock


@pytest.mark.parametrize("ppm", [-200.0, 0.0, 200.0])
def test_follows_a_drifting_clock_through_jitter(ppm):
    rng = np.random.default_rng(0)
    clock = SampleClock(10.0)
    rate = 16_000 * (1 + ppm * 1e-6)
    errors = []
    for sample in range(0, 16_000 * 600, 160):
        true_s = 10.0 + sample / rate
        clock.observe(sample, true_s + rng.uniform(0, 0.012))
        if sample > 16_000 * 60:
            errors.append(clock.time_of(sample) - true_s)
    assert np.abs(np.array(errors) - 0.006).max() < 0.004
    assert clock.sample_at(clock.time_of(12_345)) == 12_345


def test_single_late_blocks_are_ignored_and_a_lasting_jump_is_seen():
    clock = SampleClock(0.0)
    for sample in range(0, 16_000, 160):
        clock.observe(sample, sample / 16_000)
    assert abs(clock.observe(16_000, 1.0 + 0.100)) < RESYNC_S
    deviation = 0.0
    for sample in range(16_160, 32_000, 160):
        deviation = clock.observe(sample, sample / 16_000 + 0.145)
    assert deviation > RESYNC_S
    clock.forget_deviation()
    assert abs(clock.observe(32_000, 2.0)) < 0.02


def test_frames_at_thirty_a_second_do_not_drift():
    clock = SampleClock(0.0)
    assert clock.time_of_frame(30 * 3600, 30) == pytest.approx(3600.0, abs=1e-9)
