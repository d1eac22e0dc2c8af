"""What is seen between the lips: cavity, teeth and tongue, drawn once and moved with the head and the jaw."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from engine.generators.puppet.bases import JAW_DROP, FacePoints
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import smoothstep

_CAVITY = np.array([52.0, 18.0, 26.0])
_CAVITY_FLAT = np.array([96.0, 32.0, 44.0])
_TONGUE = np.array([188.0, 84.0, 88.0])
_TEETH = np.array([236.0, 229.0, 216.0])
_HALF_WIDTHS = (0.090, 0.075, 0.072, 0.058, 0.050, 0.045)
_WORTH_KEEPING_IOD = 0.13
"""Lips parted less than this show too little of the picture's own teeth to continue them."""

_LAUGHING_IOD = 0.28
"""Lips parted more than this cannot close; what they show is left in the picture."""

_FINE = 3
"""Teeth are drawn this much finer and reduced: smooth outlines without a vector library."""


class InnerMouth:
    """Two RGBA layers (premultiplied, float32 0..1) in the window of source pixels around the mouth: `upper` stays
    with the head, `lower` goes down with the jaw."""

    def __init__(self, image: np.ndarray, geometry: FaceGeometry, window: tuple[slice, slice]) -> None:
        self._frame = geometry.face_frame()
        self._face = FacePoints.of(geometry)
        rows, columns = window
        self._size = (columns.stop - columns.start, rows.stop - rows.start)
        self._origin = np.array([columns.start, rows.start], np.float64)
        self._box = self._drawn_box()
        self.is_flat = geometry.is_flat
        skin, lip = _colours(image, geometry)
        light = float(np.clip(skin.mean() / 255.0 / 0.72, 0.45, 1.12))
        self.cavity = ((_CAVITY_FLAT if self.is_flat else _CAVITY) * light / 255.0).astype(np.float32)
        self.shadow = (0.30 * lip / 255.0).astype(np.float32)
        # Teeth and tongue are lit like the face, but are not as dark as a dark skin is.
        light = float(np.clip(light, 0.93, 1.08))
        shows_teeth = geometry.is_mouth_open and _widest_gap_iod(self._face) >= _WORTH_KEEPING_IOD
        self.upper = self._own_teeth(image, window, light) if shows_teeth else self._upper_teeth(light)
        gap = _widest_gap_iod(self._face)
        self._upper_height = max(0.08, gap + 0.02) if shows_teeth else 0.08
        self._is_laughing = shows_teeth and gap > _LAUGHING_IOD
        self.lower = self._tongue_and_teeth(light)
        self.tongue = self._tongue_and_teeth(light, with_teeth=False)

    def jaw_shift_px(self, jaw: float) -> np.ndarray:
        """(2,) how far the lower layer has gone down, image px."""
        down = self._frame.to_image(np.array([0.0, JAW_DROP * 0.92])) - self._frame.to_image(np.zeros(2))
        return jaw * down

    def upper_shown(self, rounding: float) -> float:
        """How much of the upper layer is left, 0..1: nothing between round lips. A laugh too wide to close stays."""
        return 1.0 if self._is_laughing else min(1.0, max(0.0, 4.0 - 4.5 * rounding))

    def upper_shift_px(self, rounding: float) -> np.ndarray:
        """(2,) how far the upper layer is behind the lip, image px: half-transparent teeth would look grey, so rounded
        lips hide them by covering them."""
        if self._is_laughing:
            return np.zeros(2)
        up = self._frame.to_image(np.array([0.0, -self._upper_height])) - self._frame.to_image(np.zeros(2))
        return float(smoothstep(np.float64(rounding), 0.15, 0.75)) * up

    def _drawn_box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) within the window: all that teeth and tongue can cover, so that little is drawn finely."""
        left, right = self._face.corner_x
        seams = np.concatenate([self._face.seam_upper, self._face.seam_lower])[:, 1]
        top, bottom = float(seams.min()) - 0.2, float(seams.max()) + 0.2
        corners = np.array([[x, y] for x in (left - 0.1, right + 0.1) for y in (top, bottom)])
        spots = self._frame.to_image(corners) - self._origin
        low = np.clip(np.floor(spots.min(axis=0)).astype(int), 0, np.array(self._size) - 1)
        high = np.clip(np.ceil(spots.max(axis=0)).astype(int) + 1, low + 1, self._size)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _points(self) -> np.ndarray:
        x0, y0, x1, y1 = self._box
        width, height = x1 - x0, y1 - y0
        fine = np.stack(
            np.meshgrid(
                (np.arange(width * _FINE) + 0.5) / _FINE - 0.5, (np.arange(height * _FINE) + 0.5) / _FINE - 0.5
            ),
            axis=-1,
        )
        return self._frame.to_face(fine + self._origin + np.array([x0, y0]))

    def _layer(self, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        rgba = np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=-1).astype(np.float32)
        x0, y0, x1, y1 = self._box
        layer = np.zeros((self._size[1], self._size[0], 4), np.float32)
        layer[y0:y1, x0:x1] = cv2.resize(rgba, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        return layer

    def _upper_teeth(self, light: float) -> np.ndarray:
        points = self._points()
        x, y = points[..., 0] - sum(self._face.corner_x) / 2, points[..., 1]
        half = (self._face.corner_x[1] - self._face.corner_x[0]) / 2
        seam = self._face.seam_at(points[..., 0], self._face.seam_upper)
        middle = float(self._face.seam_upper[len(self._face.seam_upper) // 2, 1])
        root = middle + 0.6 * (seam - middle)
        if self.is_flat:
            alpha = _step(root + 0.055 - y) * _step(y - seam + 0.10)
            return self._layer(np.ones((*points.shape[:2], 3)), alpha)
        scale = 0.85 * half / 0.40
        edge = root + 0.060 - 0.16 * x**2 / max(0.4, half / 0.4)
        gaps, height = _tooth_profile(np.abs(x), scale)
        alpha = _step(edge - 0.018 * (1 - height) - y) * _step(y - seam + 0.12)
        alpha *= 1.0 - smoothstep(np.abs(x), half * 0.80, half * 0.98)
        shade = light * (1.0 - 0.10 * gaps) * (1.0 - 0.28 * smoothstep(np.abs(x) / half, 0.25, 0.95))
        shade = shade * (0.88 + 0.12 * smoothstep(y, root - 0.01, edge))
        colour = np.clip(_TEETH / 255.0 * shade[..., None], 0, 1)
        return self._layer(colour, alpha)

    def _own_teeth(self, image: np.ndarray, window: tuple[slice, slice], light: float) -> np.ndarray:
        """The picture's own teeth: what lies between its lips, continued a little under them."""
        rows, columns = window
        part = np.ascontiguousarray(image[rows, columns])
        grid = np.stack(np.meshgrid(np.arange(self._size[0]), np.arange(self._size[1])), axis=-1)
        points = self._frame.to_face(grid + self._origin)
        upper = self._face.seam_at(points[..., 0], self._face.seam_upper)
        lower = self._face.seam_at(points[..., 0], self._face.seam_lower)
        left, right = self._face.corner_x
        between = (points[..., 0] > left) & (points[..., 0] < right)
        inside = between & (points[..., 1] > upper + 0.006) & (points[..., 1] < lower - 0.006)
        around = between & (points[..., 1] > upper - 0.06) & (points[..., 1] < lower + 0.03)
        unknown = (around & ~inside).astype(np.uint8)
        radius = max(2.0, 0.03 * self._frame.iod_px)
        painted = cv2.inpaint(part, unknown, radius, cv2.INPAINT_TELEA) if inside.any() else part
        alpha = cv2.GaussianBlur(around.astype(np.float32), (0, 0), 0.8) * (points[..., 1] < lower + 0.02)
        colour = painted.astype(np.float32) / 255.0
        return np.ascontiguousarray(np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=-1), np.float32)

    def _tongue_and_teeth(self, light: float, *, with_teeth: bool = True) -> np.ndarray:
        points = self._points()
        x = points[..., 0] - sum(self._face.corner_x) / 2
        seam = self._face.seam_at(points[..., 0], self._face.seam_lower)
        y = points[..., 1] - seam
        half = (self._face.corner_x[1] - self._face.corner_x[0]) / 2
        bulge = (x / (0.52 * half)) ** 2 + ((y + 0.005) / 0.085) ** 2
        alpha = 1.0 - smoothstep(bulge, 0.80, 1.05)
        crease = 1.0 - 0.10 * np.exp(-((x / 0.012) ** 2)) * (y > -0.07)
        colour = (_TONGUE / 255.0 * light) * ((0.80 - 1.6 * np.clip(y, -0.08, 0.0)) * crease)[..., None]
        if with_teeth and not self.is_flat:
            gaps, _ = _tooth_profile(np.abs(x), 0.62 * half / 0.40)
            teeth = _step(y + 0.024 - 0.10 * x**2) * (1.0 - smoothstep(np.abs(x), 0.45 * half, 0.66 * half))
            shade = light * (0.74 - 0.10 * gaps)
            colour = colour + teeth[..., None] * (_TEETH / 255.0 * shade[..., None] - colour)
            alpha = np.maximum(alpha, teeth)
        return self._layer(np.clip(colour, 0, 1), alpha)


