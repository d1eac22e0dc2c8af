"""Integrated loudness of one channel of 16 kHz sound, and the gain to a wanted loudness (ITU-R BS.1770-4).

Weigh the sound as the ear does, take mean squares of 0.4 s blocks, leave out the quiet blocks, average the rest.
Everything is computed in float64.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from engine.errors import GeneratorError
from engine.media import SAMPLE_RATE_HZ

TARGET_LUFS = -23.0
BLOCK_S = 0.4
_BLOCK_HOP = 0.25
"""Blocks start every quarter of a block."""
_OFFSET_LU = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = 10.0
_SILENT_ABOVE_LU = 100.0
"""A level further than this from 0 LUFS is no level; digital silence measures -inf."""

# K-weighting at 16 kHz: a high shelf (+4 dB from 1500 Hz, Q 1/sqrt 2) for the head, then a high pass (38 Hz, Q 0.5).
_SHELF_B = (1.444233908713844, -1.839542987741787, 0.685432300820589)
_SHELF_A = (1.0, -1.1071392365035588, 0.3972624582962044)
_HIGH_PASS_B = (0.9852425301500196, -1.9704850603000392, 0.9852425301500196)
_HIGH_PASS_A = (1.0, -1.9703753578723906, 0.9705947627276879)

_RESPONSE_SAMPLES = 4096
"""Both filters have rung out below 1e-20 by then: their slowest poles lie at 0.9852."""
_FFT_SAMPLES = 16384
_SECTION_SAMPLES = _FFT_SAMPLES - _RESPONSE_SAMPLES


def integrated_loudness(samples: np.ndarray) -> float:
    """Loudness in LUFS of `samples` [n] at 16 kHz; -inf where every block lies below the gate.

    Raises GeneratorError if the sound is shorter than one block of 0.4 s, or is not one channel.
    """
    if samples.ndim != 1 or len(samples) < BLOCK_S * SAMPLE_RATE_HZ:
        raise GeneratorError(
            f"Loudness needs one channel of at least {BLOCK_S} s, not samples of shape {samples.shape}.",
            code="generator.sound_too_short",
        )
    power = _block_power(np.asarray(samples, np.float64))
    audible = power[_level(power) >= _ABSOLUTE_GATE_LUFS]
    if not len(audible):
        return -math.inf
    gate = max(float(_level(audible.mean())) - _RELATIVE_GATE_LU, _ABSOLUTE_GATE_LUFS)
    foreground = power[_level(power) > gate]
    return float(_level(foreground.mean())) if len(foreground) else -math.inf


def normalize_loudness(samples: np.ndarray, target_lufs: float = TARGET_LUFS) -> np.ndarray:
    """`samples` [n] at 16 kHz times the gain that brings them to `target_lufs`, as a new float32 array.

    Nothing limits the result: it may exceed 1. Silence has no loudness and stays as it is. Raises as
    `integrated_loudness` does.
    """
    loudness = integrated_loudness(samples)
    if abs(loudness) > _SILENT_ABOVE_LU:
        return samples.astype(np.float32)
    gain = 10.0 ** ((target_lufs - loudness) / 20.0)
    return (gain * samples.astype(np.float64)).astype(np.float32)


def _level(power: np.ndarray | np.floating) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return _OFFSET_LU + 10.0 * np.log10(power)


def _block_power(samples: np.ndarray) -> np.ndarray:
    """Mean squares [blocks] of the weighted sound; the last block may reach past the end, into silence."""
    duration_s = len(samples) / SAMPLE_RATE_HZ
    blocks = int(np.round((duration_s - BLOCK_S) / (BLOCK_S * _BLOCK_HOP)) + 1)
    quarters = np.arange(blocks + 4)
    edges = (BLOCK_S * (quarters * _BLOCK_HOP) * SAMPLE_RATE_HZ).astype(np.int64)
    weighted = np.zeros(max(len(samples), int(edges[-1])))
    weighted[: len(samples)] = _k_weighted(samples)
    # A block is four quarters, and a quarter belongs to four blocks: each is summed once.
    energy = np.add.reduceat(np.square(weighted, out=weighted)[: edges[-1]], edges[:-1])
    return np.convolve(energy, np.ones(4), "valid") / (BLOCK_S * SAMPLE_RATE_HZ)


def _k_weighted(samples: np.ndarray) -> np.ndarray:
    """The sound [n] through both filters, from rest: a convolution by overlap-save, as fast as the filters in C."""
    sections = -(-len(samples) // _SECTION_SAMPLES)
    padded = np.zeros(_RESPONSE_SAMPLES + sections * _SECTION_SAMPLES)
    padded[_RESPONSE_SAMPLES : _RESPONSE_SAMPLES + len(samples)] = samples
    overlapping = np.lib.stride_tricks.sliding_window_view(padded, _FFT_SAMPLES)[::_SECTION_SAMPLES]
    weighted = np.fft.irfft(np.fft.rfft(overlapping) * _response_spectrum(), _FFT_SAMPLES)
    return weighted[:, _RESPONSE_SAMPLES:].reshape(-1)[: len(samples)]


@lru_cache(maxsize=1)
def _response_spectrum() -> np.ndarray:
    """Spectrum [bins] of the impulse response of both filters one after the other."""
    response = np.zeros(_RESPONSE_SAMPLES)
    response[0] = 1.0
    for b, a in ((_SHELF_B, _SHELF_A), (_HIGH_PASS_B, _HIGH_PASS_A)):
        response = _biquad(response, b, a)
    return np.fft.rfft(response, _FFT_SAMPLES)


def _biquad(samples: np.ndarray, b: tuple[float, ...], a: tuple[float, ...]) -> np.ndarray:
    """One second-order filter, direct form II transposed, sample by sample: for the short response only."""
    filtered = np.empty_like(samples)
    first = second = 0.0
    for index, value in enumerate(samples):
        output = b[0] * value + first
        first = b[1] * value - a[1] * output + second
        second = b[2] * value - a[2] * output
        filtered[index] = output
    return filtered
