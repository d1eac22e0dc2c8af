"""Thin-plate splines in the plane."""

from __future__ import annotations

import numpy as np


class ThinPlateSpline:
    """Smooth map that takes `sources` (n, 2) to `values` (n, k); `smoothing` > 0 only comes near them."""

    def __init__(self, sources: np.ndarray, values: np.ndarray, *, smoothing: float = 0.0) -> None:
        sources = np.asarray(sources, np.float64)
        values = np.asarray(values, np.float64)
        # Solved in units of the points' own spread, so that px and face units behave alike.
        self._centre = sources.mean(axis=0)
        self._scale = max(float(sources.std()), 1e-9)
        self._knots = (sources - self._centre) / self._scale
        count = len(sources)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(self._knots, self._knots) + smoothing * np.eye(count)
        system[:count, count:] = _affine(self._knots)
        system[count:, :count] = system[:count, count:].T
        right = np.vstack([values, np.zeros((3, values.shape[1]))])
        # Least squares, because knots on one line or on top of each other leave the system singular.
        self._weights = np.linalg.lstsq(system, right, rcond=1e-12)[0]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(m, 2) -> (m, k)."""
        scaled = (np.asarray(points, np.float64) - self._centre) / self._scale
        return np.hstack([_kernel(scaled, self._knots), _affine(scaled)]) @ self._weights


def _kernel(points: np.ndarray, knots: np.ndarray) -> np.ndarray:
    squared = ((points[:, None, :] - knots[None, :, :]) ** 2).sum(axis=2)
    return 0.5 * squared * np.log(squared + 1e-12)


def _affine(points: np.ndarray) -> np.ndarray:
    return np.hstack([np.ones((len(points), 1)), points])
