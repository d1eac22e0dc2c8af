"""Lids that close over a still eyeball: their edge with its lashes is carried down unbent, before painted skin.

Nothing is stretched, so brows, creases and the rims of glasses stay as they are.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet import geometry as g
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import smoothstep

_EDGE_PX = 1.2
_OVERLAP_IOD, _OVERLAP_FLAT_IOD = 0.032, 0.048
"""How far a closed lid reaches beyond the lower rim: less leaves a white sliver."""

_STRIP_IOD, _STRIP_FLAT_IOD = 0.055, 0.075
"""Lashes and outlines: this much above the lid's edge moves as a whole."""

_LASHES_IOD, _UNDER_IOD = 0.075, 0.06
"""How far above and below the eye there is no skin to be sure of."""

_OTHER_COLOUR = 15.0
"""Distance from the skin's colour in Lab, lightness weighted by .6, of what is no skin: lashes, whites, rims."""

_SQUASHED = 0.12


class Eyelid:
    """One eye in source pixels. `close` gives where to look instead, and how much of the lid covers.

    `opening` is the outline (n, 2) in face units of a lens (see `Glasses`): nothing outside it changes.
    """

    def __init__(
        self, geometry: FaceGeometry, side: int, size: tuple[int, int], opening: np.ndarray | None = None
    ) -> None:
        frame = geometry.face_frame()
        self._iod_px = frame.iod_px
        upper, lower = frame.to_face(geometry.eye_upper[side]), frame.to_face(geometry.eye_lower[side])
        left, right = min(upper[0, 0], lower[0, 0]), max(upper[-1, 0], lower[-1, 0])
        brow = frame.to_face(geometry.landmarks)[list(g.LEFT_BROW_BOTTOM if side == 0 else g.RIGHT_BROW_BOTTOM)]
        self.is_squash = geometry.blink == "squash"
        self.window = _window(frame, (left, right), brow, lower, size)
        rows, columns = self.window
        grid = np.stack(np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)), axis=-1)
        points = frame.to_face(grid)
        x, y = points[..., 0], points[..., 1]
        down = frame.to_image(np.array([0.0, 1.0])) - frame.to_image(np.zeros(2))
        self._down = (down / self._iod_px).astype(np.float32)
        lens = None if opening is None else _filled(frame.to_image(opening), self.window)
        if self.is_squash:
            self._prepare_squash(x, y, upper, lower)
        else:
            self._prepare_lid(x, y, upper, lower, (left, right), geometry.is_flat, lens)
        self._work = np.empty(x.shape, np.float32)
        self.table = np.zeros((*x.shape, 4), np.float32)
        """(h, w, 4): how far (dx, dy, px) to look away, the lid's cover 0..1, and how much of it is `painted` (of
        which there may be none) instead; valid after `close`."""

    def close(self, blink: float) -> np.ndarray:
        """Fill `table` for a lid closed by 0..1."""
        amount = self._squash(blink) if self.is_squash else self._lid(blink)
        self.table[..., 0] = amount * self._down[0]
        self.table[..., 1] = amount * self._down[1]
        return self.table

    def painted(self, image: np.ndarray) -> np.ndarray | None:
        """uint8 (h, w, 4): the window of `image` (RGBA) with skin where the eye is; None for a squashed eye."""
        if self.is_squash:
            return None
        rows, columns = self.window
        part = np.ascontiguousarray(image[rows, columns])
        rgb = np.ascontiguousarray(part[..., :3])
        skin = _skin_among(rgb, self._skin)
        if skin.any():
            filled = cv2.inpaint(rgb, (~skin).astype(np.uint8), max(2.0, 0.03 * self._iod_px), cv2.INPAINT_TELEA)
            part[..., :3] = cv2.GaussianBlur(filled, (0, 0), 0.03 * self._iod_px)
        return part

    def _prepare_lid(self, x, y, upper, lower, ends, is_flat, lens) -> None:
        iod = self._iod_px
        t = np.clip((2 * x - ends[0] - ends[1]) / (ends[1] - ends[0]), -1.6, 1.6)
        rim = np.interp(x, upper[:, 0], upper[:, 1])
        below = np.interp(x, lower[:, 0], lower[:, 1])
        overlap = _OVERLAP_FLAT_IOD if is_flat else _OVERLAP_IOD
        height = float(lower[1:-1, 1].max() - upper[1:-1, 1].min())
        drop = np.maximum(0.0, below - rim) + overlap * np.clip(1 - t**4, 0, 1) * min(1.0, height / 0.12)
        drop *= 1.0 - smoothstep(np.abs(t), 1.0, 1.15)
        self._drop = (drop * iod).astype(np.float32)
        self._edge = ((rim - y) * iod).astype(np.float32)  # px above the resting lid's edge
        self._strip = (_STRIP_FLAT_IOD if is_flat else _STRIP_IOD) * iod
        is_eye = (y > rim - _LASHES_IOD) & (y < below + _UNDER_IOD) & (np.abs(t) < 1.2)
        is_around = (y > rim - 0.22) & (y < below + 0.18) & (np.abs(t) < 1.5)
        reach = (1.0 - smoothstep(rim - y, 0.9 * _LASHES_IOD, 1.3 * _LASHES_IOD)) * (
            1.0 - smoothstep(np.abs(t), 1.02, 1.15)
        )
        if lens is not None:
            # So near the eye no rim is found: there the outline of the lens is wrong.
            is_near = (y > rim - 0.06) & (y < below + 0.02) & (np.abs(t) < 1.05)
            reach *= np.maximum(lens, is_near)
            is_around &= lens > 0.5
        self._reach = reach.astype(np.float32)
        self._skin = is_around & ~is_eye

    def _lid(self, blink: float) -> np.ndarray:
        """How far up to look, px: the lid's edge with its lashes is moved, and what it leaves is painted."""
        shift = cv2.multiply(self._drop, blink)
        above_edge = cv2.add(self._edge, shift)
        paint, cover = self.table[..., 3], self.table[..., 2]
        paint[:] = smoothstep(above_edge, 0.6 * self._strip, self._strip)
        np.clip(above_edge / _EDGE_PX + 0.5, 0.0, 1.0, out=cover)
        # The paint comes in gently, so that nothing jumps when a blink begins.
        cover *= self._reach * np.maximum(1.0 - paint, min(1.0, 3.0 * blink))
        np.negative(shift, out=self._work)
        return self._work

    def _prepare_squash(self, x, y, upper, lower) -> None:
        outline = np.concatenate([upper, lower])
        low, high = outline.min(axis=0), outline.max(axis=0)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.02) * np.array([1.25, 1.3])
        line = middle[1] + 0.25 * (high[1] - low[1])
        self._above = ((y - line) * self._iod_px).astype(np.float32)
        self._half = float(half[1] * self._iod_px)
        self._reach = (1.0 - smoothstep(np.abs(x - middle[0]) / half[0], 1.0, 1.5)).astype(np.float32)

    def _squash(self, blink: float) -> np.ndarray:
        """Squeeze the eye towards a line: enlarged reading within, easing out to nothing at three heights."""
        share = 1.0 - (1.0 - _SQUASHED) * blink
        inner, outer = self._half * share, self._half * 2.2
        away = np.abs(self._above)
        source = np.where(
            away < inner, away / share, self._half + (away - inner) * (outer - self._half) / max(outer - inner, 1e-3)
        )
        source = np.where(away > outer, away, source)
        np.multiply(np.sign(self._above) * (source - away), self._reach, out=self._work)
        self.table[..., 2] = 1.0
        return self._work


