"""Lids that close over a still eyeball: the skin between brow and lid is drawn down, its edge carried along unbent."""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet import geometry as g
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import smoothstep

_EDGE_PX = 1.2
_OVERLAP_IOD, _OVERLAP_FLAT_IOD = 0.032, 0.048
"""How far a closed lid reaches beyond the lower rim: less leaves a white sliver."""

_RIGID_IOD, _RIGID_FLAT_IOD = 0.04, 0.075
"""Lashes and outlines: this much above the lid's edge moves as a whole."""

_SQUASHED = 0.12


class Eyelid:
    """One eye in source pixels. `displace` gives where to look instead, and how much of the lid covers."""

    def __init__(self, geometry: FaceGeometry, side: int, size: tuple[int, int]) -> None:
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
        if self.is_squash:
            self._prepare_squash(x, y, upper, lower)
        else:
            self._prepare_lid(x, y, upper, lower, brow, (left, right), geometry.is_flat)
        self._work = np.empty_like(self._above)
        self.table = np.zeros((*x.shape, 3), np.float32)
        """(h, w, 3): how far (dx, dy, px) to look away, and the lid's cover 0..1; valid after `close`."""

    def close(self, blink: float) -> np.ndarray:
        """Fill `table` for a lid closed by 0..1."""
        amount = self._squash(blink) if self.is_squash else self._lid(blink)
        self.table[..., 0] = amount * self._down[0]
        self.table[..., 1] = amount * self._down[1]
        return self.table

    def _prepare_lid(self, x, y, upper, lower, brow, ends, is_flat) -> None:
        t = np.clip((2 * x - ends[0] - ends[1]) / (ends[1] - ends[0]), -1.2, 1.2)
        rim = np.interp(x, upper[:, 0], upper[:, 1])
        below = np.interp(x, lower[:, 0], lower[:, 1])
        overlap = _OVERLAP_FLAT_IOD if is_flat else _OVERLAP_IOD
        height = float(lower[1:-1, 1].max() - upper[1:-1, 1].min())
        drop = np.maximum(0.0, below - rim) + overlap * np.clip(1 - t**4, 0, 1) * min(1.0, height / 0.12)
        drop *= 1.0 - smoothstep(np.abs(t), 1.0, 1.15)
        brow_y = np.interp(x, brow[np.argsort(brow[:, 0]), 0], brow[np.argsort(brow[:, 0]), 1])
        top = np.maximum(brow_y, rim - (0.9 * drop.max() + 0.10))
        rigid = rim - (_RIGID_FLAT_IOD if is_flat else _RIGID_IOD)
        top = np.minimum(top, rigid - 0.04)
        iod = self._iod_px
        self._above = ((y - top) * iod).astype(np.float32)  # px below the top of the stretched skin
        self._length = ((rigid - top) * iod).astype(np.float32)
        self._drop = (drop * iod).astype(np.float32)
        self._edge = ((rim - y) * iod).astype(np.float32)  # px above the resting lid's edge

    def _lid(self, blink: float) -> np.ndarray:
        """How far up to look, px: linear stretching down to the rigid edge, which is only moved."""
        shift = cv2.multiply(self._drop, blink)
        stretched = self._length + shift
        ratio = np.clip(self._above / stretched, 0.0, 1.0)
        np.multiply(ratio, shift, out=self._work)
        np.negative(self._work, out=self._work)
        cover = self.table[..., 2]
        np.add(self._edge, shift, out=cover)
        cover *= 1.0 / _EDGE_PX
        cover += 0.5
        np.clip(cover, 0.0, 1.0, out=cover)
        # Above the skin that is stretched, and where no lid is, the picture is what it was.
        cover *= (self._above > 0) & (self._drop > 0.05)
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
