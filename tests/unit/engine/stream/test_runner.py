"""Chunk after chunk to the generator, in step with the clock, whatever the generator does."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from engine.errors import Cancelled, GeneratorError


def test_every_chunk_once_in_order_with_its_own_sound(rig):
    rig.work(4.0)
    chunks = rig.runner.scene.generator.chunks
    assert [c.first_frame for c in chunks] == list(range(0, 2 * len(chunks), 2)) and len(chunks) == 49
    assert [c.is_discontinuous for c in chunks] == [True] + [False] * 48
    for chunk in chunks:
        first = chunk.first_frame * 640
        assert chunk.first_sample == first
        assert np.array_equal(chunk.samples, np.arange(first, first + 2 * 640 + 100))
    assert rig.queue.newest() == 97 and rig.runner.skipped_samples == 0


def test_nothing_is_made_before_its_look_ahead_is_there(rig):
    rig.pass_time((2 * 640 + 99) / 16_000)
    assert rig.runner.step() is False
    rig.pass_time(1.5 / 16_000)
    assert rig.runner.step() is True and rig.runner.step() is False


def test_late_generator_skips_to_what_can_still_be_shown(rig):
    rig.work(1.0)
    before = rig.runner.next_frame
    rig.pass_time(2.0)
    assert rig.runner.step()
    skipped = rig.runner.skipped_samples
    frame = rig.runner.scene.generator.chunks[-1].first_frame
    assert skipped == (frame - before) * 640
    ready_s = rig.clock.now() + rig.runner.generate_s
    assert rig.sample_clock.time_of_frame(frame, 25) + rig.runner.delay_s >= ready_s
    assert rig.sample_clock.time_of_frame(frame - 1, 25) + rig.runner.delay_s <= ready_s + 0.001, "no more than needed"
    rig.work(1.0)
    chunks = rig.runner.scene.generator.chunks
    after_gap = [c for c in chunks if c.first_frame >= frame]
    assert [c.is_discontinuous for c in after_gap] == [True] + [False] * (len(after_gap) - 1)
    assert rig.runner.skipped_samples == skipped


def test_lateness_of_less_than_a_chunk_skips_nothing(rig):
    rig.work(1.0)
    rig.pass_time(rig.runner.delay_s + 0.02)
    lateness_s = rig.clock.now() - rig.runner.delay_s - rig.sample_clock.time_of_frame(rig.runner.next_frame, 25)
    assert 0.040 < lateness_s < 0.080
    while rig.runner.step():
        pass
    rig.work(1.0)
    assert rig.runner.skipped_samples == 0


def test_no_frame_is_made_twice_after_a_skip(rig):
    """Frames that wait already are not overtaken backwards, whatever the clock's correction says."""
    rig.work(1.0)
    rig.pass_time(3.0)
    rig.work(2.0)
    frames = [c.first_frame for c in rig.runner.scene.generator.chunks]
    assert all(b - a >= 2 for a, b in pairwise(frames))


def test_time_per_chunk_follows_slow_ones_quickly_and_fast_ones_slowly(runner_rig, scene_of, plain_generator):
    generator = plain_generator(frames=2, lookahead_samples=100)
    rig = runner_rig.Rig(scene_of(generator, generate_s=0.010))
    rig.pass_time(0.3)
    generator.during = lambda: rig.clock.advance(0.030)
    assert rig.runner.step()
    slow = rig.runner.generate_s
    assert slow == pytest.approx(0.016)
    generator.during = lambda: rig.clock.advance(0.010)
    assert rig.runner.step()
    assert 0.010 < rig.runner.generate_s < slow and slow - rig.runner.generate_s < 0.001


@pytest.mark.parametrize("frames", [1, 28])
def test_a_chunk_in_which_the_computer_slept_does_not_freeze_the_picture_for_longer(
    runner_rig, scene_of, plain_generator, frames
):
    rig = runner_rig.Rig(scene_of(plain_generator(frames=frames)), delay_s=runner_rig.DELAY_S + frames / 25)
    rig.work(3.0)
    generator, usual_s = rig.runner.scene.generator, rig.runner.generate_s
    generator.during = lambda: rig.pass_time(30.0)
    rig.pass_time(frames / 25)
    assert rig.runner.step()
    generator.during, woke_s, made = lambda: None, rig.clock.now(), len(generator.chunks)
    assert rig.runner.generate_s - usual_s <= 0.3 * frames / 25
    rig.work(frames / 25 + 0.1)
    due_s = rig.sample_clock.time_of_frame(generator.chunks[made].first_frame, 25) + rig.runner.delay_s
    assert 0 <= due_s - woke_s <= 0.3 * frames / 25 + 0.041, "the next picture is shown as soon as there can be one"


