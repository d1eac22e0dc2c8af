"""From a voice to the shape of a mouth, frame by frame while it is spoken.

Samples are pushed in blocks of any size; as soon as a frame's own sound and 40 ms more have arrived, its mouth can be
taken. The result depends on the samples alone, bit by bit, and not on how they were cut into blocks: every frame
measures the same hops together.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.generators.puppet.gate import GateState, VoiceGate
from engine.generators.puppet.mouth_shapes import HopMouth, mouth_of_hop
from engine.generators.puppet.voice_features import HOP_SAMPLES, WINDOW_SAMPLES, WINDOW_START, FeatureExtractor
from engine.media import first_sample_of

LOOKAHEAD_SAMPLES = 640
"""Sound beyond a frame's end that its mouth needs: 40 ms."""
_HISTORY_HOPS = 24
_JAW_SIGMA_HOPS, _WIDTH_SIGMA_HOPS = 2.0, 3.0
_DEAD_ZONE = 0.03


@dataclass(slots=True)
class Mouth:
    """One frame's mouth. `jaw`, `closure`, `tuck` 0..1; `width` -1 (round) .. 1 (spread).

    For meters and noise gates: `level_db` is the loudest hop of the voice band in this frame (dB below full scale),
    `floor_db` the room's noise in the same measure, `loudness` 0 .. 1.15 relative to the speaker's usual level,
    `is_speaking` true from a voice's first hop until 150 ms after its last.
    """

    frame: int
    jaw: float = 0.0
    width: float = 0.0
    closure: float = 0.0
    tuck: float = 0.0
    loudness: float = 0.0
    level_db: float = -120.0
    floor_db: float = -88.0
    is_speaking: bool = False


class VoiceAnalyser:
    """Streaming analysis of mono 16 kHz float32; one thread."""

    lookahead_samples = LOOKAHEAD_SAMPLES

    def __init__(self, *, fps: int = 25, sensitivity: float = 1.0) -> None:
        self._fps = fps
        self._sensitivity = sensitivity
        self._extractor = FeatureExtractor()
        self.reset()

    def reset(self) -> None:
        """Forget all sound and the room; the next sample pushed is the first of frame 0."""
        self._gate = VoiceGate()
        self.restart(0)

    def restart(self, first_frame: int) -> None:
        """After a gap: the next sample pushed is the first of `first_frame`. Noise floor and gain are kept."""
        self._first_frame = first_frame
        self._pending: list[np.ndarray] = [np.zeros(-WINDOW_START, np.float32)]
        self._sound_end = 0
        self._sound = np.zeros(0, np.float32)
        self._sound_start = WINDOW_START
        self._hops = 0
        self._frame = first_frame
        self._mouths: deque[HopMouth] = deque(maxlen=_HISTORY_HOPS)
        self._gates: deque[GateState] = deque(maxlen=_HISTORY_HOPS)
        self._levels: deque[float] = deque(maxlen=_HISTORY_HOPS)

    def push(self, samples: np.ndarray) -> None:
        """Take the next samples (n,) float32 of the stream; they are copied. Values that are no numbers become 0."""
        self._pending.append(np.nan_to_num(np.clip(samples, -1.0, 1.0), copy=True, nan=0.0))
        self._sound_end += len(samples)

    def take(self) -> Mouth | None:
        """The next frame's mouth, or None until its sound and look-ahead have been pushed."""
        needed = self._first_sample(self._frame + 1) + LOOKAHEAD_SAMPLES
        if self._sound_end < needed:
            return None
        hops_end = (needed - WINDOW_START - WINDOW_SAMPLES) // HOP_SAMPLES + 1
        self._analyse_until(hops_end)
        mouth = self._mouth_now()
        self._frame += 1
        return mouth

    def _first_sample(self, frame: int) -> int:
        return first_sample_of(frame, self._fps) - first_sample_of(self._first_frame, self._fps)

    def _analyse_until(self, hops_end: int) -> None:
        if self._pending:
            self._sound = np.concatenate([self._sound, *self._pending])
            self._pending.clear()
        first = self._hops * HOP_SAMPLES + WINDOW_START
        self._sound = self._sound[first - self._sound_start :]
        self._sound_start = first
        hops = hops_end - self._hops
        if hops <= 0:
            return
        span = (hops - 1) * HOP_SAMPLES + WINDOW_SAMPLES
        for features in self._extractor.extract(self._sound[:span].astype(np.float64), hops):
            is_whole = self._hops * HOP_SAMPLES + WINDOW_START >= 0
            gate = self._gate.update(features.level_db, features.harmonicity) if is_whole else GateState()
            self._gates.append(gate)
            self._levels.append(features.level_db)
            self._mouths.append(mouth_of_hop(features, gate))
            self._hops += 1

    def _mouth_now(self) -> Mouth:
        """Smooth the hops around the frame's middle: wide for the width, narrow for the jaw, not at all for p b m."""
        middle = (self._first_sample(self._frame) + self._first_sample(self._frame + 1)) / 2
        centre = (middle - HOP_SAMPLES / 2) / HOP_SAMPLES - (self._hops - len(self._mouths))
        mouths = self._mouths
        jaw = _smooth([m.jaw for m in mouths], _weights(len(mouths), centre, _JAW_SIGMA_HOPS))
        shares = [w * (0.02 + m.jaw) for w, m in zip(_weights(len(mouths), centre, _WIDTH_SIGMA_HOPS), mouths, strict=True)]
        width = _smooth([m.width for m in mouths], shares)
        near = [m for i, m in enumerate(mouths) if abs(i - centre) < 2.0]
        closure = max((m.closure for m in near), default=0.0)
        lowest = min((m.jaw for m in near), default=0.0)
        jaw = 0.4 * jaw + 0.6 * min(jaw, lowest + 0.06)
        jaw *= 1.0 - 0.7 * min(max(1.4 * closure - 0.4, 0.0), 1.0)
        jaw = min(jaw * self._sensitivity, 1.0)
        if jaw < _DEAD_ZONE:
            jaw = 0.0
        shown = [i for i in range(len(mouths)) if abs(i - centre) <= 2.0]
        return Mouth(
            frame=self._frame,
            jaw=jaw,
            width=width,
            closure=closure,
            loudness=max((mouths[i].loudness for i in shown), default=0.0),
            level_db=max((self._levels[i] for i in shown), default=-120.0),
            floor_db=self._gates[-1].floor_db if self._gates else -88.0,
            is_speaking=any(self._gates[i].is_speaking for i in shown),
        )


def _weights(count: int, centre: float, sigma: float) -> list[float]:
    return [math.exp(-0.5 * ((i - centre) / sigma) ** 2) for i in range(count)]


def _smooth(values: list[float], weights: list[float]) -> float:
    total = sum(weights)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total > 0.0 else 0.0
