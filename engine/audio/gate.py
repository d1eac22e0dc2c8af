"""A noise gate: exact silence while nobody speaks, so that no generator moves its lips to a fan or a keyboard far away.

Its look-ahead costs no delay: the fade-in lies *before* the sound that opened the gate, in samples that have been given
out as silence already. `push` says how many of those are to be replaced. A generator that works in chunks has not taken
them yet and hears a soft beginning; one that takes each frame at once has, and hears the beginning without the fade.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from engine.settings import GateSettings

_WINDOW_S = 0.010
_STEP_S = 0.005
"""The level is that of the last 10 ms, looked at every 5: a click is as loud as it sounds, and nothing waits for it."""

_HYSTERESIS_DB = 4.0
_QUIETEST_DB = -120.0


class NoiseFloor:
    """How loud the room is when nobody speaks, in dBFS: the least level of the last seconds, followed slowly upwards.

    Minimum statistics (after Martin, 2001). People pause for breath within `_SPAN_S`, so the least level is the room's.
    It begins with a usual room's and rises slowly: who speaks from the first moment on is not taken for the room. Nor
    is silence that no room has: what mute and the talk key have left of it, and drivers' first blocks, are zeros.
    """

    _FRAME_S = 0.020
    _BESIDE_ZEROS = 2
    """Frames before and after zeros that are no room's, either: fades, and filters that ring."""
    _SPAN_S = 4.0
    _BLOCKS = 16
    _RISE_DB_PER_S = 4.0
    _ASSUMED_DB, _LOWEST_DB, _HIGHEST_DB = -62.0, -80.0, -36.0
    """Louder than the highest is no room that a gate could tell from a voice."""

    def __init__(self, rate_hz: int) -> None:
        self._frame = int(self._FRAME_S * rate_hz)
        self._frames_a_block = round(self._SPAN_S / self._BLOCKS / self._FRAME_S)
        self._energy, self._count, self._frames = 0.0, 0, 0
        self._block_db = 0.0
        self._unsure_db: deque[float] = deque()
        self._to_skip = 0
        self._blocks_db: deque[float] = deque(maxlen=self._BLOCKS)
        self.level_dbfs = self._ASSUMED_DB

    def push(self, energy: float, count: int) -> None:
        """Account for `count` samples whose squares sum to `energy`."""
        if _dbfs(energy / count) <= _QUIETEST_DB:
            self._unsure_db.clear()
            self._energy, self._count, self._to_skip = 0.0, 0, self._BESIDE_ZEROS
            return
        self._energy += energy
        self._count += count
        if self._count >= self._frame:
            self._wait_for_zeros(_dbfs(self._energy / self._count))
            self._energy, self._count = 0.0, 0

    def _wait_for_zeros(self, frame_db: float) -> None:
        """Take a frame once it is known that there are none just before or after it."""
        if self._to_skip:
            self._to_skip -= 1
            return
        self._unsure_db.append(frame_db)
        if len(self._unsure_db) > self._BESIDE_ZEROS:
            self._take(self._unsure_db.popleft())

    def _take(self, frame_db: float) -> None:
        first_of_block = self._frames % self._frames_a_block == 0
        self._block_db = frame_db if first_of_block else min(self._block_db, frame_db)
        self._frames += 1
        if self._frames % self._frames_a_block == 0:
            self._blocks_db.append(self._block_db)
        least_db = min(min(self._blocks_db, default=self._block_db), self._block_db)
        least_db = min(max(least_db, self._LOWEST_DB), self._HIGHEST_DB)
        self.level_dbfs = min(least_db, self.level_dbfs + self._RISE_DB_PER_S * self._FRAME_S)


