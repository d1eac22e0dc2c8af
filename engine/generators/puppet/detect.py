"""Candidates for faces: BlazeFace over several scales and turns of the picture.

The detector's score alone does not tell a face from a fist; `landmarks.py` and `analyse.py` judge the candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.generators.puppet.crops import ImagePyramid, Square, apply_affine, as_batch
from engine.generators.puppet.models import FaceModels

INPUT_SIDE_PX = 128
MIN_SCORE = 0.3
"""Lower than a detector alone would need (0.5): what is no face is refused later, by its landmarks."""

TILE_PASSES = ((1, 1.0), (3, 0.6), (5, 0.36), (8, 0.18))
"""Tiles per axis, and their side as a fraction of the picture's longer side."""

SAME_PLACE_OVERLAP = 0.35
"""Boxes that overlap this much (intersection over union) are one face."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One face as the detector saw it, in image px.

    `key_points` (6, 2) are the eyes, nose tip, mouth and ears; the first eye is the image-left one of an upright face.
    """

    box: np.ndarray  # (4,) left, top, right, bottom
    key_points: np.ndarray
    score: float  # 0..1

    @property
    def side_px(self) -> float:
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def centre(self) -> tuple[float, float]:
        return (float(self.box[0] + self.box[2]) / 2.0, float(self.box[1] + self.box[3]) / 2.0)

    @property
    def roll_rad(self) -> float:
        across = self.key_points[1] - self.key_points[0]
        return math.atan2(across[1], across[0])


def detect_faces(
    pyramid: ImagePyramid, models: FaceModels, *, roll_rad: float = 0.0, passes: slice = slice(3)
) -> list[Detection]:
    """All candidates, best score first, one per place.

    `roll_rad` is how far the faces are expected to be tilted; `passes` are those of TILE_PASSES, the
    later the smaller the faces.
    """
    found: list[Detection] = []
    for square in _tiles(*pyramid.size, passes):
        turned = Square(centre=square.centre, side_px=square.side_px, roll_rad=roll_rad)
        found += detect_in_square(pyramid, models, turned)
    return merge_detections(found)


def detect_in_square(pyramid: ImagePyramid, models: FaceModels, square: Square) -> list[Detection]:
    """Detections inside one square of the picture, which may reach beyond its border (black there)."""
    crop = pyramid.crop(square, INPUT_SIDE_PX, border=cv2.BORDER_CONSTANT)
    logits, raw = models.detect(as_batch(crop, scale=1 / 127.5, mean=127.5))
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0)))
    kept = np.flatnonzero(scores >= MIN_SCORE)
    to_image = square.to_image(INPUT_SIDE_PX)
    return [_decode(raw[index], _ANCHORS[index], float(scores[index]), to_image) for index in kept]


def merge_detections(found: list[Detection]) -> list[Detection]:
    """Candidates of one place become one: the strongest one's score, the score-weighted mean of their boxes."""
    rest = sorted(found, key=lambda detection: -detection.score)
    merged = []
    while rest:
        best = rest[0]
        same = [other for other in rest if overlap(best.box, other.box) >= SAME_PLACE_OVERLAP]
        rest = [other for other in rest[1:] if overlap(best.box, other.box) < SAME_PLACE_OVERLAP]
        weights = np.array([other.score for other in same])
        merged.append(
            Detection(
                box=np.average([other.box for other in same], axis=0, weights=weights),
                key_points=np.average([other.key_points for other in same], axis=0, weights=weights),
                score=best.score,
            )
        )
    return merged


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    inner = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if (inner <= 0).any():
        return 0.0
    shared = float(inner[0] * inner[1])
    areas = float((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]))
    return shared / (areas - shared)


def _decode(raw: np.ndarray, anchor: np.ndarray, score: float, to_image: np.ndarray) -> Detection:
    """One row of the network: centre, size and six points, each in px of the crop and relative to the anchor."""
    centre = raw[:2] + anchor
    half = raw[2:4] / 2.0
    # The network counts from the crop's edge, the matrix from the centre of its first pixel.
    corners = apply_affine(to_image, np.array([centre - half, centre + half]) - 0.5)
    middle = corners.mean(axis=0)
    reach = np.hypot(*(corners[1] - corners[0])) / math.sqrt(8.0)
    return Detection(
        box=np.concatenate([middle - reach, middle + reach]),
        key_points=apply_affine(to_image, raw[4:].reshape(6, 2) + anchor - 0.5),
        score=score,
    )


def _make_anchors() -> np.ndarray:
    """(896, 2): two anchors in each cell of a 16x16 grid, then six in each of an 8x8 grid; px of the crop."""
    anchors = []
    for cells, repeats in ((16, 2), (8, 6)):
        ys, xs = np.mgrid[:cells, :cells]
        centres = (np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) * (INPUT_SIDE_PX / cells)
        anchors.append(np.repeat(centres, repeats, axis=0))
    return np.concatenate(anchors).astype(np.float32)


_ANCHORS = _make_anchors()


def _tiles(width: int, height: int, passes: slice) -> list[Square]:
    """Squares that cover the picture at every scale; those that would repeat each other are left out."""
    longer = max(width, height)
    tiles = []
    for count, fraction in TILE_PASSES[passes]:
        side = longer * fraction
        for y in _centres(height, side, count):
            for x in _centres(width, side, count):
                tiles.append(Square(centre=(x, y), side_px=side))
    return tiles


def _centres(length: int, side: float, count: int) -> list[float]:
    if side >= length:
        return [(length - 1) / 2.0]
    # Neighbours overlap by about half, so that no face of half a tile is cut by every tile.
    needed = min(count, math.ceil((length - side) / (side / 2.0)) + 1)
    return list(np.linspace(side / 2.0, length - side / 2.0, max(needed, 2)) - 0.5)
