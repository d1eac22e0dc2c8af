"""The real pipeline, stepped by hand: minutes of stream in seconds, with exact frame numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.audio.audio_file import AudioFile
from engine.audio.sources import FileInRealTime, Silence
from engine.clock import ManualClock
from engine.errors import GeneratorError
from engine.generators.base import GeneratorSpec
from engine.media import AudioBlock, ChunkSpec
from engine.settings import SessionSettings
from engine.stream.graph import Graph
from engine.stream.swap import Scene

FPS = 25


class Generator:
    """Writes each frame's number and whether its sound is loud into the picture; takes `generate_s`, during which
    `meanwhile` lets the others work."""

    def __init__(self, meanwhile, *, frames=1, lookahead_samples=640, generate_s=0.008):
        self.spec = GeneratorSpec(
            name="test",
            width=64,
            height=36,
            chunk=ChunkSpec(fps=FPS, frames=frames, lookahead_samples=lookahead_samples),
        )
        self._meanwhile = meanwhile
        self.generate_s = generate_s
        self.discontinuities, self.closed, self.fail_at = [], 0, None

    def check(self):
        pass

    def take_notices(self):
        return []

    def generate(self, chunk, frames):
        if chunk.is_discontinuous:
            self.discontinuities.append(chunk.first_frame)
        if self.fail_at is not None and chunk.first_frame >= self.fail_at:
            raise GeneratorError("It broke.")
        self._meanwhile(self.generate_s)
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            at = frame * 640 - chunk.first_sample
            image = frames.next_image()
            image[:] = 200 if np.abs(chunk.samples[at : at + 640]).max() > 0.1 else 10
            image[0, 0] = (frame >> 16 & 255, frame >> 8 & 255, frame & 255)
            frames.commit(frame)

    def reset(self):
        pass

    def close(self):
        self.closed += 1


class PlainCanvas:
    @staticmethod
    def compose(image):
        return image


class Stepper:
    """Runs the graph as its threads would, on one clock: audio every 10 ms, the pacer at its deadlines."""

    def __init__(self, source=None, **options):
        self.clock = ManualClock(100.0)
        self.generator = Generator(lambda s: self.run(s, may_generate=False, may_pace=self._may_pace), **options)
        self.presented, self.times, self.failures = [], [], []
        self.graph = Graph(
            Scene(
                generator=self.generator,
                canvas=PlainCanvas,
                generate_s=self.generator.generate_s,
                first_frame_s=self.generator.generate_s,
            ),
            SessionSettings(portrait="unused"),
            self.clock,
            present=self._present,
            on_failure=self.failures.append,
        )
        source = source or Silence()
        source.start(self.clock)
        self.graph.go_live(source)
        self._hear_s = self._pace_s = self.clock.now()
        self._may_pace = True

    def _present(self, frame):
        number = int.from_bytes(bytes(frame.image[0, 0]), "big")
        self.presented.append((frame.tick, frame.frame, number, int(frame.image[10, 10, 0])))
        self.times.append(self.clock.now())

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
            self.clock.advance(max(0.001, min(waits) - self.clock.now()))


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
