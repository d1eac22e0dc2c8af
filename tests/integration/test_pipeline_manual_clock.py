"""The real pipeline, stepped by hand: minutes of stream in seconds, with exact frame numbers."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.audio.audio_file import AudioFile
from engine.audio.sources import FileInRealTime, Silence
from engine.clock import ManualClock
from engine.errors import GeneratorError
from engine.generators.base import GeneratorSpec
from engine.media import AudioBlock, ChunkSpec, Notice
from engine.settings import SessionSettings
from engine.stream.graph import Graph
from engine.stream.swap import Scene

FPS = 25


class Generator:
    """Writes each frame's number, its maker and how loud its sound is into the picture. A chunk takes `generate_s`,
    the first `first_s` (all of it unless told) of them until its first frame, during which `meanwhile` lets the others
    work. `fail_at` is a frame whose chunk breaks, after as many of its frames as `frames_before_failure`."""

    def __init__(self, meanwhile, *, frames=1, lookahead_samples=640, generate_s=0.008, first_s=None, maker=1):
        self.spec = GeneratorSpec(
            name="test",
            width=64,
            height=36,
            chunk=ChunkSpec(fps=FPS, frames=frames, lookahead_samples=lookahead_samples),
        )
        self._meanwhile, self._maker = meanwhile, maker
        self.generate_s, self.first_s = generate_s, generate_s if first_s is None else first_s
        self.discontinuities, self.closed, self.resets, self.notices = [], 0, 0, []
        self.fail_at, self.frames_before_failure = None, 0
        self.made = []

    def check(self):
        pass

    def take_notices(self):
        taken, self.notices = self.notices, []
        return taken

    def generate(self, chunk, frames):
        if chunk.is_discontinuous:
            self.discontinuities.append(chunk.first_frame)
        fails = self.fail_at is not None and chunk.first_frame + chunk.frames > self.fail_at
        count = self.frames_before_failure if fails else chunk.frames
        if count:
            self._meanwhile(self.first_s)
        for frame in range(chunk.first_frame, chunk.first_frame + count):
            at = frame * 640 - chunk.first_sample
            own = np.abs(chunk.samples[at : at + 640])
            image = frames.next_image()
            image[:] = 200 if own.max() > 0.1 else 10
            image[0, 0] = (frame >> 16 & 255, frame >> 8 & 255, frame & 255)
            image[0, 1] = (self._maker, round(float(own.min()) * 250), round(float(own.max()) * 250))
            self.made.append(frame)
            frames.commit(frame)
            if self.generate_s > self.first_s:
                self._meanwhile((self.generate_s - self.first_s) / chunk.frames)
        if fails:
            raise GeneratorError("It broke.")

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed += 1


class PlainCanvas:
    @staticmethod
    def compose(image):
        return image


class Stepper:
    """Runs the graph as its threads would, on one clock: audio every 10 ms, the pacer at its deadlines.

    With `wanted`, the generator is a standby and the delay is made for another one with these options, `self.wanted`.
    """

    def __init__(self, source=None, *, wanted=None, planned_s=None, **options):
        self.clock = ManualClock(100.0)
        self.generator = self._make(**options)
        self.presented, self.times, self.failures, self.made_by, self.heard = [], [], [], [], []
        scene = self._scene(self.generator)
        extra = {}
        if wanted is not None:
            self.wanted = self._make(**wanted, maker=2)
            planned_s = self.wanted.first_s if planned_s is None else planned_s
            extra = {"standby": scene, "coming": (self.wanted.spec.chunk, planned_s)}
        self.notices = []
        self.graph = Graph(
            scene,
            SessionSettings(portrait="unused"),
            self.clock,
            present=self._present,
            on_failure=self.failures.append,
            on_notice=self.notices.append,
            **extra,
        )
        source = source or Silence()
        source.start(self.clock)
        self.graph.go_live(source)
        self._hear_s = self._pace_s = self.clock.now()
        self._may_pace = True

    def _make(self, **options):
        return Generator(lambda s: self.run(s, may_generate=False, may_pace=self._may_pace), **options)

    @staticmethod
    def _scene(generator):
        return Scene(
            generator=generator,
            canvas=PlainCanvas,
            generate_s=generator.generate_s,
            first_frame_s=generator.first_s,
        )

    def _present(self, frame):
        number = int.from_bytes(bytes(frame.image[0, 0]), "big")
        self.presented.append((frame.tick, frame.frame, number, int(frame.image[10, 10, 0])))
        self.times.append(self.clock.now())
        maker, *heard = (int(value) for value in frame.image[0, 1])
        self.made_by.append(maker)
        self.heard.append(tuple(heard))

    def run(self, seconds, *, may_generate=True, may_pace=True):
        end_s = self.clock.now() + seconds
        self._may_pace = may_pace
        while self.clock.now() < end_s:
            now_s = self.clock.now()
            if now_s >= self._hear_s:
                self.graph.listener.step()
                self._hear_s = max(self._hear_s + 0.010, now_s)
            if may_pace and now_s >= self._pace_s:
                self._pace_s = self.graph.pacer.tick(now_s)
            if may_generate and self.graph.runner.step():
                continue
            waits = [self._hear_s, self._pace_s] if may_pace else [self._hear_s]
            self.clock.advance(max(0.001, min(*waits, end_s) - self.clock.now()))

    def swap(self, generator):
        """Let `generator` take over, as the thread that prepared it would."""
        thread = threading.Thread(target=self.graph.runner.swap, args=(self._scene(generator),))
        thread.start()
        while thread.is_alive():
            self.graph.runner.step()
            thread.join(0.001)


@pytest.fixture
def clicks(tmp_path) -> Path:
    """Ten minutes at 44.1 kHz with 40 ms of noise at every tenth second, exactly on frame 250, 500, ..."""
    rate_hz = 44_100
    sound = np.zeros(600 * rate_hz, np.float32)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, int(0.04 * rate_hz)).astype(np.float32)
    for second in range(10, 600, 10):
        sound[second * rate_hz :][: len(noise)] = noise
    soundfile.write(tmp_path / "clicks.flac", sound, rate_hz)
    return tmp_path / "clicks.flac"


def test_ten_minutes_show_every_frame_once_in_order_and_with_its_sound(clicks):
    stepper = Stepper(FileInRealTime(AudioFile(clicks)))
    stepper.run(599.0)
    ticks, frames, numbers, levels = zip(*stepper.presented, strict=True)
    assert ticks == tuple(range(len(ticks))) and frames == ticks and numbers == ticks
    assert len(ticks) == pytest.approx(599 * FPS, abs=5)
    loud = [tick for tick, level in zip(ticks, levels, strict=True) if level == 200]
    expected = [second * FPS for second in range(10, 599, 10)]
    # The resampler's ringing may touch the neighbours; the frame itself must be there each time, after ten minutes too.
    assert set(expected) <= set(loud) <= {f + d for f in expected for d in (-1, 0, 1)}
    pacer = stepper.graph.pacer
    assert (pacer.held, pacer.dropped, pacer.late, stepper.graph.runner.skipped_samples) == (0, 0, 0, 0)


def test_frames_are_presented_at_even_times():
    stepper = Stepper()
    stepper.run(60.0)
    gaps = np.diff(stepper.times)
    assert np.abs(gaps - 0.040).max() < 0.011  # steps of the hand-driven clock


def test_latency_of_the_puppet_is_below_200_ms():
    stepper = Stepper()
    stepper.run(20.0)
    assert stepper.graph.pacer.latency_s() < 0.200
    assert stepper.graph.pacer.latency_s() == pytest.approx(stepper.graph.delay_s, abs=0.012)


@pytest.mark.parametrize("stall_s", [0.1, 1.0, 7.3])
def test_stalled_pacer_never_bursts(stall_s):
    stepper = Stepper()
    stepper.run(5.0)
    before = len(stepper.presented)
    stepper.run(stall_s, may_pace=False)
    stepper.run(5.0)
    assert np.diff(stepper.times[before - 1 :]).min() >= 0.0199
    pacer = stepper.graph.pacer
    assert pacer.late == pytest.approx(stall_s * FPS, abs=2)
    assert stepper.presented[-1][1] == stepper.presented[-1][0], "back in step with the sound"
    assert pacer.ticks == pacer.presented + pacer.held + pacer.late + pacer_start(stepper)


def pacer_start(stepper) -> int:
    """Ticks before the first frame was finished: nothing to hold yet."""
    return stepper.presented[0][0]


def test_stalled_generator_holds_then_skips_and_is_in_step_again():
    stepper = Stepper()
    stepper.run(5.0)
    stepper.run(3.0, may_generate=False)
    held = stepper.graph.pacer.held
    assert held == pytest.approx(3.0 * FPS, abs=4)
    stepper.run(5.0)
    assert stepper.graph.pacer.held - held <= 4
    assert stepper.graph.runner.skipped_samples > 2.5 * 16_000
    assert len(stepper.generator.discontinuities) == 2  # the beginning, and after the gap
    tick, frame, number, _ = stepper.presented[-1]
    assert tick == frame == number


def test_generator_slower_than_real_time_stays_within_its_delay():
    stepper = Stepper(generate_s=0.060)
    stepper.run(30.0)
    runner, pacer = stepper.graph.runner, stepper.graph.pacer
    assert runner.skipped_samples > 0 and pacer.held > 0
    assert pacer.latency_s() < stepper.graph.delay_s + 0.15
    numbers = [n for _, _, n, _ in stepper.presented]
    assert numbers == sorted(numbers)


def test_chunked_generator_gets_its_delay_and_loses_nothing():
    stepper = Stepper(frames=28, lookahead_samples=0, generate_s=0.7)
    assert 1.8 < stepper.graph.delay_s < 2.2
    stepper.run(60.0)
    pacer = stepper.graph.pacer
    assert (pacer.held, pacer.dropped, pacer.late) == (0, 0, 0)
    assert [t for t, *_ in stepper.presented] == [f for _, f, *_ in stepper.presented]


def test_generator_that_fails_is_reported_once_and_its_picture_held():
    stepper = Stepper()
    stepper.generator.fail_at = 100
    stepper.run(10.0)
    assert [error.message for error in stepper.failures] == ["It broke."]
    assert stepper.presented[-1][1] == 99 and stepper.graph.pacer.held > 100
    assert len(np.unique(np.diff([t for t, *_ in stepper.presented]))) == 1


class Interrupted:
    """A microphone that delivers nothing between two times, and whose clock is `ppm` fast."""

    rate_hz, channels, label, has_ended, overflows = 16_000, 1, "mic", False, 0

    def __init__(self, gap=(1e9, 1e9), ppm=0.0):
        self._gap, self._rate = gap, 16_000 * (1 + ppm * 1e-6)
        self._position, self._lost = 0, 0

    def start(self, clock):
        self._clock, self._started_s = clock, clock.now()

    def read(self):
        elapsed_s = self._clock.now() - self._started_s
        count = int(elapsed_s * self._rate) - self._position - self._lost
        if self._gap[0] <= elapsed_s < self._gap[1]:
            self._lost += count
            return None
        if count <= 0:
            return None
        first = self._position
        self._position += count
        captured_at_s = self._started_s + (first + self._lost) / self._rate
        samples = np.full((count, 1), 0.5, np.float32)
        return AudioBlock(first_sample=first, samples=samples, rate_hz=16_000, captured_at_s=captured_at_s)

    def stop(self):
        pass


def test_microphone_gap_rests_and_comes_back_in_step():
    stepper = Stepper(Interrupted(gap=(5.0, 8.0)))
    stepper.run(15.0)
    levels = {tick: level for tick, _, _, level in stepper.presented}
    assert all(levels[tick] == 10 for tick in range(5 * FPS + 4, 8 * FPS - 2))
    assert all(levels[tick] == 200 for tick in range(8 * FPS + 8, 14 * FPS))
    assert stepper.graph.pacer.held <= 5, "the picture goes on without the microphone"
    assert stepper.graph.listener.missing_samples > 0


@pytest.mark.parametrize("ppm", [-100.0, 100.0])
def test_microphone_clock_is_followed(ppm):
    """100 ppm are 60 ms in ten minutes: unfollowed, the generator would run dry or the sound queue up."""
    stepper = Stepper(Interrupted(ppm=ppm))
    stepper.run(600.0)
    pacer = stepper.graph.pacer
    assert pacer.held == 0 and pacer.dropped == 0 and pacer.late == 0
    assert pacer.presented == pytest.approx(600 * FPS * (1 + ppm * 1e-6), abs=6)
    assert stepper.graph.listener.missing_samples == 0


def test_mute_drops_what_has_been_said_but_not_shown():
    stepper = Stepper(Interrupted(), frames=28, lookahead_samples=0, generate_s=0.5)
    stepper.run(10.0)
    shown = stepper.presented[-1][0]
    stepper.graph.listener.is_muted = True
    stepper.graph.silence_unpresented()
    stepper.run(6.0)
    levels = {tick: level for tick, _, _, level in stepper.presented}
    # What the generator had already made of it (less than a chunk and its time) is the only rest.
    assert levels[shown + 60] == 10 and levels[shown + 120] == 10


class Counting:
    """A microphone whose sound says which frame it belongs to: 0 to 249 of 250 of full scale, then again."""

    rate_hz, channels, label, has_ended, overflows = 16_000, 1, "mic", False, 0

    def start(self, clock):
        self._clock, self._started_s, self._position = clock, clock.now(), 0

    def read(self):
        first, self._position = self._position, round((self._clock.now() - self._started_s) * 16_000)
        if first == self._position:
            return None
        samples = (np.arange(first, self._position) // 640 % 250 / 250).astype(np.float32)
        return AudioBlock(
            first_sample=first,
            samples=samples[:, None],
            rate_hz=16_000,
            captured_at_s=self._started_s + first / 16_000,
        )

    def stop(self):
        pass


def assert_every_frame_once_with_its_own_sound(stepper):
    ticks, frames, numbers, _ = zip(*stepper.presented, strict=True)
    assert ticks == frames == numbers == tuple(range(len(ticks)))
    assert stepper.heard == [(frame % 250, frame % 250) for frame in frames]
    pacer, runner = stepper.graph.pacer, stepper.graph.runner
    lost = (pacer.held, pacer.dropped, pacer.late, stepper.graph.queue.dropped, runner.skipped_samples)
    assert lost == (0, 0, 0, 0, 0)


SLOW = {"frames": 28, "lookahead_samples": 0}


@pytest.mark.parametrize(("first_s", "generate_s"), [(0.2, 1.0), (0.7, 0.7), (0.7, 1.05), (1.1, 1.1)])
@pytest.mark.parametrize("moment_s", [0.5, 3.0, 3.013, 5.777, 8.39])
def test_slow_generator_takes_over_from_its_standby_without_a_gap(first_s, generate_s, moment_s):
    stepper = Stepper(Counting(), wanted={**SLOW, "first_s": first_s, "generate_s": generate_s})
    stepper.run(moment_s)
    stepper.swap(stepper.wanted)
    stepper.run(10.0)
    assert_every_frame_once_with_its_own_sound(stepper)
    assert len(stepper.presented) > (moment_s + 10 - stepper.graph.delay_s) * FPS - 2
    assert set(stepper.made_by) == {1, 2} and stepper.made_by == sorted(stepper.made_by), "one change, for good"
    assert len(stepper.wanted.discontinuities) == 1 and stepper.generator.closed == 0


def test_standby_on_a_slow_machine_still_makes_what_the_other_one_would_be_late_for():
    """22 frames of 25 ms each: while they are made, half a second passes, and the other one is as much later."""
    stepper = Stepper(Counting(), generate_s=0.025, wanted={**SLOW, "generate_s": 1.1})
    stepper.run(4.0)
    stepper.swap(stepper.wanted)
    stepper.run(8.0)
    assert_every_frame_once_with_its_own_sound(stepper)
    assert stepper.made_by[-1] == 2


def test_other_way_round_frames_come_from_the_slow_one_until_the_other_is_ready():
    stepper = Stepper(Counting(), wanted={**SLOW, "generate_s": 0.7})
    stepper.run(3.0)
    stepper.swap(stepper.wanted)
    stepper.run(6.0)
    stepper.swap(stepper._make(**SLOW, generate_s=0.7, maker=3))
    stepper.run(6.0)
    assert_every_frame_once_with_its_own_sound(stepper)
    assert stepper.wanted.closed == 1 and stepper.made_by[-1] == 3


@pytest.mark.parametrize("frames_before_failure", [0, 1, 13, 27, 28])
@pytest.mark.parametrize(("first_s", "generate_s"), [(0.2, 1.0), (0.7, 0.7)])
def test_failure_within_a_chunk_loses_no_frame_and_repeats_none(first_s, generate_s, frames_before_failure):
    stepper = Stepper(Counting(), wanted={**SLOW, "first_s": first_s, "generate_s": generate_s})
    stepper.run(3.0)
    stepper.swap(stepper.wanted)
    stepper.wanted.fail_at, stepper.wanted.frames_before_failure = 200, frames_before_failure
    stepper.run(12.0)
    assert_every_frame_once_with_its_own_sound(stepper)
    assert [error.message for error in stepper.failures] == ["It broke."]
    last = stepper.wanted.made[-1]
    assert stepper.made_by.index(2) == stepper.wanted.made[0], "the last of the standby is the one before"
    assert set(stepper.made_by[last + 1 :]) == {1} and stepper.made_by[last] == 2
    assert stepper.generator.resets == 1 and stepper.generator.discontinuities[-1] == last + 1
    assert (stepper.wanted.closed, stepper.generator.closed) == (1, 0)


def test_failure_return_and_failure_again():
    stepper = Stepper(Counting(), wanted={**SLOW, "first_s": 0.3, "generate_s": 0.9})
    shown = stepper.wanted
    for maker in (2, 3, 4):
        stepper.run(4.0)
        stepper.swap(shown)
        stepper.run(4.0)
        shown.fail_at, shown.frames_before_failure = 0, 5 * maker
        stepper.run(2.0)
        assert stepper.graph.runner.is_standing_in and shown.closed == 1
        shown = stepper._make(**SLOW, first_s=0.3, generate_s=0.9, maker=maker + 1)
    assert_every_frame_once_with_its_own_sound(stepper)
    assert len(stepper.failures) == 3 and set(stepper.made_by) == {1, 2, 3, 4}


def test_frames_are_not_made_long_before_they_are_due():
    """The delay is two seconds here, and what the standby has made another one cannot make any more."""
    stepper = Stepper(Counting(), wanted={**SLOW, "generate_s": 0.7})
    queue, ahead_s = stepper.graph.queue, []
    commit = queue.commit
    queue.commit = lambda frame: (ahead_s.append(stepper.graph.pacer.due_s(frame) - stepper.clock.now()), commit(frame))
    stepper.run(6.0)
    assert stepper.graph.delay_s > 1.9 and min(ahead_s[10:]) > 0.2 and max(ahead_s) <= 0.301
    stepper.swap(stepper.wanted)
    del ahead_s[:]
    stepper.run(8.0)
    # The last frame of a chunk comes with its first one.
    assert max(ahead_s) <= 0.301 + 28 / FPS


def test_wanted_one_that_is_slower_than_planned_is_still_let_in_and_the_picture_moves():
    stepper = Stepper(Counting(), wanted={**SLOW, "generate_s": 1.1}, planned_s=0.3)
    stepper.run(4.0)
    stepper.swap(stepper.wanted)
    stepper.run(20.0)
    numbers = [number for _, _, number, _ in stepper.presented]
    assert numbers == sorted(numbers) and stepper.made_by[-1] == 2
    assert stepper.graph.queue.dropped == 0 and stepper.graph.pacer.latency_s() < stepper.graph.delay_s + 1.2


def test_standby_that_fails_holds_the_picture_until_the_wanted_one_comes():
    stepper = Stepper(Counting(), wanted={**SLOW, "generate_s": 0.7})
    stepper.generator.fail_at = 100
    stepper.run(8.0)
    assert stepper.graph.runner.has_failed and len(stepper.failures) == 1
    assert stepper.graph.pacer.held > 40 and stepper.presented[-1][1] == 99
    stepper.swap(stepper.wanted)
    stepper.run(6.0)
    assert not stepper.graph.runner.needs_another
    tick, frame, number, _ = stepper.presented[-1]
    assert tick == frame == number and stepper.made_by[-1] == 2


def test_file_that_ends_after_a_take_over_is_shown_to_its_end(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(5 * 16_000, 0.5, np.float32), 16_000)
    stepper = Stepper(FileInRealTime(AudioFile(tmp_path / "a.wav")), wanted={**SLOW, "generate_s": 0.7})
    stepper.run(3.0)
    stepper.swap(stepper.wanted)
    graph = stepper.graph
    while not (graph.listener.source.has_ended and graph.is_shown(graph.listener.heard_until)):
        assert stepper.clock.now() < 130.0, "the end is never found"
        stepper.run(0.25)
    loud = [frame for _, frame, _, level in stepper.presented if level == 200]
    assert loud == list(range(5 * FPS)), "every frame of the file, and no other"


def test_what_a_generator_notices_is_passed_on_and_counted():
    stepper = Stepper(Counting())
    stepper.run(2.0)
    note = Notice(code="test.note", message="Begun anew.")
    stepper.generator.notices = [note]
    stepper.run(1.0)
    assert stepper.notices == [note] and stepper.graph.stats(None).recoveries == 1


class Slow:
    """A microphone at 48 kHz whose blocks of 10 ms come `late_s` after their end, with noise that never repeats."""

    rate_hz, channels, label, has_ended, overflows = 48_000, 1, "Headset", False, 0

    def __init__(self, late_s):
        self._late_s, self._position = late_s, 0
        self.said = np.random.default_rng(0).uniform(0.1, 0.9, 30 * 48_000).astype(np.float32)

    def start(self, clock):
        self._clock, self._started_s = clock, clock.now()

    def read(self):
        heard_s = self._clock.now() - self._started_s - self._late_s
        first, self._position = self._position, max(self._position, int(heard_s * 100 + 1e-6) * 480)
        if first == self._position:
            return None
        samples = self.said[first : self._position, None]
        captured_at_s = self._started_s + first / 48_000
        return AudioBlock(first_sample=first, samples=samples, rate_hz=48_000, captured_at_s=captured_at_s)

    def stop(self):
        pass


def _ran_on(late_s, seconds):
    """A session with such a microphone, of which nothing before now counts, and (session s, samples) of its voice."""
    microphone, voice = Slow(late_s), []
    stepper = Stepper(microphone)
    stepper.graph.listener.voice = lambda samples, rate_hz, start_s: voice.append((start_s, samples[:, 0].copy()))
    stepper.run(seconds)
    return stepper, microphone, voice


def _lost(graph):
    pacer, runner = graph.pacer, graph.runner
    return pacer.held, pacer.late, pacer.dropped, runner.skipped_samples, graph.listener.missing_samples


@pytest.mark.parametrize("late_s", [0.0, 0.030, 0.050, 0.070, 0.120, 0.160, 0.200, 0.300, 0.500])
def test_slow_microphone_loses_no_word_and_puts_no_picture_late(late_s):
    """Once it is known, three seconds after its first sound."""
    stepper, microphone, voice = _ran_on(late_s, 4.0)
    graph = stepper.graph
    before, shown = _lost(graph), len(stepper.presented)
    voice.clear()
    stepper.run(16.0)
    heard = np.concatenate([samples for _, samples in voice])
    end = microphone._position
    assert len(heard) >= 15.97 * 48_000 and np.array_equal(heard, microphone.said[end - len(heard) : end])
    steps = np.diff([start_s for start_s, _ in voice])
    assert np.abs(steps - [len(samples) / 48_000 for _, samples in voice[:-1]]).max() < 1e-6, "nor is it torn"
    assert _lost(graph) == before
    ticks, frames, *_ = zip(*stepper.presented, strict=True)
    assert ticks[shown:] == frames[shown:], "each picture in its place"
    graph.look(None)
    stats = graph.stats(None)
    assert graph.delay_s == pytest.approx(0.150, abs=0.012), "the delay stays"
    assert stats.latency_ms == pytest.approx(1000 * (graph.delay_s + graph.listener.way.extra_s), abs=12)
    assert late_s - 0.031 <= graph.listener.way.extra_s <= max(0.0, late_s - 0.010)
    assert [notice.code for notice in stepper.notices] == ["microphone.slow"] * (late_s > 0.085)


@pytest.mark.parametrize("late_s", [0.0, 0.030, 0.050, 0.070, 0.120])
def test_microphone_that_is_not_very_slow_loses_no_word_before_that_either(late_s):
    stepper, microphone, voice = _ran_on(late_s, 20.0)
    heard = np.concatenate([samples for _, samples in voice])
    assert len(heard) >= (20.0 - late_s - 0.030) * 48_000 and np.array_equal(heard, microphone.said[: len(heard)])
    steps = np.diff([start_s for start_s, _ in voice]) - [len(samples) / 48_000 for _, samples in voice[:-1]]
    assert sum(np.abs(steps) > 1e-6) == (late_s > 0.030), "it waits once, for as long as it is slow"
    assert stepper.graph.listener.missing_samples == 0


def test_quicker_microphone_after_a_slow_one_is_not_waited_for():
    stepper = Stepper(Slow(0.300))
    stepper.run(5.0)
    graph, quick = stepper.graph, Slow(0.010)
    assert graph.listener.way.extra_s > 0.2
    held, _, dropped, skipped, missing = _lost(graph)
    quick.start(stepper.clock)
    graph.listener.take_from(quick)
    stepper.run(10.0)
    assert graph.listener.way.extra_s == 0.0
    now = _lost(graph)
    assert now[0] <= held + 2 and now[2] <= dropped + 3 and now[3:] == (skipped, missing)
    tick, frame, *_ = stepper.presented[-1]
    assert tick == frame
