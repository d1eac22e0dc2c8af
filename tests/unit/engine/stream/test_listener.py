"""Sound from the source to everything that needs it, each sample where it belongs in time."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec
import numpy as np
import pytest
import soxr

from engine.assets import asset_path
from engine.audio.audio_file import AudioFile, to_mono
from engine.audio.suppression import HELD_S
from engine.clock import ManualClock
from engine.media import SAMPLE_RATE_HZ, ChunkSpec
from engine.settings import GateSettings
from engine.stream.listener import CAPTURE_S, Listener
from engine.stream.sample_clock import SampleClock
from engine.stream.timeline import Timeline

ORIGIN_S = 5.0


class Recorder:
    """Keeps what it is given."""

    def __init__(self):
        self.blocks = []

    def write_audio(self, samples, first_sample, rate_hz):
        self.blocks.append((np.array(samples), first_sample, rate_hz))


class Rig:
    """A listener and its neighbours on a manual clock; `hear` lets a block of 10 ms be captured and taken."""

    def __init__(self, source):
        self.clock, self.source = ManualClock(ORIGIN_S), source
        self.timeline, self.sample_clock = Timeline(kept_s=20.0), SampleClock(ORIGIN_S)
        self.listener = Listener(self.timeline, self.sample_clock, self.clock)
        self.listener.take_from(source)

    def hear(self, seconds, signal=None, *, is_lost=False):
        """`signal(t)` for `t` in seconds of the session."""
        for _ in range(round(seconds / 0.010)):
            start_s = self.clock.now()
            count = round(0.010 * self.source.rate_hz)
            t = start_s - ORIGIN_S + np.arange(count) / self.source.rate_hz
            if not is_lost:
                self.source.say(np.full(count, 0.5) if signal is None else signal(t), start_s)
            self.clock.advance(0.010)
            self.listener.step()

    def samples(self, start_s, end_s):
        """The timeline between two times of the session (multiples of 40 ms)."""
        frames = round((end_s - start_s) * 25)
        spec = ChunkSpec(fps=25, frames=frames)
        return self.timeline.chunk(round(start_s * 25), spec, is_discontinuous=False).samples


@pytest.fixture
def rig_of(plain_source):
    def make(rate_hz=SAMPLE_RATE_HZ):
        return Rig(plain_source(rate_hz))

    return make


def test_samples_at_the_timelines_rate_arrive_unchanged(rig_of):
    rig = rig_of()
    noise = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
    rig.hear(1.0, lambda t: noise[np.round(t * 16_000).astype(int)])
    assert rig.timeline.end == rig.listener.heard_until == 16_000
    assert np.array_equal(rig.samples(0.0, 1.0), noise)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000, 96_000])
def test_tone_of_any_rate_keeps_its_place_and_strength(rig_of, rate_hz):
    rig = rig_of(rate_hz)

    def tone(t):
        return 0.5 * np.sin(2 * np.pi * 300 * t)

    rig.hear(3.0, tone)
    heard = rig.samples(1.0, 2.0)
    t = 1.0 + np.arange(len(heard)) / 16_000
    phasor = 2 * np.mean(heard * np.exp(-2j * np.pi * 300 * t)) * 1j
    assert abs(phasor) == pytest.approx(0.5, rel=0.02)
    assert abs(np.angle(phasor)) / (2 * np.pi * 300) < 0.0005, "half a millisecond"
    assert rig.listener.missing_samples == 0


def test_stereo_is_averaged(rig_of):
    rig = rig_of()
    rig.hear(0.04, lambda t: np.stack([np.full_like(t, 0.6), np.full_like(t, -0.2)], axis=1))
    assert np.allclose(rig.samples(0.0, 0.04), 0.2)


def test_not_a_number_never_leaves_silence_for_good(rig_of):
    """A driver's bad block must not poison resampler or meter."""
    rig = rig_of(48_000)
    rig.hear(0.5)
    rig.hear(0.02, lambda t: np.full_like(t, np.nan))
    rig.hear(0.01, lambda t: np.full_like(t, np.inf))
    rig.hear(1.0)
    assert np.isfinite(rig.samples(0.0, 1.4)).all()
    assert np.allclose(rig.samples(0.8, 1.4), 0.5, atol=0.01)
    assert np.isfinite([rig.listener.meter.rms_dbfs, rig.listener.meter.peak_dbfs]).all()


