"""468 face landmarks from a square around a face, fitted in a few rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.generators.puppet.crops import ImagePyramid, Square, apply_affine, as_batch
from engine.generators.puppet.detect import Detection
from engine.generators.puppet.geometry import FaceFrame, frame_of_landmarks
from engine.generators.puppet.models import FaceModels
from engine.generators.puppet.template import mirror_pairs

INPUT_SIDE_PX = 192
ROI_MARGIN = 1.5
"""Side of the network's square relative to the face's box, as it was trained."""

_LEFT_EYE_CORNER, _RIGHT_EYE_CORNER = 33, 263


@dataclass(frozen=True, kw_only=True, eq=False)
class LandmarkFit:
    """What the landmark network made of one square."""

    points: np.ndarray  # (468, 3) float64, image px; z has the scale of x
    presence: float  # 0..1
    square: Square

    def frame(self) -> FaceFrame:
        return frame_of_landmarks(self.points)


def square_of_detection(detection: Detection) -> Square:
    """Where to look first for the landmarks of a detected face."""
    return Square(centre=detection.centre, side_px=ROI_MARGIN * detection.side_px, roll_rad=detection.roll_rad)


def square_of_landmarks(points: np.ndarray) -> Square:
    """The square around landmarks, level with the eyes."""
    across = points[_RIGHT_EYE_CORNER, :2] - points[_LEFT_EYE_CORNER, :2]
    roll = math.atan2(across[1], across[0])
    cos, sin = math.cos(roll), math.sin(roll)
    level = points[:, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = level.min(axis=0), level.max(axis=0)
    centre = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2.0)
    return Square(
        centre=(float(centre[0]), float(centre[1])),
        side_px=max(ROI_MARGIN * float((high - low).max()), 8.0),
        roll_rad=roll,
    )


def fit_once(pyramid: ImagePyramid, models: FaceModels, square: Square, *, is_mirrored: bool = False) -> LandmarkFit:
    """One pass of the network. `is_mirrored` shows it the mirror image and swaps the answer's left and right."""
    crop = pyramid.crop(square, INPUT_SIDE_PX)
    if is_mirrored:
        crop = cv2.flip(crop, 1)
    raw, logit = models.landmarks(as_batch(crop, scale=1 / 255.0))
    points = raw.astype(np.float64)
    if is_mirrored:
        points[:, 0] = INPUT_SIDE_PX - points[:, 0]
        points = points[mirror_pairs()]
    xy = apply_affine(square.to_image(INPUT_SIDE_PX), points[:, :2] - 0.5)
    depth = points[:, 2:] * (square.side_px / INPUT_SIDE_PX)
    presence = 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, logit))))
    return LandmarkFit(points=np.hstack([xy, depth]), presence=presence, square=square)


def fit_landmarks(pyramid: ImagePyramid, models: FaceModels, square: Square, *, rounds: int = 3) -> LandmarkFit:
    """Fit, look again in the square that the landmarks suggest, and so on; the last round's answer."""
    fit = fit_once(pyramid, models, square)
    for _ in range(rounds - 1):
        fit = fit_once(pyramid, models, square_of_landmarks(fit.points))
    return fit
