"""From what is heard in a hop (10 ms) to what the mouth would do, and from a frame's mouth to an expression."""

from __future__ import annotations

from dataclasses import dataclass

from engine.generators.puppet.expression import Expression
from engine.generators.puppet.gate import GateState
from engine.generators.puppet.voice_features import HopFeatures

_SILENT_DRIVE = 0.12


@dataclass(slots=True)
class HopMouth:
    """Targets of one hop before smoothing, 0..1 where nothing else is said.

    `drive` is how much voice comes out (0 silence, 1 the speaker's usual peaks, up to 1.15), `openness` the vowel's
    (low F1 .. high F1), `front` -1 (/u/) .. 1 (/i/), `hiss` a fricative, `closure` lips shut as far as one hop can
    tell, `middle_db` the level of what only an open mouth lets out (350 Hz to 3.4 kHz), `darkness` 1 where the murmur
    below 350 Hz is as strong as that, as behind a constriction. `below_db` is how far `middle_db` lies under the
    speaker's peaks, `tilt_db` and `dullness_db` by how much 350 to 1000 Hz and 1 to 1.8 kHz outweigh 1.8 to 3.4 kHz
    (closing lips take the treble first), `voicing` 1 where a pitch is heard.
    """

    drive: float
    openness: float
    front: float
    hiss: float
    closure: float
    middle_db: float
    darkness: float
    below_db: float
    tilt_db: float
    dullness_db: float
    voicing: float


@dataclass(slots=True)
class Mouth:
    """One frame's mouth. `jaw`, `closure`, `tuck` 0..1; `width` -1 (round) .. 1 (spread). `closure` is lips pressed
    between sounds and 0 in silence; nothing sets `tuck` yet: /f/ and /v/ are not told from other weak sounds.

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


def mouth_of_hop(hop: HopFeatures, gate: GateState) -> HopMouth:
    """Targets for one hop from its features and the gate's state."""
    _, low_db, _, high_db, hiss_db = hop.bands_db
    hiss = clip((hiss_db - max(low_db, high_db) - 2.0) / 8.0)
    murmur_db, low_db, central_db, high_db = hop.brief_db
    middle_db = max(low_db, central_db, high_db + 1.0)
    # The opening follows the amplitude, compressed: linear sound pressure looks nervous, decibels look always open.
    amplitude = 10.0 ** (min(hop.level_db - gate.peak_db, 3.0) * 0.6 / 20.0)
    drive = clip((amplitude - _SILENT_DRIVE) / (1.0 - _SILENT_DRIVE), 0.0, 1.15)
    drive *= clip(gate.loudness / 0.3)
    return HopMouth(
        drive=drive,
        openness=clip((hop.f1_hz - 280.0) / 440.0),
        front=2.0 * clip((hop.f2_hz - 1000.0) / 1100.0) - 1.0,
        hiss=hiss,
        closure=_closure(hop, gate, middle_db, hiss),
        middle_db=middle_db,
        darkness=clip((murmur_db - middle_db + 6.0) / 5.0),
        below_db=gate.peak_db - middle_db,
        tilt_db=low_db - high_db,
        dullness_db=central_db - high_db,
        voicing=clip((hop.harmonicity - 0.2) / 0.15),
    )


def _closure(hop: HopFeatures, gate: GateState, middle_db: float, hiss: float) -> float:
    """Lips shut: next to nothing comes out of the mouth, or only the murmur of a nasal or a voiced stop."""
    below_peak_db = gate.peak_db - middle_db
    faint = clip((below_peak_db - 23.0) / 8.0)
    murmur = 0.9 * clip((hop.brief_db[0] - middle_db - 6.5) / 4.0) * clip((below_peak_db - 13.0) / 5.0)
    return max(0.0, max(faint, murmur) - hiss)


def write_mouth(mouth: Mouth, expression: Expression, *, is_mouth_open: bool) -> None:
    """Set the mouth's part of `expression`; a portrait taken with an open mouth is held closed by `close`."""
    narrow = max(0.0, -mouth.width)
    jaw = 0.85 * mouth.jaw * (1.0 - 0.2 * narrow)
    expression.jaw = jaw
    expression.wide = 0.8 * max(0.0, mouth.width) * min(1.0, 5.0 * jaw)
    expression.round = narrow * min(1.0, 6.0 * jaw)
    expression.press = 0.5 * mouth.closure * (1.0 - min(1.0, 4.0 * jaw))
    expression.tuck = mouth.tuck
    expression.close = max(0.0, 0.97 - 0.45 * jaw) if is_mouth_open else 0.0


def clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """`value` within `low` .. `high`."""
    return low if value < low else high if value > high else value
