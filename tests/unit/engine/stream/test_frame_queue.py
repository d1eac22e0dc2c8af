"""Frames in order through memory that is reused: nothing grows, nothing shown is written to."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from engine.stream.frame_queue import FrameQueue


def _write(queue, *frames):
    for frame in frames:
        queue.next_image()[:] = frame % 251
        queue.commit(frame)


@pytest.fixture
def queue():
    made = FrameQueue(slots=3)
    made.set_size(4, 2)
    return made


def test_newest_due_frame_is_taken_and_older_ones_counted(queue):
    _write(queue, 5, 6, 7)
    frame, image, scene, skipped = queue.take_due(6)
    assert (frame, int(image[0, 0, 0]), scene, skipped) == (6, 6, None, 1)
    assert len(queue) == 1 and queue.take_due(6) is None and queue.take_due(7)[0] == 7


def test_nothing_due_is_none(queue):
    assert queue.take_due(100) is None and queue.newest() is None
    _write(queue, 5)
    assert queue.take_due(4) is None and queue.newest() == 5 and len(queue) == 1


def test_full_queue_loses_the_oldest_and_counts_it(queue):
    _write(queue, *range(100))
    assert len(queue) == 3 and queue.dropped == 97
    assert [queue.take_due(n)[0] for n in (97, 98, 99)] == [97, 98, 99]


def test_picture_being_shown_is_never_written_to(queue):
    _write(queue, 0)
    _, shown, *_ = queue.take_due(0)
    _write(queue, *range(1, 20))
    assert (shown == 0).all()


def test_waiting_pictures_are_their_own(queue):
    _write(queue, 1, 2, 3)
    half_written = queue.next_image()
    half_written[:] = 99
    values = [int(queue.take_due(n)[1][0, 0, 0]) for n in (1, 2, 3)]
    assert values == [1, 2, 3]


def test_next_image_is_the_same_until_committed(queue):
    assert queue.next_image() is queue.next_image()


@pytest.mark.parametrize("frame", [3, 2])
def test_frames_must_ascend(queue, frame):
    _write(queue, 3)
    queue.next_image()
    with pytest.raises(AssertionError):
        queue.commit(frame)


def test_commit_without_a_picture_is_a_mistake(queue):
    with pytest.raises(AssertionError):
        queue.commit(0)


def test_clear_forgets_what_waits_but_not_what_is_shown(queue):
    _write(queue, 1, 2)
    _, shown, *_ = queue.take_due(1)
    queue.clear()
    assert len(queue) == 0 and queue.take_due(99) is None
    _write(queue, 3, 4, 5)
    assert (shown == 1).all()


def test_memory_is_reused_after_clear(queue):
    pictures = []
    for frame in range(0, 60, 2):
        pictures += [queue.next_image()]
        _write(queue, frame, frame + 1)
        queue.clear()
    assert len({id(picture) for picture in pictures}) <= 5


def test_another_size_applies_to_what_follows(queue):
    _write(queue, 1)
    queue.scene = "wide"
    queue.set_size(8, 2)
    _write(queue, 2)
    first, second = queue.take_due(1), queue.take_due(2)
    assert first[1].shape == (2, 4, 3) and first[2] is None
    assert second[1].shape == (2, 8, 3) and second[2] == "wide"
    for frame in range(3, 20):
        _write(queue, frame)
        assert queue.take_due(frame)[1].shape == (2, 8, 3)


def test_same_size_keeps_the_memory(queue):
    image = queue.next_image()
    queue.set_size(4, 2)
    assert queue.next_image() is image


def test_memory_does_not_grow():
    """The frames of minutes in the memory of a few, whether the reader follows, stops or comes back."""
    queue = FrameQueue(slots=3)
    queue.set_size(320, 180)
    _write(queue, *range(10))
    tracemalloc.start()
    try:
        for frame in range(10, 3000):
            _write(queue, frame)
            if frame % 100 < 60:
                queue.take_due(frame - frame % 2)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown < 320 * 180 * 3, "not even one more picture"


def test_reader_in_another_thread_sees_whole_pictures_in_order():
    queue, total, seen, stop = FrameQueue(slots=4), 20_000, [], threading.Event()
    queue.set_size(16, 16)

    def read():
        while not stop.is_set() or len(queue):
            taken = queue.take_due(total)
            if taken is not None:
                frame, image, _, skipped = taken
                seen.append((frame, skipped, np.ptp(image) == 0 and image[0, 0, 0] == frame % 251))

    thread = threading.Thread(target=read)
    thread.start()
    _write(queue, *range(total))
    stop.set()
    thread.join(20)
    frames = [frame for frame, *_ in seen]
    assert frames == sorted(set(frames)) and frames[-1] == total - 1
    assert all(whole for *_, whole in seen)
    assert len(seen) + sum(skipped for _, skipped, _ in seen) + queue.dropped == total


def test_discarded_frames_and_those_of_a_chunk_under_way_are_never_shown(queue):
    for frame in (4, 5, 6):
        queue.next_image()[:] = frame
        queue.commit(frame)
    assert queue.take_due(4)[0] == 4
    queue.discard()
    assert queue.is_emptied and queue.last_frame == 4 and queue.take_due(9) is None
    queue.next_image()[:] = 7
    queue.commit(7)
    assert queue.take_due(9) is None and queue.dropped == 2 + 1
    queue.accept()
    queue.next_image()[:] = 5
    queue.commit(5)
    frame, image, _, skipped = queue.take_due(5)
    assert (frame, skipped) == (5, 0) and (image == 5).all() and not queue.is_emptied
