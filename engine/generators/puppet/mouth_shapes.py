"""From what is heard in a hop to what the mouth does: jaw, width, closure."""

from __future__ import annotations

from dataclasses import dataclass

from typing import TYPE_CHECKING

from engine.generators.puppet.expression import Expression
from engine.generators.puppet.gate import GateState
from engine.generators.puppet.voice_features import HopFeatures

if TYPE_CHECKING:
    from engine.generators.puppet.voice import Mouth


@dataclass(slots=True)
class HopMouth:
    """Targets of one hop before smoothing: `jaw` 0..1, `width` -1 (round) .. 1 (spread), `closure` and `tuck` 0..1.

    `middle_db` is the level of what only an open mouth lets out (350 Hz to 3.4 kHz).
    """

    jaw: float
    width: float
    closure: float
    tuck: float
    middle_db: float
    loudness: float


def mouth_of_hop(hop: HopFeatures, gate: GateState) -> HopMouth:
    """Targets for one hop from its features and the gate's state."""
    murmur, low, middle, high, hiss_db = hop.bands_db
    middle_db = max(low, middle, high + 1.0)
    hiss = _clip((hiss_db - max(low, high) - 2.0) / 8.0)
    openness = _clip((hop.f1_hz - 280.0) / 440.0)
    opening = _clip((gate.loudness - 0.25) / 0.5)
    below_peak_db = gate.peak_db - middle_db
    faint = _clip((below_peak_db - 14.0) / 8.0)
    nasal = 0.9 * _clip((murmur - middle_db - 6.5) / 4.0) * _clip((below_peak_db - 9.0) / 6.0)
    closure = max(0.0, max(faint, nasal) - hiss)
    jaw = opening * (0.25 + 0.75 * openness) * (1 - 0.75 * hiss) * (1 - 0.85 * closure) * (0.75 + 0.25 * gate.loudness)
    front = 2.0 * _clip((hop.f2_hz - 1000.0) / 1100.0) - 1.0
    if front < 0.0:
        front *= _clip(1.3 - openness, 0.3, 1.0)
    width = front * opening * (1 - 0.5 * hiss) * (1 - 0.6 * closure)
    return HopMouth(jaw, width, closure, 0.0, middle_db, gate.loudness)


def write_mouth(mouth: Mouth, expression: Expression, *, is_mouth_open: bool) -> None:
    """Set the mouth's part of `expression`; a portrait taken with an open mouth is held closed by `close`."""
    narrow = max(0.0, -mouth.width)
    jaw = 0.85 * mouth.jaw * (1.0 - 0.35 * narrow)
    expression.jaw = jaw
    expression.wide = 0.8 * max(0.0, mouth.width) * min(1.0, 5.0 * jaw)
    expression.round = narrow * min(1.0, 6.0 * jaw)
    expression.press = 0.5 * mouth.closure * (1.0 - min(1.0, 4.0 * jaw)) if mouth.is_speaking else 0.0
    expression.tuck = mouth.tuck
    expression.close = max(0.0, 0.97 - 0.45 * jaw) if is_mouth_open else 0.0


def _clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return low if value < low else high if value > high else value
