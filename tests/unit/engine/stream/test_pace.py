"""What the next chunk is expected to take, from those before it."""

from __future__ import annotations

import pytest

from engine.stream.pace import ChunkTime


def test_slow_chunks_are_believed_sooner_than_quick_ones():
    time = ChunkTime(1.0)
    time.took(1.5, 1.0)
    assert time.expected_s == pytest.approx(1.15)
    time.took(0.65, 1.0)
    assert time.expected_s == pytest.approx(1.125)


def test_a_chunk_out_of_all_proportion_counts_as_three_and_its_like_as_itself():
    time = ChunkTime(1.0)
    time.took(60.0, 1.0)
    assert time.expected_s == pytest.approx(1.0 + 0.3 * 2.0)
    time.took(60.0, 1.0)
    assert time.expected_s == pytest.approx(1.6 + 0.3 * (60.0 - 1.6))


def test_a_generator_that_takes_next_to_nothing_may_take_a_chunks_duration_at_once():
    time = ChunkTime(0.0)
    time.took(5.0, 0.04)
    assert time.expected_s == pytest.approx(0.3 * 0.04)
