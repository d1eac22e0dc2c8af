"""How loud the voice is against the room: noise floor, automatic gain, and whether somebody speaks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.generators.puppet.music import MusicDetector
from engine.generators.puppet.voice_features import HopFeatures

_FLOOR_LOWEST_DB = -88.0
_PEAK_START_DB, _PEAK_LOWEST_DB = -38.0, -66.0
_PEAK_ABOVE_FLOOR_DB = 18.0
_RANGE_DB, _LEAST_SPAN_DB = 32.0, 6.0
_CALIBRATION_HOPS = 100
_BLOCK_HOPS, _BLOCKS = 10, 40


@dataclass(slots=True)
class GateState:
    """Result for one hop. `loudness` is 0 at the edge of the noise and 1 at the voice's usual peaks."""

    loudness: float = 0.0
    peak_db: float = _PEAK_START_DB
    floor_db: float = _FLOOR_LOWEST_DB
    voicing: float = 0.0
    is_speaking: bool = False


class NoiseFloor:
    """Minimum statistics over 4 s; in the first second the least heard so far, so that a steady noise that was there
    from the start is known at once (after Martin, 2001)."""

    def __init__(self) -> None:
        self._smooth_db: float | None = None
        self._block_minimum_db = 0.0
        self._minima_db: deque[float] = deque(maxlen=_BLOCKS)
        self._hops = 0
        self.level_db = _FLOOR_LOWEST_DB

    def update(self, level_db: float, relief_db: float = 0.0) -> float:
        """Take one hop's level, return the floor in dB. `relief_db` lowers it in the first second: how sure it is
        that what is heard from the start on is a voice and not the room."""
        smooth_db = level_db if self._smooth_db is None else self._smooth_db + 0.35 * (level_db - self._smooth_db)
        self._smooth_db = smooth_db
        first_of_block = self._hops % _BLOCK_HOPS == 0
        self._block_minimum_db = smooth_db if first_of_block else min(self._block_minimum_db, smooth_db)
        self._hops += 1
        lowest_db = min(min(self._minima_db, default=self._block_minimum_db), self._block_minimum_db)
        if self._hops % _BLOCK_HOPS == 0:
            self._minima_db.append(self._block_minimum_db)
        target_db = max(lowest_db + 1.5, _FLOOR_LOWEST_DB)
        if self._hops <= _CALIBRATION_HOPS:
            self.level_db = max(target_db + 1.5 - relief_db, _FLOOR_LOWEST_DB)
        else:
            self.level_db += (0.3 if target_db < self.level_db else 0.05) * (target_db - self.level_db)
        return self.level_db


class SpeechEvidence:
    """How much what is heard behaves like a voice: it is harmonic and its spectrum keeps changing.

    Fans are not harmonic; a held chord is, but it does not change from one 60 ms to the next.
    """

    _SPAN_HOPS = 6
    _CHANGE_DB = 2.2

    def __init__(self) -> None:
        self._bands: deque[tuple[float, ...]] = deque(maxlen=self._SPAN_HOPS)
        self._evidence = 0.0

    def update(self, hop: HopFeatures) -> float:
        """Take one hop; relief for the noise floor, 0 .. 25 dB."""
        bands = hop.bands_db[:4]
        before = self._bands[0] if len(self._bands) == self._SPAN_HOPS else bands
        self._bands.append(bands)
        change_db = sum(abs(a - b) for a, b in zip(bands, before, strict=True)) / len(bands)
        is_speech_like = hop.harmonicity > 0.35 and change_db > self._CHANGE_DB
        self._evidence = min(max(self._evidence + (1.0 if is_speech_like else -0.5), 0.0), 20.0)
        return min(max(3.0 * (self._evidence - 5.0), 0.0), 25.0)


class VoiceGate:
    """Loudness of the voice, 0..1.15, from levels and harmonicity, hop by hop (10 ms)."""

    def __init__(self) -> None:
        self._floor = NoiseFloor()
        self._evidence = SpeechEvidence()
        self._music = MusicDetector()
        self._peak_db = _PEAK_START_DB
        self._held_harmonicity = 0.0
        self._hangover_hops = 0
        self._voiced_hops = 0

    def update(self, hop: HopFeatures) -> GateState:
        """Take one hop."""
        level_db, harmonicity = hop.level_db, hop.harmonicity
        floor_db = self._floor.update(level_db, self._evidence.update(hop))
        self._held_harmonicity = max(harmonicity, 0.94 * self._held_harmonicity)
        voicing = _clip((self._held_harmonicity - 0.20) / 0.14)
        self._follow_peak(level_db, floor_db, harmonicity)
        edge_db = max(floor_db + 0.30 * (self._peak_db - floor_db), self._peak_db - _RANGE_DB)
        music = self._music.update(hop, harmonicity > 0.3 and level_db > floor_db + 8.0)
        edge_db += music * max(0.0, self._music.edge_db() - edge_db)
        span_db = max(self._peak_db - 2.0 - edge_db, _LEAST_SPAN_DB)
        loudness = _clip((level_db - edge_db) / span_db, 1.15) * voicing
        self._hangover_hops = 15 if loudness > 0.25 else max(0, self._hangover_hops - 1)
        return GateState(loudness, self._peak_db, floor_db, voicing, self._hangover_hops > 0)

    def _follow_peak(self, level_db: float, floor_db: float, harmonicity: float) -> None:
        """Up quickly with voiced sound, down slowly while somebody speaks, hardly at all in silence."""
        is_voice = harmonicity > 0.3 and level_db > floor_db + 8.0
        novelty = max(0.0, 1.0 - self._voiced_hops / 150)
        self._voiced_hops += is_voice
        if is_voice and level_db > self._peak_db:
            self._peak_db += (0.08 + 0.12 * novelty) * (level_db - self._peak_db)
        elif is_voice:
            self._peak_db -= 0.012 + 0.35 * novelty
        else:
            self._peak_db -= 0.005
        self._peak_db = max(self._peak_db, floor_db + _PEAK_ABOVE_FLOOR_DB, _PEAK_LOWEST_DB)


def _clip(value: float, high: float = 1.0) -> float:
    return 0.0 if value < 0.0 else high if value > high else value