def test_everybody_gets_the_same_block_with_its_time(rig_of):
    rig, voice = rig_of(48_000), []
    rig.listener.recorder = recorder = Recorder()
    rig.listener.voice = lambda samples, rate_hz, start_s: voice.append((samples, rate_hz, start_s))
    rig.hear(0.05)
    assert [first for _, first, _ in recorder.blocks] == [0, 480, 960, 1440, 1920]
    assert [start_s for *_, start_s in voice] == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    for (kept, _, rate_hz), (samples, voice_hz, _) in zip(recorder.blocks, voice, strict=True):
        assert rate_hz == voice_hz == 48_000 and np.array_equal(kept, samples) and (kept == 0.5).all()


def test_muted_is_silence_for_everybody_in_step(rig_of):
    rig = rig_of()
    rig.listener.recorder = recorder = Recorder()
    rig.hear(0.2)
    rig.listener.is_muted = True
    rig.hear(0.2)
    rig.listener.is_muted = False
    rig.hear(0.2)
    assert (rig.samples(0.0, 0.2) == 0.5).all() and not rig.samples(0.2, 0.4).any()
    assert (rig.samples(0.4, 0.6) == 0.5).all()
    levels = np.concatenate([samples[:, 0] for samples, *_ in recorder.blocks])
    assert np.array_equal(levels, rig.samples(0.0, 0.6))


def test_muted_meter_falls(rig_of):
    rig = rig_of()
    rig.hear(0.2)
    rig.listener.is_muted = True
    rig.hear(3.0)
    assert rig.listener.meter.rms_dbfs < -60


def test_silent_microphone_does_not_stop_the_timeline(rig_of):
    rig = rig_of()
    rig.hear(1.0)
    rig.hear(2.0, is_lost=True)
    assert rig.timeline.end == pytest.approx((3.0 - CAPTURE_S) * 16_000, abs=161)
    assert rig.listener.heard_until == 16_000
    assert rig.listener.missing_samples == rig.timeline.end - 16_000
    rig.hear(1.0)
    samples = rig.samples(0.0, 3.96)
    assert (samples[:16_000] == 0.5).all() and not samples[16_200:47_900].any() and (samples[48_200:] == 0.5).all()


def test_short_pause_costs_no_word(rig_of):
    """Sound servers under load deliver up to 100 ms at once: nothing may be filled in or cut."""
    rig = rig_of()
    rig.hear(1.0)
    for _ in range(10):
        rig.source.say(np.full(160, 0.25), rig.clock.now())
        rig.clock.advance(0.010)
    pending, rig.source.blocks = rig.source.blocks, []
    rig.listener.step()
    for block in pending:
        rig.source.blocks.append(block)
        rig.listener.step()
    rig.hear(0.5)
    assert (rig.samples(1.0, 1.08) == 0.25).all() and rig.listener.missing_samples == 0


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_sound_that_comes_too_late_is_cut_and_the_rest_is_in_place(rig_of, rate_hz):
    """Each sample says when it was captured, so that wherever one is found can be compared."""
    rig = rig_of(rate_hz)
    rig.listener.recorder = recorder = Recorder()
    rig.hear(1.0, lambda t: t)
    start_s = rig.clock.now()
    rig.hear(0.3, is_lost=True)
    t = start_s - ORIGIN_S + np.arange(int(0.3 * rate_hz)) / rate_hz
    rig.source.say(t, start_s)
    rig.hear(1.0, lambda t: t)
    samples = rig.samples(0.0, 2.2)
    true_s = np.arange(len(samples)) / 16_000
    hole = slice(int(0.99 * 16_000), int(1.33 * 16_000))
    wrong = np.abs(samples - true_s) > 0.001
    wrong[: int(0.02 * 16_000)] = False  # the resampler begins
    assert not wrong[: hole.start].any() and not wrong[hole.stop :].any()
    assert 0.2 < wrong[hole].sum() / 16_000 < 0.31
    ends = 0
    for block, first, rate in recorder.blocks:
        assert rate == rate_hz and first >= ends
        assert block[0, 0] == pytest.approx(first / rate_hz, abs=0.001)
        ends = first + len(block)


