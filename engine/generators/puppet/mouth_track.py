"""The mouth over time: hops in, one smooth mouth per frame out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.generators.puppet.gate import GateState
from engine.generators.puppet.mouth_shapes import HopMouth, Mouth, clip

_HISTORY_HOPS = 24
_CLOSURE_SIGMA, _DRIVE_SIGMA, _VOWEL_SIGMA = 1.3, 2.4, 3.2
"""Widths of the smoothing in hops: the jaw may follow syllables, the vowel's shape moves more slowly."""
_RECENT_SIGMA = 6.0
_NEAR_HOPS, _LIPS_HOPS = 2.0, 2.6
_AROUND_HOPS = 14
_DEAD_ZONE = 0.03
_STEP = 0.57
"""By how much the jaw moves in a frame at most; with the dead zone it is 0.6."""

_FORESEEN_FRAMES, _BEFORE = 0.75, 0.5
"""So far ahead the look-ahead shows enough of what the jaw will do, and the jaw is at most so much wider before."""

_VOWEL_BELOW_DB = 14.0
"""Hops at most this far under the peaks are vowels: they tell the usual tilt of voice and microphone."""
_TILT_START_DB, _TILT_SHARE = 10.0, 1 / 80
_BY_TONGUE = 0.5
"""Share of a closure that is taken back where tongue and palate make it: the lips stay parted."""
_LABIAL_BEFORE_HOPS, _LABIAL_AFTER_HOPS = 10, 5


@dataclass(frozen=True, kw_only=True)
class _Closed:
    """Per hop, 0..1: a b that leaks, any closure, how far that shuts the mouth, the drive that is left (to 1.15)."""

    lips: list[float]
    closures: list[float]
    shuts: list[float]
    drives: list[float]


