"""Turned, scaled squares out of a picture, without aliasing, as the face networks want them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

_SMALLEST_LEVEL_PX = 64


@dataclass(frozen=True, kw_only=True)
class Square:
    """A square of a picture: `centre` and `side_px` in image px, its x axis turned clockwise by `roll_rad`."""

    centre: tuple[float, float]
    side_px: float
    roll_rad: float = 0.0

    def to_image(self, out_side_px: int) -> np.ndarray:
        """2x3 matrix from pixel centres of the crop (at integers) to those of the image."""
        scale = self.side_px / out_side_px
        cos, sin = math.cos(self.roll_rad) * scale, math.sin(self.roll_rad) * scale
        offset = 0.5 - out_side_px / 2.0
        x, y = self.centre
        return np.array(
            [[cos, -sin, x + (cos - sin) * offset], [sin, cos, y + (sin + cos) * offset]],
        )


class ImagePyramid:
    """A picture and its halves, so that a small crop of a large square averages all pixels it covers."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self._levels = [image]
        while min(self._levels[-1].shape[:2]) >= 2 * _SMALLEST_LEVEL_PX:
            height, width = self._levels[-1].shape[:2]
            half = cv2.resize(self._levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            self._levels.append(half)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.image.shape[1], self.image.shape[0]

    def crop(self, square: Square, out_side_px: int, *, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """The square as (out_side_px, out_side_px, 3); `border` says what lies beyond the picture's edge."""
        reduction = max(square.side_px / out_side_px, 1.0)
        level = self._levels[min(int(math.log2(reduction) + 0.3), len(self._levels) - 1)]
        factor = np.array([level.shape[1] / self.image.shape[1], level.shape[0] / self.image.shape[0]])
        matrix = square.to_image(out_side_px)
        matrix[:, 2] = (matrix[:, 2] + 0.5) * factor - 0.5
        matrix[:, :2] *= factor[:, None]
        return cv2.warpAffine(
            level,
            matrix,
            (out_side_px, out_side_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=border,
        )


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A 2x3 matrix applied to (..., 2) points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def as_batch(crop: np.ndarray, *, scale: float, mean: float = 0.0) -> np.ndarray:
    """(side, side, 3) uint8 -> (1, 3, side, side) float32 of `(crop - mean) * scale`."""
    return ((crop.astype(np.float32) - mean) * np.float32(scale)).transpose(2, 0, 1)[None].copy()
