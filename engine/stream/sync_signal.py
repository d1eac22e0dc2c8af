"""The sound of a sync test, and how it is found again in what was heard."""

from __future__ import annotations

import functools

import numpy as np

from engine.clock import Clock
from engine.media import AudioBlock

RATE_HZ = 48_000
CHIRP_S = 0.040
SPACING_S = (0.90, 1.00, 0.95, 1.05)
"""Uneven, so that what is heard a whole spacing late is not taken for the next one."""

_FROM_HZ, _TO_HZ = 800.0, 5000.0
_PEAK = 0.5
_REACH_S = 0.4
_LEAST_LIKENESS = 0.3
_LEAST_RATIO = 6.0
"""A chirp stands so far out of what else correlates; noise reaches 4 to 5 times its own median."""


@functools.cache
def chirp(rate_hz: int) -> np.ndarray:
    """float32 (n,): a sweep through what small loudspeakers and call filters let pass; its correlation with itself is
    a peak of 0.2 ms, whatever room it is heard in."""
    t = np.arange(round(CHIRP_S * rate_hz)) / rate_hz
    phase = 2 * np.pi * (_FROM_HZ * t + (_TO_HZ - _FROM_HZ) / (2 * CHIRP_S) * t**2)
    return (_PEAK * np.sin(phase) * np.hanning(len(t))).astype(np.float32)


class ChirpSource:
    """An `AudioSource` that says chirps in real time, the first one after `quiet_s`."""

    channels, label, overflows, has_ended = 1, "sync test", 0, False
    rate_hz = RATE_HZ

    def __init__(self, seconds: float, quiet_s: float) -> None:
        self.begins_s: list[float] = []
        self._sound = np.zeros(round((seconds + 1.0) * RATE_HZ), np.float32)
        at_s = quiet_s
        while at_s + CHIRP_S < seconds:
            first = round(at_s * RATE_HZ)
            self._sound[first : first + len(chirp(RATE_HZ))] = chirp(RATE_HZ)
            self.begins_s.append(first / RATE_HZ)
            at_s += SPACING_S[len(self.begins_s) % len(SPACING_S)]
        self._position = 0
        self._started_s = 0.0
        self._clock: Clock | None = None

    def start(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s = clock.now()

    def read(self) -> AudioBlock | None:
        assert self._clock is not None
        first = self._position
        end = int((self._clock.now() - self._started_s) * RATE_HZ)
        if end <= first:
            return None
        self._position = end
        samples = np.zeros((end - first, 1), np.float32)
        said = self._sound[first:end]
        samples[: len(said), 0] = said
        captured_at_s = self._started_s + first / RATE_HZ
        return AudioBlock(first_sample=first, samples=samples, rate_hz=RATE_HZ, captured_at_s=captured_at_s)

    def stop(self) -> None:
        pass


def find_chirp(sound: np.ndarray, rate_hz: int, near_s: float, reach_s: float = _REACH_S) -> float | None:
    """When a chirp begins in `sound` (n,), in s from its beginning, within `reach_s` of `near_s`; None if none does.

    By normalised cross-correlation: its peak is 1 for the chirp itself, and does not depend on how loud it is.
    """
    template = chirp(rate_hz).astype(np.float64)
    first = max(0, round((near_s - reach_s) * rate_hz))
    part = sound[first : round((near_s + reach_s) * rate_hz) + len(template)].astype(np.float64)
    if len(part) < 2 * len(template):
        return None
    size = 1 << int(np.ceil(np.log2(len(part) + len(template))))
    spectrum = np.fft.rfft(part, size) * np.conj(np.fft.rfft(template, size))
    match = np.abs(np.fft.irfft(spectrum, size)[: len(part) - len(template)])
    energy = np.concatenate([[0.0], np.cumsum(part**2)])
    norm = np.sqrt(np.maximum(energy[len(template) : -1] - energy[: -len(template) - 1], 0) * (template**2).sum())
    best = int(match.argmax())
    if norm[best] <= 1e-9 or match[best] < _LEAST_LIKENESS * norm[best]:
        return None
    if match[best] < _LEAST_RATIO * np.median(match):
        return None
    return (first + best) / rate_hz