def _skin_among(rgb: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Which of the pixels `around` an eye are skin: those of about the colour that most of them have."""
    if not around.any():
        return around
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    away = (lab - np.median(lab[around], axis=0)) * [0.6, 1.0, 1.0]
    return around & (np.linalg.norm(away, axis=-1) < _OTHER_COLOUR)


def _filled(outline: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """float32 (h, w): 1 inside the outline (image px), soft over a pixel at its edge."""
    rows, columns = window
    inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    points = np.round((outline - [columns.start, rows.start]) * 16).astype(np.int32)
    cv2.fillPoly(inside, [points], 1.0, cv2.LINE_8, 4)
    return cv2.blur(cv2.erode(inside, np.ones((3, 3), np.uint8)), (3, 3))


def _window(frame, ends, brow, lower, size) -> tuple[slice, slice]:
    """Rows and columns of the picture that hold the eye with its brow, as far as they lie inside."""
    width = ends[1] - ends[0]
    low_y, high_y = float(brow[:, 1].min()) - 0.05, float(lower[:, 1].max()) + 0.25
    box = np.array([[ends[0] - 0.3 * width, low_y], [ends[1] + 0.3 * width, low_y],
                    [ends[0] - 0.3 * width, high_y], [ends[1] + 0.3 * width, high_y]])  # fmt: skip
    corners = frame.to_image(box)
    x0, y0 = np.floor(corners.min(axis=0)).astype(int)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 1
    x0, y0 = int(np.clip(x0, 0, size[0] - 2)), int(np.clip(y0, 0, size[1] - 2))
    return slice(y0, int(np.clip(y1, y0 + 2, size[1]))), slice(x0, int(np.clip(x1, x0 + 2, size[0])))
