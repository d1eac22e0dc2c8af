"""Chunk after chunk to the generator, in step with the clock, whatever the generator does."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import Cancelled, GeneratorError, StandinError
from engine.media import CanvasFormat
from engine.stream.frame_queue import FrameQueue
from engine.stream.runner import GeneratorRunner, needed_delay_s
from engine.stream.sample_clock import SampleClock
from engine.stream.swap import Outdated, Swap
from engine.stream.timeline import Timeline

DELAY_S = 0.2


class Rig:
    """A runner whose sound is always there up to the clock's time."""

    def __init__(self, scene, standby=None):
        self.clock = ManualClock(10.0)
        self.timeline, self.queue = Timeline(kept_s=30.0), FrameQueue(slots=100)
        self.sample_clock = SampleClock(10.0)
        self.failures = []
        self.runner = GeneratorRunner(
            scene,
            self.timeline,
            self.queue,
            self.sample_clock,
            self.clock,
            delay_s=DELAY_S,
            on_failure=self.failures.append,
            standby=standby,
        )

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        samples = self.sample_clock.sample_at(self.clock.now()) - self.timeline.end
        self.timeline.append(np.arange(self.timeline.end, self.timeline.end + samples, dtype=np.float32))

    def work(self, seconds, step_s=0.010):
        """Let time pass in small steps with the runner at work."""
        for _ in range(round(seconds / step_s)):
            self.pass_time(step_s)
            while self.runner.step():
                pass

    def swap(self, *args, **options):
        """As another thread would; raises what it raises."""
        errors = []

        def ask():
            try:
                self.runner.swap(*args, **options)
            except StandinError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while thread.is_alive():
            self.runner.step()
            thread.join(0.001)
        for error in errors:
            raise error


@pytest.fixture
def rig(scene_of, plain_generator):
    return Rig(scene_of(plain_generator(frames=2, lookahead_samples=100)))


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
    assert rig.sample_clock.time_of_frame(frame, 25) + DELAY_S >= ready_s
    assert rig.sample_clock.time_of_frame(frame - 1, 25) + DELAY_S <= ready_s + 0.001, "no more than needed"
    rig.work(1.0)
    chunks = rig.runner.scene.generator.chunks
    after_gap = [c for c in chunks if c.first_frame >= frame]
    assert [c.is_discontinuous for c in after_gap] == [True] + [False] * (len(after_gap) - 1)
    assert rig.runner.skipped_samples == skipped


def test_lateness_of_less_than_a_chunk_skips_nothing(rig):
    rig.work(1.0)
    rig.pass_time(DELAY_S + 0.02)
    lateness_s = rig.clock.now() - DELAY_S - rig.sample_clock.time_of_frame(rig.runner.next_frame, 25)
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


def test_time_per_chunk_follows_slow_ones_quickly_and_fast_ones_slowly(rig):
    generator = rig.runner.scene.generator
    rig.runner.generate_s = 0.010
    rig.pass_time(0.3)
    generator.during = lambda: rig.clock.advance(0.030)
    assert rig.runner.step()
    slow = rig.runner.generate_s
    assert slow == pytest.approx(0.016)
    generator.during = lambda: rig.clock.advance(0.010)
    assert rig.runner.step()
    assert 0.010 < rig.runner.generate_s < slow and slow - rig.runner.generate_s < 0.001


@pytest.mark.parametrize("frames", [1, 28])
def test_a_chunk_in_which_the_computer_slept_does_not_freeze_the_picture_for_longer(scene_of, plain_generator, frames):
    rig = Rig(scene_of(plain_generator(frames=frames)))
    rig.runner.delay_s = DELAY_S + frames / 25
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


def test_swap_closes_the_old_and_begins_anew(rig, scene_of, plain_generator):
    rig.work(0.5)
    old, canvas = rig.runner.scene.generator, CanvasFormat(width=16, height=8, fps=25)
    fresh = plain_generator(size=(16, 8), name="fresh")
    thread = threading.Thread(target=rig.runner.swap, args=(scene_of(fresh, canvas=canvas),))
    thread.start()
    while thread.is_alive():
        rig.runner.step()
        thread.join(0.001)
    rig.work(0.5)
    assert (old.closed, fresh.closed) == (1, 0) and rig.runner.scene.generator is fresh
    assert fresh.chunks[0].is_discontinuous and not fresh.chunks[1].is_discontinuous
    assert fresh.chunks[0].first_frame == old.chunks[-1].first_frame + 2, "no frame is left out"
    taken = rig.queue.take_due(10_000)
    assert taken[1].shape == (8, 16, 3) and taken[2] is canvas


def test_swap_of_the_canvas_alone_keeps_the_generator(rig, scene_of):
    rig.work(0.5)
    generator = rig.runner.scene.generator
    thread = threading.Thread(target=rig.runner.swap, args=(scene_of(generator, canvas="other"),))
    thread.start()
    while thread.is_alive():
        rig.runner.step()
        thread.join(0.001)
    rig.work(0.5)
    assert generator.closed == 0 and sum(c.is_discontinuous for c in generator.chunks) == 1
    assert rig.queue.take_due(10_000)[2] == "other"


