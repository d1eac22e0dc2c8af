"""From a voice to the shape of a mouth, frame by frame while it is spoken.

Samples are pushed in blocks of any size; as soon as a frame's own sound and 40 ms more have arrived, its mouth can be
taken. The result depends on the samples alone, bit by bit, and not on how they were cut into blocks: every frame
measures the same hops together.
"""

from __future__ import annotations

import numpy as np

from engine.generators.puppet.gate import GateState, VoiceGate
from engine.generators.puppet.mouth_shapes import Mouth, mouth_of_hop
from engine.generators.puppet.mouth_track import MouthTrack
from engine.generators.puppet.voice_features import HOP_SAMPLES, WINDOW_SAMPLES, WINDOW_START, FeatureExtractor
from engine.media import SAMPLE_RATE_HZ, first_sample_of

LOOKAHEAD_SAMPLES = 640
"""Sound beyond a frame's end that its mouth needs: 40 ms."""


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
        self._track = MouthTrack()

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
        middle = (self._first_sample(self._frame) + self._first_sample(self._frame + 1)) / 2
        moment = (middle - HOP_SAMPLES / 2) / HOP_SAMPLES
        frame_hops = SAMPLE_RATE_HZ / self._fps / HOP_SAMPLES
        mouth = self._track.mouth_at(moment, self._frame, self._sensitivity, frame_hops)
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
            gate = self._gate.update(features) if is_whole else GateState()
            self._track.add(mouth_of_hop(features, gate), gate, features.level_db)
            self._hops += 1
