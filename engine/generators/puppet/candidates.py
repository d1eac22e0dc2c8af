"""Which of the detector's candidates is a face: how the landmark network behaves when it is made to look again.

On a face it gives the same answer for a square that is shifted, scaled, turned or mirrored. On a fist it is just as
sure of itself, but its answers disagree: their spread is what tells the two apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.generators.puppet.crops import ImagePyramid, Square
from engine.generators.puppet.detect import Detection, detect_faces, overlap
from engine.generators.puppet.geometry import FaceFrame, frame_of_landmarks
from engine.generators.puppet.landmarks import fit_landmarks, fit_once, square_of_detection, square_of_landmarks
from engine.generators.puppet.models import FaceModels

MIN_CONFIDENCE = 0.45
"""Below this a candidate is no face. Photographs of faces reach .9, bearded laughing cartoons .7, fists .4 at most."""

_STAGES = (
    ((0,), slice(3), 6),
    ((0,), slice(3, 4), 4),
    ((40, -40), slice(2), 3),
    ((90, -90, 180), slice(1), 2),
)
"""Turns of the picture in degrees, the detector's passes, and how many candidates are judged."""

_WORTH_JUDGING = 0.02  # presence after the first fit
_SURE = 0.6
_STEADY = 0.035  # iod; photographs that look into the camera stay below .03

_READINGS = ((1.3, 0.0), (1.3, 0.12), (1.6, 0.1), (0.8, 0.0))
"""Other squares to read an unsteady face from: factor of the side, shift towards the chin in sides."""