def test_swap_that_takes_too_long_fails_and_never_takes_over(rig, scene_of, plain_generator):
    rig.work(0.5)
    old, fresh = rig.runner.scene.generator, plain_generator()
    with pytest.raises(GeneratorError) as error:
        rig.runner.swap(scene_of(fresh), timeout_s=0.01)
    assert error.value.code == "generator.busy"
    fresh.close()
    rig.work(0.5)
    assert rig.runner.scene.generator is old and fresh.chunks == [] and old.closed == 0


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


def test_fresh_generator_after_a_failure_runs_in_step(rig, scene_of, plain_generator, caplog):
    rig.work(0.5)
    rig.runner.scene.generator.during = lambda: 1 / 0
    rig.work(3.0)
    fresh = plain_generator(frames=2, lookahead_samples=100)
    thread = threading.Thread(target=rig.runner.swap, args=(scene_of(fresh),))
    thread.start()
    while thread.is_alive():
        rig.runner.step()
        thread.join(0.001)
    rig.work(1.0)
    first = fresh.chunks[0].first_frame
    due_s = rig.sample_clock.time_of_frame(first, 25) + DELAY_S
    assert due_s >= 13.5 and len(rig.failures) == 1, "what was said meanwhile is not shown late"


def test_chunk_that_failed_halfway_is_not_made_again(rig, scene_of, plain_generator, caplog):
    """Its first frames wait to be shown; another generator continues behind it."""
    rig.work(1.0)

    def half(chunk, frames):
        frames.next_image()
        frames.commit(chunk.first_frame)
        raise GeneratorError("It broke.")

    broken = rig.runner.scene.generator
    broken.generate = half
    rig.work(0.1)
    failed = rig.queue.newest()
    fresh = plain_generator(frames=2, lookahead_samples=100)
    thread = threading.Thread(target=rig.runner.swap, args=(scene_of(fresh),))
    thread.start()
    while thread.is_alive():
        rig.runner.step()
        thread.join(0.001)
    rig.work(0.2)
    assert len(rig.failures) == 1
    assert fresh.chunks[0].first_frame == failed + 2 and fresh.chunks[0].is_discontinuous
    assert rig.runner.skipped_samples == 2 * 640


def test_end_tells_a_scene_that_waits_and_leaves_it_to_its_owner(rig, scene_of, plain_generator):
    fresh, errors = plain_generator(), []

    def swap():
        try:
            rig.runner.swap(scene_of(fresh), timeout_s=60.0)
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=swap)
    thread.start()
    rig.runner.close()
    thread.join(10.0)
    assert not thread.is_alive() and len(errors) == 1
    assert fresh.closed == 0 and rig.runner.scene.generator.closed == 1


def test_wait_returns_when_a_chunk_is_there(rig):
    waited = []
    rig.pass_time(1.0)
    rig.runner.wait(60.0)
    rig.runner.step()
    thread = threading.Thread(target=lambda: waited.append(rig.runner.wait(0.001)))
    thread.start()
    thread.join(10.0)
    assert waited == [None]


@pytest.fixture
def pair(scene_of, plain_generator):
    """A rig whose generator runs with a standby: (rig, wanted, standby)."""
    wanted, standby = plain_generator(frames=2, name="wanted"), plain_generator(name="standby")
    scene = scene_of(standby)
    made = Rig(scene_of(wanted), standby=scene)
    made.work(1.0)
    return made, wanted, standby


def _break(generator, after=0):
    """Its next chunk fails after so many frames."""

    def generate(chunk, frames):
        for frame in range(chunk.first_frame, chunk.first_frame + after):
            frames.next_image()
            frames.commit(frame)
        raise GeneratorError("It broke.")

    generator.generate = generate


def test_frames_that_were_shown_before_a_failure_are_not_made_again(pair, caplog):
    rig, wanted, standby = pair
    rig.queue.take_due(10_000)
    _break(wanted, after=1)
    take = rig.queue.commit
    rig.queue.commit = lambda frame: (take(frame), rig.queue.take_due(frame))
    rig.work(0.2)
    last = wanted.chunks[-1].first_frame + 2
    assert standby.chunks[0].first_frame == last + 1 and rig.runner.skipped_samples == 0
    assert rig.runner.is_standing_in and wanted.closed == 1 and len(rig.failures) == 1


def test_standby_that_cannot_stand_in_leaves_the_last_picture(pair, caplog):
    rig, wanted, standby = pair
    standby.reset = lambda: 1 / 0
    _break(wanted)
    rig.work(0.5)
    assert rig.runner.has_failed and rig.runner.needs_another and standby.chunks == [] and len(rig.failures) == 1


def test_generator_that_cannot_be_closed_does_not_end_the_session(pair, caplog):
    rig, wanted, standby = pair
    wanted.close = lambda: 1 / 0
    _break(wanted)
    rig.work(0.5)
    assert standby.chunks and "could not be closed" in caplog.text