def test_blocks_after_a_resync_are_not_cut_again(rig_of):
    rig = rig_of()
    rig.listener.recorder = recorder = Recorder()
    rig.hear(1.0)
    rig.hear(1.0, is_lost=True)
    rig.hear(1.0)
    assert {len(block) for block, *_ in recorder.blocks[-95:]} == {160}


def test_sound_that_was_kept_while_the_program_slept_does_not_run_ahead(rig_of):
    """A sound server goes on recording for a program that is stopped, and hands it all out afterwards, as fast as it
    is taken, with times of now: what would belong into the future is left out, and what is said now keeps its place."""
    rig = rig_of()
    rig.hear(1.0)
    rig.clock.advance(30.0)
    for _ in range(100):  # 20 s of it within one
        rig.source.say(np.full(3200, 0.9), rig.clock.now() - 0.19)
        rig.clock.advance(0.010)
        rig.listener.step()
        now = rig.sample_clock.sample_at(rig.clock.now())
        assert rig.timeline.end <= now + 0.5 * 16_000
    rig.hear(3.0)
    assert (rig.samples(33.0, 34.8) == 0.5).all()


def test_end_of_a_file_is_not_missing_sound(rig_of):
    rig = rig_of()
    rig.hear(0.5)
    rig.source.has_ended = True
    rig.hear(1.0, is_lost=True)
    assert rig.listener.missing_samples == 0 and rig.timeline.end > 1.4 * 16_000


def test_another_source_is_placed_where_it_was_captured(rig_of, plain_source):
    rig = rig_of()
    rig.hear(0.5)
    other = plain_source(48_000)
    rig.clock.advance(0.1)
    rig.source = other
    rig.listener.take_from(other)
    assert rig.listener.source is other
    rig.hear(1.0, lambda t: np.full_like(t, 0.25))
    samples = rig.samples(0.0, 1.4)
    assert (samples[:8000] == 0.5).all() and not samples[8100:9500].any()
    assert np.allclose(samples[9900:], 0.25, atol=0.01)


def test_gap_in_the_numbers_of_a_source_is_placed_anew(rig_of):
    """An overflow: the captured time says where sound belongs, whatever the counter says."""
    rig = rig_of()
    rig.hear(1.0)
    rig.clock.advance(0.1)
    rig.hear(1.0, lambda t: np.where(t < 1.2, 0.25, 0.5))
    samples = rig.samples(0.0, 2.0)
    edge = int(np.flatnonzero(samples[17_700:] == 0.5)[0]) + 17_700
    assert edge == pytest.approx(1.2 * 16_000, abs=0.04 * 16_000)


def test_no_source_is_silence(plain_source):
    clock = ManualClock(0.0)
    timeline = Timeline()
    listener = Listener(timeline, SampleClock(0.0), clock)
    for _ in range(100):
        clock.advance(0.01)
        listener.step()
    assert timeline.end > 0.9 * 16_000 and listener.source is None and listener.missing_samples == 0


GATE = GateSettings(mode="level", level_dbfs=-40.0)


def _murmur(t):
    """Quiet, then loud from 1 s to 2 s, then quiet."""
    return np.where((t >= 1.0) & (t < 2.0), 0.5, 0.001)


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_gate_is_silence_for_the_generator_and_nothing_for_others(rig_of, rate_hz):
    rig, voice = rig_of(rate_hz), []
    rig.listener.voice = lambda samples, rate, start_s: voice.append(samples[:, 0])
    rig.listener.set_gate(GATE)
    rig.hear(3.0, _murmur)
    samples = rig.samples(0.0, 2.92)
    assert not samples[: int(0.96 * 16_000)].any() and not samples[int(2.55 * 16_000) :].any()
    assert np.allclose(samples[int(1.01 * 16_000) : int(1.97 * 16_000)], 0.5, atol=0.02)
    assert rig.timeline.end == pytest.approx(3.0 * 16_000, abs=400), "no sample more or less"
    heard = np.concatenate(voice)
    assert (
        len(heard) == 3 * rate_hz
        and heard.min() > 0
        and np.count_nonzero(heard == 0.5) in range(rate_hz - 2, rate_hz + 3)
    )