# Each second look: factor of the square's side, turn in degrees, shift in sides, mirrored.
_LOOKS = (
    (1.0, 0.0, 0.0, 0.0, False),
    (1.0, 0.0, 0.0, 0.0, True),
    (0.88, 0.0, 0.0, 0.0, True),
    (1.15, 0.0, 0.0, 0.0, False),
    (1.0, 12.0, 0.0, 0.0, False),
    (1.0, -12.0, 0.0, 0.0, False),
    (1.0, 0.0, 0.06, 0.03, True),
    (1.0, 0.0, -0.06, -0.03, False),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceCandidate:
    """A place that may show a face, with the evidence. `confidence` 0..1 sums it up."""

    landmarks: np.ndarray  # (468, 3) float64 image px, mean of several fits
    detection_score: float
    presence_score: float  # mean of several fits
    spread: float  # disagreement of the fits, iod
    confidence: float

    @property
    def frame(self) -> FaceFrame:
        return frame_of_landmarks(self.landmarks)

    @property
    def box(self) -> np.ndarray:
        """Left, top, right, bottom of all landmarks."""
        return np.concatenate([self.landmarks[:, :2].min(axis=0), self.landmarks[:, :2].max(axis=0)])


def find_candidates(pyramid: ImagePyramid, models: FaceModels) -> list[FaceCandidate]:
    """All places judged, most confident first; those below MIN_CONFIDENCE are no faces.

    Upright faces are sought first, and only when there is none for sure, tiny ones and larger ones in a turned picture.
    """
    judged: list[FaceCandidate] = []
    for turns_deg, passes, at_most in _STAGES:
        for turn in turns_deg:
            detections = detect_faces(pyramid, models, roll_rad=math.radians(turn), passes=passes)
            judged += _judge_all(pyramid, models, detections, at_most)
        if any(candidate.confidence >= _SURE for candidate in judged):
            break
    return _distinct(judged)


def judge(pyramid: ImagePyramid, models: FaceModels, square: Square, detection_score: float) -> FaceCandidate:
    """Look at a square several times and put the answers together."""
    fits = []
    for factor, turn_deg, dx, dy, is_mirrored in _LOOKS:
        look = Square(
            centre=(square.centre[0] + dx * square.side_px, square.centre[1] + dy * square.side_px),
            side_px=square.side_px * factor,
            roll_rad=square.roll_rad + math.radians(turn_deg),
        )
        fits.append(fit_once(pyramid, models, look, is_mirrored=is_mirrored))
    points = np.array([fit.points for fit in fits])
    presences = np.array([fit.presence for fit in fits])
    # The turned looks are there for the evidence; what they say of depth and contours is a little worse.
    weights = presences * np.array([1.0 if look[1] == 0 else 0.5 for look in _LOOKS]) + 1e-6
    mean = np.average(points, axis=0, weights=weights)
    iod = frame_of_landmarks(mean).iod_px
    spread = float(np.sqrt(((points - mean)[:, :, :2] ** 2).sum(axis=2).mean(axis=0)).mean()) / iod
    presence = float(presences.mean())
    return FaceCandidate(
        landmarks=mean,
        detection_score=detection_score,
        presence_score=presence,
        spread=spread,
        confidence=_confidence(presence, spread, detection_score, mean),
    )


def other_readings(pyramid: ImagePyramid, models: FaceModels, face: FaceCandidate) -> list[FaceCandidate]:
    """What else the network sees in it from other squares, for a face it is not steady about.

    A large moustache, for one, is taken for the mouth when the square ends above the real one.
    """
    if face.spread < _STEADY:
        return []
    base = square_of_landmarks(face.landmarks)
    down = np.array([-math.sin(base.roll_rad), math.cos(base.roll_rad)]) * base.side_px
    readings = []
    for factor, shift in _READINGS:
        centre = np.array(base.centre) + shift * down
        square = Square(
            centre=(float(centre[0]), float(centre[1])), side_px=factor * base.side_px, roll_rad=base.roll_rad
        )
        first = fit_once(pyramid, models, square)
        readings.append(judge(pyramid, models, square_of_landmarks(first.points), face.detection_score))
    return [reading for reading in readings if reading.confidence >= 0.7 * face.confidence]


def prominence(face: FaceCandidate, size: tuple[int, int]) -> float:
    """Size, weakened towards the picture's edge and for unsure faces; only the order means something."""
    centre = (face.box[:2] + face.box[2:]) / 2.0
    away = (centre - np.array(size) / 2.0) / (max(size) / 2.0)
    # Portraits are framed with the head above the middle, so only the sideways distance counts fully.
    distance = math.hypot(away[0], 0.5 * away[1])
    return face.frame.iod_px * math.exp(-0.7 * distance**2) * face.confidence**2


def _judge_all(
    pyramid: ImagePyramid, models: FaceModels, detections: list[Detection], at_most: int
) -> list[FaceCandidate]:
    fitted = []
    for detection in detections[: 2 * at_most + 4]:
        fit = fit_landmarks(pyramid, models, square_of_detection(detection))
        if fit.presence >= _WORTH_JUDGING:
            fitted.append((fit.presence * detection.score, fit, detection))
    fitted.sort(key=lambda entry: -entry[0])
    return [
        judge(pyramid, models, square_of_landmarks(fit.points), detection.score)
        for _, fit, detection in fitted[:at_most]
    ]


def _confidence(presence: float, spread: float, detection_score: float, landmarks: np.ndarray) -> float:
    steady = math.exp(-((spread / 0.11) ** 2))
    detected = min(1.0, 0.4 + detection_score)
    return presence * steady * detected * _layout(landmarks)


def _layout(landmarks: np.ndarray) -> float:
    """1 for a face's order of parts, towards 0 for landmarks folded onto each other."""
    points = frame_of_landmarks(landmarks).to_face(landmarks)
    eyes_above_mouth = -float(points[[33, 263], 1].mean())
    chin_below = float(points[152, 1])
    mouth_width = float(points[308, 0] - points[78, 0])
    parts = (eyes_above_mouth / 0.5, chin_below / 0.25, mouth_width / 0.3)
    return float(np.prod([min(1.0, max(0.0, part)) for part in parts]))


def _distinct(judged: list[FaceCandidate]) -> list[FaceCandidate]:
    kept: list[FaceCandidate] = []
    for candidate in sorted(judged, key=lambda face: -face.confidence):
        if all(overlap(candidate.box, other.box) < 0.3 for other in kept):
            kept.append(candidate)
    return kept
