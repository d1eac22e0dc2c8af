"""The sample ring: order, bounds, and two threads."""

from __future__ import annotations

import threading

import numpy as np

from engine.audio.ring import SampleRing


def _ramp(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)[:, None]


def test_order_is_kept_around_the_end():
    ring = SampleRing(10)
    taken = []
    for start in range(0, 70, 7):
        assert ring.write(_ramp(start, 7)) == 7
        taken.append(ring.read())
    assert np.array_equal(np.concatenate(taken), _ramp(0, 70))
    assert ring.position == ring.written == 70


def test_what_does_not_fit_is_counted():
    ring = SampleRing(10)
    assert ring.write(_ramp(0, 15)) == 10
    assert ring.overflows == 5 and len(ring) == 10
    assert np.array_equal(ring.read(4), _ramp(0, 4)) and ring.skip(100) == 6


def test_writer_and_reader_in_different_threads():
    ring, total = SampleRing(1000), 200_000

    def write():
        position = 0
        while position < total:
            position += ring.write(_ramp(position, min(97, total - position)))

    thread = threading.Thread(target=write)
    thread.start()
    taken = 0
    while taken < total:
        block = ring.read(53)
        assert np.array_equal(block, _ramp(taken, len(block)))
        taken += len(block)
    thread.join()