def test_gate_that_others_hear_gives_each_block_its_time(rig_of):
    rig, voice = rig_of(48_000), []
    rig.listener.recorder = recorder = Recorder()
    rig.listener.voice = lambda samples, rate, start_s: voice.append((start_s, samples))
    rig.listener.set_gate(msgspec.structs.replace(GATE, is_heard=True))
    rig.hear(3.0, _murmur)
    heard = np.zeros(3 * 48_000)
    for start_s, samples in voice:
        first = round(start_s * 48_000)
        heard[first : first + len(samples)] = samples[:, 0]
    assert (heard[48_002:95_998] == 0.5).all() and not heard[: 48_000 - 1500].any()
    assert 0 < heard[48_000 - 480] < 0.001, "faded in before"
    assert [first for _, first, _ in recorder.blocks] == [round(s * 48_000) for s, _ in voice]


def test_gate_replaces_nothing_across_a_hole(rig_of):
    """What was captured after a hole stands behind it; the fade must not reach over."""
    rig = rig_of()
    rig.listener.set_gate(GATE)
    rig.hear(0.5, lambda t: np.full_like(t, 0.001))
    rig.hear(0.5, is_lost=True)
    rig.hear(0.5)
    samples = rig.samples(0.0, 1.4)
    assert not samples[: int(0.94 * 16_000)].any() and (samples[int(1.01 * 16_000) :] == 0.5).all()


def test_mute_is_not_undone_by_the_gates_look_ahead(rig_of):
    rig = rig_of()
    rig.listener.set_gate(GATE)
    rig.hear(0.5, lambda t: np.full_like(t, 0.001))
    rig.listener.silence_from(0)
    rig.hear(0.5)
    assert not rig.samples(0.0, 0.48).any() and rig.samples(0.52, 0.96).all()


@pytest.mark.skipif(find_spec("pyrnnoise") is None, reason="the denoise extra is not installed")
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_suppressed_speech_keeps_its_place(rig_of, rate_hz):
    file = AudioFile(asset_path("speech/welcome.flac"))
    said = soxr.resample(to_mono(file.read_all()), file.rate_hz, rate_hz).astype(np.float32)
    rig = rig_of(rate_hz)
    rig.listener.has_suppression = True
    rig.listener.take_from(rig.source)
    rig.hear(4.0, lambda t: said[np.round(t * rate_hz).astype(int)])
    heard, true = rig.samples(0.4, 3.4), soxr.resample(said, rate_hz, 16_000)[6400:54_400]
    spectrum = np.fft.rfft(heard, 96_000) * np.conj(np.fft.rfft(true, 96_000))
    lag = int(np.fft.irfft(spectrum).argmax())
    assert min(lag, 96_000 - lag) <= 16, "a millisecond"
    assert 0 <= 4.0 * 16_000 - rig.timeline.end <= (HELD_S + 0.025) * 16_000


def test_push_to_talk_is_silence_for_everybody_but_while_it_is_held(rig_of):
    rig, voice = rig_of(), []
    rig.listener.voice = lambda samples, rate, start_s: voice.append(samples[:, 0])
    rig.listener.talk_key.is_needed = True
    rig.hear(0.2)
    rig.listener.talk_key.press(rig.clock.now())
    rig.hear(0.2)
    rig.listener.talk_key.release(rig.clock.now())
    rig.hear(0.4)
    samples = rig.samples(0.0, 0.8)
    assert not samples[:3199].any() and (samples[3300:6400] == 0.5).all() and not samples[6402 + 2400 :].any()
    assert np.array_equal(np.concatenate(voice), samples)
