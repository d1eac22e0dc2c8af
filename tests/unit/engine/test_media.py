"""Frame and sample numbers, exact at every rate."""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine.media import SAMPLE_RATE_HZ, first_sample_of, frame_at

RATES = (10, 24, 25, 30, 48, 50, 60)


@pytest.mark.parametrize("fps", RATES)
def test_first_sample_is_the_exact_time_rounded_down(fps):
    for frame in (*range(200), 10**6, 30 * 3600 * 24, 10**9):
        exact = Fraction(frame, fps) * SAMPLE_RATE_HZ
        assert first_sample_of(frame, fps) == exact.numerator // exact.denominator


@pytest.mark.parametrize("fps", RATES)
def test_frames_follow_each_other_without_gap(fps):
    lengths = {first_sample_of(n + 1, fps) - first_sample_of(n, fps) for n in range(3 * fps)}
    assert lengths <= {SAMPLE_RATE_HZ // fps, SAMPLE_RATE_HZ // fps + 1}
    assert first_sample_of(fps, fps) == SAMPLE_RATE_HZ


@pytest.mark.parametrize("fps", RATES)
def test_frame_at_is_the_frame_that_contains_the_sample(fps):
    for sample in (*range(3000), 10**9, 10**9 + 1):
        frame = frame_at(sample, fps)
        assert first_sample_of(frame, fps) <= sample < first_sample_of(frame + 1, fps)