def _step(distance: np.ndarray, softness: float = 0.006) -> np.ndarray:
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def _tooth_profile(x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(darkness of the gap, roundness of the lower edge) at distance x from the middle, both 0..1."""
    edges = np.concatenate([[0.0], np.cumsum(_HALF_WIDTHS) * 2 * scale * 0.62])
    gaps = np.zeros_like(x)
    height = np.zeros_like(x)
    for start, end in pairwise(edges):
        inside = (x >= start) & (x < end)
        u = (x - start) / (end - start)
        height = np.where(inside, 1.0 - np.abs(2 * u - 1) ** 4, height)
        gaps = np.maximum(gaps, np.exp(-(((x - end) / 0.005) ** 2)))
    return np.maximum(gaps, np.exp(-((x / 0.005) ** 2))), height


def _colours(image: np.ndarray, geometry: FaceGeometry) -> tuple[np.ndarray, np.ndarray]:
    """(skin, lip): median colours of the cheeks and of the lower lip."""
    height, width = image.shape[:2]

    def around(indices: tuple[int, ...]) -> np.ndarray:
        points = np.round(geometry.landmarks[list(indices), :2]).astype(int)
        x, y = np.clip(points[:, 0], 0, width - 1), np.clip(points[:, 1], 0, height - 1)
        return np.median(image[y, x].astype(np.float64), axis=0)

    return around((50, 280, 117, 346, 101, 330, 205, 425)), around((15, 16, 86, 316, 85, 315))


def _widest_gap_iod(face: FacePoints) -> float:
    """How far the lips of the portrait are apart at most."""
    return float((face.seam_lower[:, 1] - face.seam_upper[:, 1]).max())