class NoiseGate:
    """Mono float32 in, the same out with everything below the gate exactly zero. One thread.

    The gate opens when the level passes the threshold ("auto": `_ABOVE_FLOOR_DB` above the room), stays open until it
    has been `_HYSTERESIS_DB` below it for `hold_ms`, and fades by a raised cosine over `attack_ms` and `release_ms`,
    without a click.
    """

    _ABOVE_FLOOR_DB = 10.0

    def __init__(self, settings: GateSettings, rate_hz: int) -> None:
        self._settings = settings
        self._floor = NoiseFloor(rate_hz)
        self._step = max(1, int(_STEP_S * rate_hz))
        self._attack = max(1, int(settings.attack_ms * rate_hz / 1000))
        self._hold = int(settings.hold_ms * rate_hz / 1000)
        self._rise = _half_cosine(self._attack)
        self._fall = _half_cosine(max(1, int(settings.release_ms * rate_hz / 1000)))[::-1].copy()
        self._recent = np.zeros(int(_WINDOW_S * rate_hz), np.float32)
        self._gain = np.zeros(self._attack, np.float32)
        self._raw = np.zeros(self._attack, np.float32)
        self._given = 0
        self._is_open = False
        self._quiet_for = 0
        self._fallen = len(self._fall)

    @property
    def is_open(self) -> bool:
        """Whether sound passes."""
        return self._is_open

    @property
    def threshold_dbfs(self) -> float:
        """Where it opens now."""
        if self._settings.mode == "level":
            return self._settings.level_dbfs
        return self._floor.level_dbfs + self._ABOVE_FLOOR_DB

    def push(self, samples: np.ndarray) -> tuple[int, np.ndarray]:
        """(redo, out): `out` is float32 (redo + n,); its first `redo` samples replace the last ones given out."""
        redo, gains = self.gains(samples)
        raw = np.concatenate([self._raw, samples])
        self._raw = raw[-self._attack :]
        return redo, raw[len(raw) - len(gains) :] * gains

    def gains(self, key: np.ndarray) -> tuple[int, np.ndarray]:
        """As `push`, for who multiplies: what the gate makes of samples that are as loud as `key`, float32 (n,)."""
        known = first = len(self._gain)
        gain = np.concatenate([self._gain, np.zeros(len(key), np.float32)])
        for start in range(0, len(key), self._step):
            piece = key[start : start + self._step]
            here = known + start
            if self._opens(piece):
                np.maximum(gain[here - self._attack : here], self._rise, out=gain[here - self._attack : here])
                first = min(first, here - self._attack)
            gain[here : here + len(piece)] = self._gains(len(piece))
        first = max(first, known - self._given)
        self._given = min(self._given + len(key), self._attack)
        self._gain = gain[-self._attack :]
        return known - first, gain[first:]

    def forget(self) -> None:
        """What comes next does not follow what was given out, so nothing of that is replaced any more."""
        self._given = 0

    def _opens(self, piece: np.ndarray) -> bool:
        """Take note of the next samples; true if the gate has just opened."""
        size = len(self._recent)
        self._recent = np.concatenate([self._recent, piece])[-size:]
        self._floor.push(float(np.dot(piece, piece)), len(piece))
        level_dbfs = _dbfs(float(np.dot(self._recent, self._recent)) / size)
        threshold_dbfs = self.threshold_dbfs
        if level_dbfs > threshold_dbfs:
            has_opened = not self._is_open
            self._is_open, self._quiet_for = True, 0
            return has_opened
        if level_dbfs > threshold_dbfs - _HYSTERESIS_DB:
            self._quiet_for = 0
        else:
            self._quiet_for += len(piece)
        if self._is_open and self._quiet_for > self._hold:
            self._is_open, self._fallen = False, 0
        return False

    def _gains(self, count: int) -> np.ndarray | float:
        if self._is_open:
            return 1.0
        if self._fallen >= len(self._fall):
            return 0.0
        part = self._fall[self._fallen : self._fallen + count]
        self._fallen += count
        return np.pad(part, (0, count - len(part)))


class HeldBackGate:
    """The gate for sound that is played later anyway: it holds `attack_ms` back, and what it gives out is final."""

    def __init__(self, settings: GateSettings, rate_hz: int, channels: int) -> None:
        self._gate = NoiseGate(settings, rate_hz)
        self._held = max(1, int(settings.attack_ms * rate_hz / 1000))
        self._samples = np.zeros((0, channels), np.float32)
        self._gains = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> tuple[int, np.ndarray]:
        """(held, out): float32 (n, channels) in, what is final now out; it begins `held` samples before them."""
        held = len(self._samples)
        redo, gains = self._gate.gains(np.abs(samples).max(axis=1))
        self._gains = np.concatenate([self._gains[: len(self._gains) - redo], gains])
        self._samples = np.concatenate([self._samples, samples])
        ready = max(0, len(self._samples) - self._held)
        out = self._samples[:ready] * self._gains[:ready, None]
        self._samples, self._gains = self._samples[ready:], self._gains[ready:]
        return held, out

    def forget(self) -> None:
        """What waits is dropped: the next block does not follow it."""
        self._gate.forget()
        self._samples, self._gains = self._samples[:0], self._gains[:0]


def _half_cosine(count: int) -> np.ndarray:
    """From above 0 to below 1 in `count` steps."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)).astype(np.float32)


def _dbfs(power: float) -> float:
    return 10 * math.log10(power) if power > 1e-12 else _QUIETEST_DB