def test_a_generator_that_becomes_much_slower_is_believed_with_its_second_chunk(rig):
    rig.work(1.0)
    generator = rig.runner.scene.generator
    generator.during = lambda: rig.clock.advance(4.0)
    rig.pass_time(0.1)
    assert rig.runner.step()
    assert rig.runner.generate_s < 0.05
    rig.pass_time(0.1)
    assert rig.runner.step()
    assert rig.runner.generate_s > 1.2


@pytest.mark.parametrize("error", [GeneratorError("No.", code="generator.memory"), ValueError("bug"), MemoryError()])
def test_failure_is_told_once_and_the_generator_left_alone(rig, error, caplog):
    rig.work(0.5)
    generator = rig.runner.scene.generator
    generator.during = lambda: (_ for _ in ()).throw(error)
    rig.work(0.5)
    calls = len(generator.chunks)
    rig.work(0.5)
    assert len(generator.chunks) == calls
    (told,) = rig.failures
    assert isinstance(told, GeneratorError) and told.message
    assert told.code == ("generator.memory" if error is told else "generator.internal")


def test_wait_returns_when_a_chunk_is_there(rig):
    waited = []
    rig.pass_time(1.0)
    rig.runner.wait(60.0)
    rig.runner.step()
    thread = threading.Thread(target=lambda: waited.append(rig.runner.wait(0.001)))
    thread.start()
    thread.join(10.0)
    assert waited == [None]


def test_frames_that_were_shown_before_a_failure_are_not_made_again(runner_rig, pair, caplog):
    rig, wanted, standby = pair
    rig.queue.take_due(10_000)
    runner_rig.break_soon(wanted, after=1)
    take = rig.queue.commit
    rig.queue.commit = lambda frame: (take(frame), rig.queue.take_due(frame))
    rig.work(0.2)
    last = wanted.chunks[-1].first_frame + 2
    assert standby.chunks[0].first_frame == last + 1 and rig.runner.skipped_samples == 0
    assert rig.runner.is_standing_in and wanted.closed == 1 and len(rig.failures) == 1


def test_standby_that_cannot_stand_in_leaves_the_last_picture(runner_rig, pair, caplog):
    rig, wanted, standby = pair
    standby.reset = lambda: 1 / 0
    runner_rig.break_soon(wanted)
    rig.work(0.5)
    assert rig.runner.has_failed and rig.runner.needs_another and standby.chunks == [] and len(rig.failures) == 1


def test_generator_that_cannot_be_closed_does_not_end_the_session(runner_rig, pair, caplog):
    rig, wanted, standby = pair
    wanted.close = lambda: 1 / 0
    runner_rig.break_soon(wanted)
    rig.work(0.5)
    assert standby.chunks and "could not be closed" in caplog.text


def test_failure_of_a_chunk_that_the_end_interrupted_is_not_told(runner_rig, pair, caplog):
    rig, wanted, _ = pair
    runner_rig.break_soon(wanted)
    rig.pass_time(0.2)
    rig.runner.end()
    rig.runner.step()
    assert rig.failures == [] and not rig.runner.is_standing_in
    with pytest.raises(Cancelled):
        rig.runner.swap(rig.runner.scene)


@pytest.mark.parametrize("mute_at_s", [13.1, 13.35, 13.7, 14.02])
def test_nothing_that_was_said_is_shown_after_mute(runner_rig, scene_of, plain_generator, mute_at_s):
    """During a chunk or between two: every frame that is shown afterwards was made of silence, and is in time."""
    generator = plain_generator(frames=25)
    rig = runner_rig.SlowRig(scene_of(generator, generate_s=0.4), mute_at_s)
    while rig.mute_at_s is not None or len(rig.queue) == 0:
        rig.pass_time(0.010)
        rig.runner.step()
    chunk = generator.chunks[-1]
    said_before = rig.sample_clock.sample_at(mute_at_s) - chunk.first_sample
    assert chunk.is_discontinuous and said_before > 8000 and not chunk.samples[:said_before].any()
    due_s = rig.sample_clock.time_of_frame(chunk.first_frame, 25) + 1.6
    assert due_s >= rig.clock.now() - 0.05, "in time"
    assert due_s - mute_at_s < 2 * 0.4 + 0.1, "held no longer than the running chunk and the next one take"
    assert not rig.queue.is_emptied and rig.queue.dropped % 25 == 0


def test_quick_generator_goes_on_without_a_hole_after_mute(rig):
    rig.work(2.0)
    shown = rig.queue.take_due(rig.runner.next_frame)[0]
    rig.timeline.silence_from(0)
    rig.runner.begin_anew()
    rig.work(1.0)
    frame, *_ = rig.queue.take_due(shown + 3)
    assert frame <= shown + 3 and rig.runner.next_frame > shown + 20
    assert not rig.failures
