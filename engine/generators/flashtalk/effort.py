"""How many denoising steps a chunk gets, by how much its sound changes: silence and steady sound move no mouth.

What is measured is the sound itself, not what the speech encoder makes of it: it is known before anything has been
encoded, it costs less than a millisecond, and its bounds could be set with recordings of people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from engine.media import SAMPLE_RATE_HZ

_HOP_SAMPLES, _WINDOW_SAMPLES = SAMPLE_RATE_HZ // 25, SAMPLE_RATE_HZ * 2 // 25
_BAND_EDGES_HZ = (100, 500, 1000, 1600, 2400, 3600, 5200, 7600)
"""Wide enough that noise, which is steady to the ear, is steady here: 32 or more independent bins in each."""
_FLOOR = 1e-6
"""Power that is added to every band, -60 dBFS: what changes below it is not heard."""
_SHARE = 3
"""The most restless third of a chunk counts, so that a syllable in a pause does."""

_CALM_DB = (3.0, 1.5)
"""Below the first a chunk needs one level less than full work, below the second two. Silence, hum and steady noise
measure 0 to 1.2, nine tenths of the chunks of three recordings of speech more than 3 (their median is 9)."""
_RESTLESS = 4 / 3
"""A level that is cheap already is left only above its bound times this."""
_FULL_AT_FIRST = 2
"""A stream begins with so many chunks of full work: the picture comes from the portrait, and whoever measures how long
a chunk takes with silent ones measures the most that it can take."""


def restlessness_db(samples: np.ndarray) -> float:
    """How much the spectrum of `samples` [n] at 16 kHz changes from one video frame (40 ms) to the next, in dB: the
    mean over bands, and over the most restless third of the frames. 0 for less than three frames."""
    if len(samples) < _WINDOW_SAMPLES + _HOP_SAMPLES:
        return 0.0
    window, bands = _window_and_bands()
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
    power = np.square(np.abs(np.fft.rfft(frames * window))) @ bands
    changes = np.sort(np.abs(np.diff(10.0 * np.log10(power + _FLOOR), axis=0)).mean(axis=1))
    return float(changes[-max(1, len(changes) // _SHARE) :].mean())


@lru_cache(maxsize=1)
def _window_and_bands() -> tuple[np.ndarray, np.ndarray]:
    """A Hann window, and what sums the power of its bins to bands so that a full-scale sine has 0.5."""
    window = np.hanning(_WINDOW_SAMPLES + 1)[:-1]
    frequencies = np.fft.rfftfreq(_WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)
    edges = np.array(_BAND_EDGES_HZ)
    member = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    return window, member * (2.0 / (np.square(window).sum() * _WINDOW_SAMPLES))


class StepChooser:
    """Chooses for chunk after chunk of one stream. More work is given at once, and less only one level at a time, when
    the chunk before was calm, too."""

    def __init__(self, counts: Sequence[int]) -> None:
        """`counts` are numbers of steps, the most first; as many as there are bounds, and one."""
        self._counts = tuple(counts)[: len(_CALM_DB) + 1]
        self.reset()

    def reset(self) -> None:
        """A new stream."""
        self._level, self._was_calm, self._chunks = 0, False, 0

    def choose(self, samples: np.ndarray) -> int:
        """Steps for the chunk with these `samples` at 16 kHz; they may begin a little before it."""
        change_db = restlessness_db(samples)
        wanted = sum(change_db < bound for bound in _CALM_DB[: len(self._counts) - 1])
        kept = sum(change_db < bound * _RESTLESS for bound in _CALM_DB[: self._level])
        is_calm, self._chunks = wanted > self._level, self._chunks + 1
        if kept < self._level:
            self._level = kept
        elif is_calm and self._was_calm and self._chunks > _FULL_AT_FIRST:
            self._level += 1
        self._was_calm = is_calm or wanted == len(self._counts) - 1
        return self._counts[self._level]


class StepCounts:
    """How many chunks were made in how many steps."""

    def __init__(self) -> None:
        self.chunks: Counter[int] = Counter()

    def __str__(self) -> str:
        total = sum(self.chunks.values())
        parts = (
            f"{100 * count / total:.0f} % in {steps}" for steps, count in sorted(self.chunks.items(), reverse=True)
        )
        return ", ".join(parts) or "none"
