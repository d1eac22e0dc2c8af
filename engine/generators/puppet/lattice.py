"""A coarse lattice of displacements, and its exact enlargement to pixels."""

from __future__ import annotations

import cv2
import numpy as np


class Lattice:
    """Nodes every `stride` px at `i * stride + (stride - 1) / 2`: where `cv2.resize` (linear) puts the samples that it
    interpolates between, so that enlarging a field of nodes lands exactly on the pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.stride = 4 if size[0] * size[1] <= 300_000 else 8
        self.width = -(-size[0] // self.stride)
        self.height = -(-size[1] // self.stride)
        x = np.arange(self.width, dtype=np.float32) * self.stride + (self.stride - 1) / 2
        y = np.arange(self.height, dtype=np.float32) * self.stride + (self.stride - 1) / 2
        self.points = np.stack(np.meshgrid(x, y), axis=-1)
        """(height, width, 2) px."""
        self._nodes = np.stack(
            np.meshgrid(np.arange(self.width, dtype=np.float32), np.arange(self.height, dtype=np.float32)), axis=-1
        )
        self._where = np.empty_like(self._nodes)

    def sample(self, field: np.ndarray, displacement: np.ndarray, out: np.ndarray) -> np.ndarray:
        """`field` (height, width, 2) read at every node moved by `displacement` px."""
        cv2.multiply(displacement, (1.0 / self.stride, 1.0 / self.stride, 0, 0), dst=self._where)
        cv2.add(self._where, self._nodes, dst=self._where)
        return cv2.remap(field, self._where, None, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)


class PixelMap:
    """Where each pixel of a region takes its colour from, made from a lattice displacement; memory is reused.

    The region (x0, y0, x1, y1) is widened to whole lattice cells.
    """

    def __init__(self, lattice: Lattice, region: tuple[int, int, int, int]) -> None:
        step = lattice.stride
        width, height = lattice.size
        x0, y0 = max(0, region[0]) // step, max(0, region[1]) // step
        x1, y1 = -(-min(width, region[2]) // step), -(-min(height, region[3]) // step)
        # One node more on each side keeps the interpolation at the edges; it is cut off again.
        self._nodes = (
            slice(max(0, y0 - 1), min(lattice.height, y1 + 1)),
            slice(max(0, x0 - 1), min(lattice.width, x1 + 1)),
        )
        left, top = (x0 - self._nodes[1].start) * step, (y0 - self._nodes[0].start) * step
        self.x0, self.y0 = x0 * step, y0 * step
        self.x1, self.y1 = min(width, x1 * step), min(height, y1 * step)
        rows = (self._nodes[0].stop - self._nodes[0].start) * step
        columns = (self._nodes[1].stop - self._nodes[1].start) * step
        self._large = np.empty((rows, columns, 2), np.float32)
        self._inside = self._large[top : top + self.y1 - self.y0, left : left + self.x1 - self.x0]
        grid = np.meshgrid(np.arange(self.x0, self.x1, dtype=np.float32), np.arange(self.y0, self.y1, dtype=np.float32))
        self._grid = np.stack(grid, axis=-1)
        self.map = np.empty_like(self._grid)
        """(h, w, 2) float32 source px; valid after `update`."""

    @property
    def window(self) -> tuple[slice, slice]:
        """The region as (rows, columns) of the picture."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def update(self, displacement: np.ndarray) -> np.ndarray:
        """The map for a lattice displacement (height, width, 2) px."""
        part = displacement[self._nodes]
        cv2.resize(part, (self._large.shape[1], self._large.shape[0]), dst=self._large, interpolation=cv2.INTER_LINEAR)
        return cv2.add(self._inside, self._grid, dst=self.map)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, 3t^2 - 2t^3 between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
