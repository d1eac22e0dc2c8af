"""Loudness against pyloudnorm, an independent meter."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from engine.errors import GeneratorError
from engine.generators.flashtalk.loudness import integrated_loudness, normalize_loudness
from engine.media import SAMPLE_RATE_HZ

pyloudnorm = pytest.importorskip("pyloudnorm")

LENGTHS = [6400, 6401, 7199, 7200, 7201, 13337, 17600, 127_999, 128_000]
"""One block, the rounding of the number of blocks, a last block that reaches past the end, the stream's 8 s."""


def _speech_like(samples: int, *, peak: float, seed: int = 0) -> np.ndarray:
    """Noise whose level changes every 31 ms, with a stretch 80 dB down, so that both gates have work."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.random(samples // 500 + 1), 500)[:samples] ** 3
    sound = rng.normal(0, peak / 3, samples) * envelope
    sound[samples // 3 : samples // 2] *= 1e-4
    return sound


def _oracle(samples: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(pyloudnorm.Meter(SAMPLE_RATE_HZ).integrated_loudness(samples))


@pytest.mark.parametrize("peak", [1e-3, 0.1, 1.5])
@pytest.mark.parametrize("length", LENGTHS)
def test_loudness_is_that_of_an_independent_meter(length: int, peak: float) -> None:
    sound = _speech_like(length, peak=peak)
    assert integrated_loudness(sound) == pytest.approx(_oracle(sound), abs=1e-9)


@pytest.mark.parametrize("drop_db", [12.0, 12.6, 13.0, 14.0])
def test_blocks_on_either_side_of_the_relative_gate(drop_db: float) -> None:
    """Half of the sound at full level, half that much below: the gate lies 12.8 dB below the louder half."""
    sound = np.random.default_rng(2).normal(0, 0.1, 128_000)
    sound[64_000:] *= 10 ** (-drop_db / 20)
    loudness = integrated_loudness(sound)
    assert loudness == pytest.approx(_oracle(sound), abs=1e-9)
    assert (loudness > _oracle(sound[:64_000]) - 1.0) == (drop_db > 12.8)


def test_normalized_sound_has_the_wanted_loudness_and_shape() -> None:
    sound = _speech_like(128_000, peak=0.05).astype(np.float32)
    before = sound.copy()
    normalized = normalize_loudness(sound)
    assert normalized.dtype == np.float32
    assert integrated_loudness(normalized) == pytest.approx(-23.0, abs=1e-5)
    gain = 10 ** ((-23.0 - _oracle(sound.astype(np.float64))) / 20)
    np.testing.assert_allclose(normalized, sound.astype(np.float64) * gain, rtol=1e-6)
    np.testing.assert_array_equal(sound, before)


def test_another_target() -> None:
    sound = _speech_like(20_000, peak=0.05)
    assert integrated_loudness(normalize_loudness(sound, -16.0)) == pytest.approx(-16.0, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-6])
def test_what_is_below_the_gate_stays_as_it_is(level: float) -> None:
    sound = (level * np.random.default_rng(1).normal(size=16_000)).astype(np.float32)
    assert integrated_loudness(sound) == -math.inf == _oracle(sound.astype(np.float64))
    np.testing.assert_array_equal(normalize_loudness(sound), sound)


def test_sound_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(GeneratorError) as refused:
        normalize_loudness(np.ones(6399, np.float32))
    assert refused.value.code == "generator.sound_too_short"


def test_two_channels_are_refused() -> None:
    with pytest.raises(GeneratorError):
        integrated_loudness(np.ones((16_000, 2)))