class MouthTrack:
    """The last quarter second of hops, and the mouth at any moment in it."""

    def __init__(self) -> None:
        self._hops: deque[tuple[HopMouth, GateState, float]] = deque(maxlen=_HISTORY_HOPS)
        self._tilts_db: deque[float] = deque(maxlen=_HISTORY_HOPS)  # each hop's tilt over the usual one
        self._usual_tilt_db: float | None = None
        self._next_hop = 0
        self._jaw = 0.0

    def add(self, mouth: HopMouth, gate: GateState, level_db: float) -> None:
        """Append the next hop."""
        self._hops.append((mouth, gate, level_db))
        self._tilts_db.append(mouth.tilt_db - self._follow_tilt(mouth))
        self._next_hop += 1

    def mouth_at(self, moment: float, frame: int, sensitivity: float, frame_hops: float) -> Mouth:
        """The mouth at `moment`, counted in hops from the first one added; later hops are its look-ahead.

        Frames are `frame_hops` apart and are asked for in order.
        """
        centre = moment - (self._next_hop - len(self._hops))
        hops = [hop for hop, _, _ in self._hops]
        near = [entry for i, entry in enumerate(self._hops) if abs(i - centre) < _NEAR_HOPS]
        track = self._closed(hops)
        drive, width, jaw = self._opened(hops, track, centre, sensitivity)
        # A mouth that is to close begins a frame before, and one that opens takes two, rather than to jump.
        coming = self._opened(hops, track, centre + _FORESEEN_FRAMES * frame_hops, sensitivity)[-1]
        jaw = max(min(jaw, self._jaw + _STEP, coming + _BEFORE), self._jaw - _STEP)
        self._jaw = jaw if jaw >= _DEAD_ZONE else 0.0
        recent = _mean([h.drive for h in hops], _weights(len(hops), centre, _RECENT_SIGMA))
        closure = _mean(track.closures, _weights(len(hops), centre, _CLOSURE_SIGMA))
        return Mouth(
            frame=frame,
            jaw=self._jaw,
            width=width * clip(drive / 0.3),
            closure=closure * clip(recent / 0.12),  # a pause is no pressing of lips
            loudness=max((gate.loudness for _, gate, _ in near), default=0.0),
            level_db=max((level_db for _, _, level_db in near), default=-120.0),
            floor_db=near[-1][1].floor_db if near else -88.0,
            is_speaking=any(gate.is_speaking for _, gate, _ in near),
        )

    def _closed(self, hops: list[HopMouth]) -> _Closed:
        """How far each hop shuts the mouth, and what is left of its drive."""
        count = len(hops)
        dull_db = [_mean_of_three([h.dullness_db for h in hops], i) for i in range(count)]
        lips = [self._labial(hops, i, dull_db[i]) for i in range(count)]
        closures = [max(h.closure, self._dip(hops, i), lips[i]) for i, h in enumerate(hops)]
        # Voiced and not dull: n, d or g, shut by the tongue behind parted lips.
        tongue = [_BY_TONGUE * clip((1.0 - d) / 4.0) * h.voicing for h, d in zip(hops, dull_db, strict=True)]
        shuts = [clip(1.4 * c - 0.4) * (1.0 - t) for c, t in zip(closures, tongue, strict=True)]
        drives = [h.drive * (1.0 - 0.6 * h.hiss) * (1.0 - 0.9 * s) for h, s in zip(hops, shuts, strict=True)]
        return _Closed(lips=lips, closures=closures, shuts=shuts, drives=drives)

    def _opened(
        self, hops: list[HopMouth], track: _Closed, centre: float, sensitivity: float
    ) -> tuple[float, float, float]:
        """(drive, width, jaw) around one moment."""
        count = len(hops)
        shut = max(
            clip((_mean(track.shuts, _weights(count, centre, _CLOSURE_SIGMA)) - 0.35) / 0.4),
            0.8 * _held(track.shuts, centre, _NEAR_HOPS),
            _held(track.lips, centre, _LIPS_HOPS),
        )
        drive = _mean(track.drives, _weights(count, centre, _DRIVE_SIGMA))
        openness, width = self._vowel(hops, _weights(count, centre, _VOWEL_SIGMA))
        return drive, width, clip(sensitivity * drive * (0.46 + 0.36 * openness) * (1.0 - 0.9 * shut))

    @staticmethod
    def _vowel(hops: list[HopMouth], weights: list[float]) -> tuple[float, float]:
        """Openness 0..1 and width -1..1, mostly from the hops in which the mouth is open and the voice sounds."""
        shares = [
            w * (h.drive * (1.0 - 0.8 * h.hiss) * (1.0 - 0.8 * h.closure) + 1e-3)
            for w, h in zip(weights, hops, strict=True)
        ]
        openness = _mean([h.openness for h in hops], shares)
        width = _mean([h.front for h in hops], shares)
        if width < 0.0:  # an open vowel with a low second formant is an /a/, not an /u/
            width *= clip(1.3 - openness, 0.3, 1.0)
        return openness, width

    @staticmethod
    def _dip(hops: list[HopMouth], i: int) -> float:
        """How far the mouth is shut at hop `i` judged by its neighbours: a voiced b between vowels is not faint, but
        fainter than what surrounds it."""
        before_db = max(h.middle_db for h in hops[max(0, i - _AROUND_HOPS) : i + 1]) - hops[i].middle_db
        after_db = max(h.middle_db for h in hops[i : i + _AROUND_HOPS + 1]) - hops[i].middle_db
        depth_db = max(before_db, after_db)
        dark = clip((depth_db - 8.0) / 5.0) * hops[i].darkness
        still = clip((depth_db - 14.0) / 6.0)
        notch = clip((min(before_db, after_db) - 7.0) / 4.0)
        return 0.9 * max(dark, still, notch) * (1.0 - hops[i].hiss)

    def _labial(self, hops: list[HopMouth], i: int, dullness_db: float) -> float:
        """How much hop `i` sounds like a b between vowels that leaks, as the Spanish one: fainter than the vowel beside
        it, and duller, more so than with l, n or d, where the tongue leaves more of the treble."""
        around = range(max(0, i - _LABIAL_BEFORE_HOPS), min(len(hops), i + _LABIAL_AFTER_HOPS + 1))
        vowel = max(around, key=lambda k: hops[k].middle_db)
        tilt_db = _mean_of_three(self._tilts_db, i)
        faint = clip((hops[vowel].middle_db - hops[i].middle_db - 7.2) / 3.9)
        dull = clip((tilt_db + 0.9) / 5.7) * clip((tilt_db - self._tilts_db[vowel] - 3.1) / 5.0)
        back = clip(-min(hop.front for hop in hops[max(0, i - 1) : i + 2]) / 0.4)
        return clip((faint * dull * back * clip((dullness_db - 2.0) / 5.0) - 0.25) / 0.3)

    def _follow_tilt(self, hop: HopMouth) -> float:
        """The tilt (dB) of this voice's vowels through this microphone, slowly followed."""
        if hop.below_db < _VOWEL_BELOW_DB:
            usual_db = hop.tilt_db if self._usual_tilt_db is None else self._usual_tilt_db
            self._usual_tilt_db = usual_db + _TILT_SHARE * (hop.tilt_db - usual_db)
        return _TILT_START_DB if self._usual_tilt_db is None else self._usual_tilt_db


def _held(values: list[float], centre: float, reach_hops: float) -> float:
    """What at least two hops of this frame reach: a closure shorter than a frame must not fall between two."""
    within = sorted(value for i, value in enumerate(values) if abs(i - centre) < reach_hops)
    return within[-2] if len(within) > 1 else 0.0


def _mean_of_three(values: Sequence[float], i: int) -> float:
    """Value `i` with its neighbours, as far as there are any."""
    beside = range(max(0, i - 1), min(len(values), i + 2))
    return sum(values[k] for k in beside) / len(beside)


def _weights(count: int, centre: float, sigma: float) -> list[float]:
    return [math.exp(-0.5 * ((i - centre) / sigma) ** 2) for i in range(count)]


def _mean(values: list[float], weights: list[float]) -> float:
    total = sum(weights)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total > 0.0 else 0.0
