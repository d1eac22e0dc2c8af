"""Noise suppression: speech in its place, noise gone, and one sentence where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import soxr

from engine.assets import asset_path
from engine.audio.audio_file import AudioFile, to_mono
from engine.audio.suppression import HELD_S, RATE_HZ, Suppressor, check_suppression
from engine.errors import UsageError

needs_library = pytest.mark.skipif(find_spec("pyrnnoise") is None, reason="the denoise extra is not installed")


@pytest.fixture(scope="module")
def speech():
    file = AudioFile(asset_path("speech/welcome.flac"))
    return soxr.resample(to_mono(file.read_all()), file.rate_hz, RATE_HZ).astype(np.float32)[: 6 * RATE_HZ]


def _through(sound, block=441):
    suppressor = Suppressor()
    return np.concatenate([suppressor.push(sound[i : i + block]) for i in range(0, len(sound), block)])


@needs_library
@pytest.mark.parametrize("block", [441, 480, 4800])
def test_speech_stays_where_it_is(speech, block):
    out = _through(speech, block)
    assert 0 <= len(speech) - len(out) <= HELD_S * RATE_HZ
    size = len(out)
    spectrum = np.fft.rfft(out, 2 * size) * np.conj(np.fft.rfft(speech[:size], 2 * size))
    lag = int(np.fft.irfft(spectrum).argmax())
    assert min(lag, 2 * size - lag) <= 24, "half a millisecond"
    assert np.corrcoef(out, speech[:size])[0, 1] > 0.95


@needs_library
def test_noise_is_taken_away_from_under_the_speech(speech):
    noise = (0.01 * np.random.default_rng(0).normal(size=4 * RATE_HZ)).astype(np.float32)
    assert np.std(_through(noise)[RATE_HZ:]) < 0.05 * np.std(noise)
    noisy = _through(speech + 0.01 * np.random.default_rng(1).normal(size=len(speech)).astype(np.float32))
    assert np.corrcoef(noisy, speech[: len(noisy)])[0, 1] > 0.95


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None), SimpleNamespace(origin="/nowhere/__init__.py")])
def test_what_is_not_there_is_one_sentence(spec):
    with pytest.raises(UsageError) as caught:
        check_suppression(lambda name: spec)
    assert caught.value.code == "sound.no_suppression" and caught.value.hint


def test_library_of_another_kind_is_refused(tmp_path):
    (tmp_path / "librnnoise.so").write_bytes(b"no library")
    with pytest.raises(UsageError):
        check_suppression(lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