def test_another_standby_closes_the_old_one_and_nothing_else(pair, scene_of, plain_generator):
    rig, wanted, old = pair
    fresh = plain_generator(name="fresh")
    rig.swap(standby=scene_of(fresh))
    rig.work(0.2)
    assert (old.closed, fresh.closed, wanted.closed) == (1, 0, 0) and rig.runner.scene.generator is wanted
    _break(wanted)
    rig.work(0.2)
    assert rig.runner.scene.generator is fresh and rig.runner.is_standing_in


def test_another_standby_takes_over_where_the_old_one_runs(pair, scene_of, plain_generator, caplog):
    rig, wanted, old = pair
    _break(wanted)
    rig.work(0.2)
    fresh = plain_generator(name="fresh")
    rig.swap(standby=scene_of(fresh))
    rig.work(0.2)
    assert rig.runner.is_standing_in and rig.runner.scene.generator is fresh and (old.closed, fresh.closed) == (1, 0)
    assert fresh.chunks[0].first_frame == old.chunks[-1].first_frame + 1 and rig.runner.skipped_samples == 0


def test_both_at_once_take_over_together(pair, scene_of, plain_generator):
    rig, wanted, old = pair
    fresh, standby = plain_generator(name="fresh"), plain_generator(name="standby")
    rig.swap(scene_of(fresh), standby=scene_of(standby))
    rig.work(0.2)
    assert [g.closed for g in (wanted, old, fresh, standby)] == [1, 1, 0, 0]
    assert rig.runner.scene.generator is fresh and not rig.runner.needs_another


def test_swap_that_is_given_up_changes_neither(pair, scene_of, plain_generator):
    rig, wanted, standby = pair
    unused = [plain_generator(), plain_generator()]
    with pytest.raises(GeneratorError):
        rig.runner.swap(scene_of(unused[0]), standby=scene_of(unused[1]), timeout_s=0.01)
    rig.work(0.2)
    _break(wanted)
    rig.work(0.2)
    assert rig.runner.scene.generator is standby and standby.closed == 0 and not any(g.chunks for g in unused)


def test_another_canvas_of_a_generator_that_has_failed_is_refused(pair, scene_of, caplog):
    rig, wanted, standby = pair
    _break(wanted)
    rig.work(0.2)
    with pytest.raises(Outdated):
        rig.swap(scene_of(wanted, canvas="other"), is_same_generator=True)
    assert rig.runner.scene.generator is standby and wanted.closed == 1


@pytest.mark.parametrize(("generate_s", "expected_s"), [(0.0, 5.0), (4.0, 17.0), (10.0, 35.0)])
def test_swap_waits_as_long_as_the_running_chunk_may_take(pair, scene_of, monkeypatch, generate_s, expected_s):
    rig, wanted, _ = pair
    waited = []
    monkeypatch.setattr(Swap, "wait", lambda self, timeout_s: waited.append(timeout_s) or True)
    rig.runner.generate_s = generate_s
    rig.runner.swap(scene_of(wanted))
    assert waited == [expected_s]


def test_failure_of_a_chunk_that_the_end_interrupted_is_not_told(pair, caplog):
    rig, wanted, _ = pair
    _break(wanted)
    rig.pass_time(0.2)
    rig.runner.end()
    rig.runner.step()
    assert rig.failures == [] and not rig.runner.is_standing_in
    with pytest.raises(Cancelled):
        rig.runner.swap(rig.runner.scene)


@pytest.mark.parametrize(("frames", "lookahead", "generate_s"), [(1, 640, 0.008), (28, 0, 0.6), (4, 0, 0.0)])
def test_needed_delay_covers_every_part_and_a_margin(frames, lookahead, generate_s):
    parts = frames / 25 + lookahead / 16_000 + 0.05 + generate_s
    delay_s = needed_delay_s(frames, 25, lookahead, generate_s, 0.05)
    assert parts + 0.0099 <= delay_s <= parts + max(0.0101, 0.25 * generate_s)


class SlowRig(Rig):
    """Chunks of a second that take 0.4 s to make, in a session whose delay is right for them; muted at a given time,
    whatever goes on then."""

    def __init__(self, scene, mute_at_s):
        super().__init__(scene)
        self.runner.delay_s = 1.6
        self.mute_at_s = mute_at_s
        scene.generator.during = lambda: [self.pass_time(0.010) for _ in range(40)]

    def pass_time(self, seconds):
        super().pass_time(seconds)
        if self.mute_at_s is not None and self.clock.now() >= self.mute_at_s:
            self.mute_at_s = None
            self.timeline.silence_from(self.sample_clock.sample_at(self.clock.now() - 1.6))
            self.runner.begin_anew()


@pytest.mark.parametrize("mute_at_s", [13.1, 13.35, 13.7, 14.02])
def test_nothing_that_was_said_is_shown_after_mute(scene_of, plain_generator, mute_at_s):
    """During a chunk or between two: every frame that is shown afterwards was made of silence, and is in time."""
    generator = plain_generator(frames=25)
    rig = SlowRig(scene_of(generator, generate_s=0.4), mute_at_s)
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
