"""A file heard as if somebody spoke it, and silence: sample-exact on a clock moved by hand."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from engine.audio.audio_file import AudioFile
from engine.audio.sources import FileInRealTime, Silence
from engine.clock import ManualClock
from engine.errors import AudioFileError


@pytest.fixture
def ramp(tmp_path):
    """A file of 1.5 s at 48 kHz in stereo, whose samples are known."""
    sound = np.stack([np.linspace(-1, 1, 72_000), np.linspace(1, -1, 72_000)], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "ramp.wav", sound, 48_000, subtype="FLOAT")
    return tmp_path / "ramp.wav", sound


def _heard(source, clock, steps_s):
    """Everything read, one step after another; checks that numbers and times follow."""
    blocks, start_s, expected = [], clock.now(), 0
    for step_s in steps_s:
        clock.advance(step_s)
        block = source.read()
        if block is None:
            continue
        assert block.first_sample == expected and block.samples.dtype == np.float32
        assert block.captured_at_s == pytest.approx(start_s + block.first_sample / block.rate_hz)
        expected += len(block.samples)
        blocks.append(block.samples)
    return np.concatenate(blocks)


@pytest.mark.parametrize("step_s", [0.001, 0.010, 0.0333, 0.7, 5.0])
def test_file_comes_whole_and_in_time(ramp, step_s):
    path, sound = ramp
    clock = ManualClock(20.0)
    source = FileInRealTime(AudioFile(path))
    assert (source.rate_hz, source.channels, source.label) == (48_000, 2, "ramp.wav")
    source.start(clock)
    assert not source.has_ended
    assert np.array_equal(_heard(source, clock, [step_s] * int(1.6 / step_s + 2)), sound)
    assert source.has_ended and source.read() is None


def test_no_more_is_heard_than_time_has_passed(ramp):
    clock = ManualClock()
    source = FileInRealTime(AudioFile(ramp[0]))
    source.start(clock)
    assert source.read() is None
    clock.advance(0.5)
    assert len(source.read().samples) == 24_000 and source.read() is None


def test_looped_file_has_no_seam(ramp):
    path, sound = ramp
    clock = ManualClock()
    source = FileInRealTime(AudioFile(path), is_looped=True)
    source.start(clock)
    heard = _heard(source, clock, [0.01] * 500)
    assert len(heard) == pytest.approx(240_000, abs=1) and not source.has_ended
    assert np.array_equal(heard, np.resize(sound, heard.shape))


def test_file_that_is_nothing_fails_at_the_start_not_in_a_call(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), 16_000)
    source = FileInRealTime(AudioFile(tmp_path / "none.wav"))
    with pytest.raises(AudioFileError):
        source.start(ManualClock())


def test_stopped_file_gives_the_rest_of_its_block_at_most(ramp):
    clock = ManualClock()
    source = FileInRealTime(AudioFile(ramp[0]))
    source.start(clock)
    clock.advance(0.1)
    source.read()
    source.stop()
    source.stop()
    clock.advance(100.0)
    while source.read() is not None:
        pass
    assert source.has_ended


def test_silence_lasts_as_long_as_time():
    clock = ManualClock(3.0)
    source = Silence()
    source.start(clock)
    assert source.read() is None
    heard = _heard(source, clock, [0.0101, 0.25, 60.0])
    assert heard.shape == (int(60.2601 * 16_000), 1) and not heard.any()
    assert not source.has_ended and source.overflows == 0
    source.stop()
