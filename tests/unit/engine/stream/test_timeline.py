"""The session's sound by absolute sample: exact chunks, bounded memory, waits that end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.media import ChunkSpec
from engine.stream.timeline import Timeline

SPEC = ChunkSpec(fps=25, frames=2, lookahead_samples=100)


def _ramp(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)


@pytest.mark.parametrize("block", [1, 7, 160, 999])
def test_chunk_holds_its_own_samples_and_the_look_ahead(block):
    timeline = Timeline(kept_s=1.0)
    for first in range(0, 5000, block):
        timeline.append(_ramp(first, min(block, 5000 - first)))
    chunk = timeline.chunk(1, SPEC, is_discontinuous=True)
    assert (chunk.first_frame, chunk.frames, chunk.first_sample, chunk.is_discontinuous) == (1, 2, 640, True)
    assert np.array_equal(chunk.samples, _ramp(640, 2 * 640 + 100))
    assert not timeline.chunk(1, SPEC, is_discontinuous=False).is_discontinuous


def test_chunks_follow_each_other_without_gap_after_many_turns_of_the_memory():
    timeline, taken, frame = Timeline(kept_s=0.5), [], 0
    spec = ChunkSpec(fps=30, frames=1)
    for first in range(0, 160_000, 160):
        timeline.append(_ramp(first, 160))
        while timeline.has(frame, spec):
            taken.append(timeline.chunk(frame, spec, is_discontinuous=False).samples)
            frame += 1
    assert frame == 300
    assert np.array_equal(np.concatenate(taken), _ramp(0, 160_000))


def test_has_needs_the_last_sample_of_the_look_ahead():
    timeline = Timeline()
    timeline.append(_ramp(0, 2 * 640 + 99))
    assert not timeline.has(0, SPEC)
    timeline.append(_ramp(0, 1))
    assert timeline.has(0, SPEC) and not timeline.has(1, SPEC)


def test_what_is_no_longer_kept_is_silent():
    timeline = Timeline(kept_s=0.1)
    timeline.append(np.ones(5000, np.float32))
    samples = timeline.chunk(4, ChunkSpec(fps=25, frames=3), is_discontinuous=False).samples  # 2560 .. 4480
    kept_from = 5000 - 1600
    assert not samples[: kept_from - 2560].any() and samples[kept_from - 2560 :].all()


def test_block_longer_than_the_memory_counts_in_full():
    timeline = Timeline(kept_s=0.1)
    timeline.append(_ramp(0, 4000))
    assert timeline.end == 4000
    chunk = timeline.chunk(5, ChunkSpec(fps=25, frames=1), is_discontinuous=False)
    assert np.array_equal(chunk.samples, _ramp(3200, 640))


def test_silence_of_hours_is_added_in_pieces():
    timeline = Timeline(kept_s=1.0)
    timeline.append(np.ones(100, np.float32))
    timeline.append_silence(3600 * 16_000 + 5)
    assert timeline.end == 3600 * 16_000 + 105
    timeline.append_silence(0)
    timeline.append_silence(-5)
    assert timeline.end == 3600 * 16_000 + 105


@pytest.mark.parametrize("first", [0, 700, 3000, 3999, 4000, 9000])
def test_silenced_from_a_sample_on_and_nothing_before(first):
    timeline = Timeline(kept_s=0.2)
    timeline.append(np.ones(4000, np.float32))
    timeline.silence_from(first)
    samples = timeline.chunk(0, ChunkSpec(fps=25, frames=6), is_discontinuous=False).samples
    heard = np.flatnonzero(samples[800:4000]) + 800
    assert np.array_equal(heard, np.arange(800, min(max(first, 800), 3840)))


def test_wait_ends_when_the_sound_is_there():
    timeline, results = Timeline(), []
    thread = threading.Thread(target=lambda: results.append(timeline.wait(0, SPEC, 20.0)))
    thread.start()
    for _ in range(2):
        timeline.append(_ramp(0, 690))
    thread.join(10.0)
    assert results == [True]


def test_wake_ends_a_wait_without_sound():
    timeline, results = Timeline(), []
    thread = threading.Thread(target=lambda: results.append(timeline.wait(0, SPEC, 60.0)), daemon=True)
    thread.start()
    for _ in range(500):
        timeline.wake()
        thread.join(0.01)
        if not thread.is_alive():
            break
    assert results == [False]


def test_wait_is_over_after_its_time():
    assert Timeline().wait(0, SPEC, 0.001) is False


def test_last_samples_can_be_replaced_with_what_follows():
    timeline = Timeline(kept_s=1.0)
    timeline.append(np.ones(17_000, np.float32))
    timeline.append(np.array([2, 3, 4], np.float32), redo=2)
    assert timeline.end == 17_001
    chunk = timeline.chunk(25, ChunkSpec(fps=25, frames=1, lookahead_samples=1001 - 640), is_discontinuous=False)
    assert chunk.samples[-4:].tolist() == [1, 2, 3, 4]
