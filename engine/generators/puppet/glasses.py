"""Glasses: where their rims run around the eyes, so that lids can blink behind them and leave them straight.

A rim is a line that differs from what lies on both of its sides, all around the eye; brows, creases and shadows under
the eyes are never all of that. Half rims and rimless glasses are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.generators.puppet.contours import FacePatch, cheapest_path, straighten
from engine.generators.puppet.geometry import FaceGeometry

_ANGLES = 72
_RADII = 56
_FARTHEST_IOD = 0.62
_WIDTHS_IOD = (0.018, 0.032, 0.055)
"""How far from a line's middle its surroundings are looked at: fine to thick frames."""

_CLEAR, _STRONG = 5.0, 20.0
"""Distances in Lab from which a point may belong to a rim, and at which it surely does."""

_NEARER = 0.25
"""How much nearer lines are preferred: of rim and brow, the rim."""

_BELOW = slice(_ANGLES * 10 // 72, _ANGLES * 27 // 72)
_BELOW_CLEAR = 9.5
_RIM_SHARE, _RIM_SHARE_ALONE, _BRIDGE_CLEAR = 0.72, 0.85, 3.0
"""Around the eye there has to be this much of a rim, more of it where no bridge is seen. On 40 small portraits, nine of
them with glasses, and on drawn frames these tell all apart."""

_SEARCH_IOD = 0.09
_MARGIN_IOD = 0.012


@dataclass(frozen=True, kw_only=True, eq=False)
class Glasses:
    """The lens openings in face units, left and right eye: (72, 2) points along the rim's inner edge, from the
    image's right clockwise. `top` is the height of the frame's upper edge."""

    openings: tuple[np.ndarray, np.ndarray]
    top: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ring:
    """The most rim-like line around one eye: distance from `centre` per angle and how clear it is there (Lab)."""

    centre: np.ndarray
    rays: np.ndarray
    radius: np.ndarray
    clarity: np.ndarray

    def share(self) -> float:
        return float((self.clarity > _CLEAR).mean())

    def below(self) -> float:
        return float(np.percentile(self.clarity[_BELOW], 30))

    def at(self, offset: np.ndarray | float) -> np.ndarray:
        """Points `offset` (n,) or (n, m) farther out than the line."""
        away = np.asarray(self.radius + offset if np.ndim(offset) < 2 else self.radius[:, None] + offset)
        rays = self.rays if away.ndim == 1 else self.rays[:, None]
        return self.centre + away[..., None] * rays


def find_glasses(image_rgb: np.ndarray, geometry: FaceGeometry) -> Glasses | None:
    """The glasses on a face, if it wears some with a visible rim. A few ms."""
    patch = straighten(image_rgb, geometry.landmarks)
    to_face = patch.frame.to_face
    rings = [
        _ring(patch, np.concatenate([to_face(upper), to_face(lower)]))
        for upper, lower in zip(geometry.eye_upper, geometry.eye_lower, strict=True)
    ]
    share = min(ring.share() for ring in rings)
    if min(ring.below() for ring in rings) < _BELOW_CLEAR or share < _RIM_SHARE:
        return None
    if share < _RIM_SHARE_ALONE and _bridge(patch, (rings[0].centre + rings[1].centre) / 2) < _BRIDGE_CLEAR:
        return None
    left, right = (_half_width(patch, ring) for ring in rings)
    tops = [ring.at(half)[:, 1].min() for ring, half in zip(rings, (left, right), strict=True)]
    return Glasses(openings=(rings[0].at(-left - _MARGIN_IOD), rings[1].at(-right - _MARGIN_IOD)), top=float(min(tops)))


def _ring(patch: FacePatch, outline: np.ndarray) -> _Ring:
    low, high = outline.min(axis=0), outline.max(axis=0)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.02)
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    rays = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    eye = 1.0 / np.hypot(rays[:, 0] / (1.05 * half[0]), rays[:, 1] / (1.25 * half[1] + 0.02))
    radius = eye[:, None] + np.linspace(0.0, 1.0, _RADII) * np.maximum(_FARTHEST_IOD - eye[:, None], 0.1)
    clarity = _line_clarity(patch, centre + radius[..., None] * rays[:, None], rays[:, None])
    # Three turns, of which the middle one has neither beginning nor end.
    worth = np.clip(clarity / _STRONG, 0.0, 1.0) - _NEARER * np.linspace(0.0, 1.0, _RADII)
    turns = np.tile(worth, (3, 1))
    rows = cheapest_path(-turns.T, max_step=3, step_cost=0.06)[_ANGLES : 2 * _ANGLES]
    every = np.arange(_ANGLES)
    return _Ring(centre=centre, rays=rays, radius=radius[every, rows], clarity=clarity[every, rows])


def _bridge(patch: FacePatch, middle: np.ndarray) -> float:
    """How clearly a line crosses the nose between the eyes (Lab)."""
    x, y = middle[0] + np.linspace(-0.10, 0.10, 21), middle[1] + np.linspace(-0.22, 0.28, 61)
    clarity = _line_clarity(patch, np.stack(np.meshgrid(x, y), axis=-1), np.array([0.0, 1.0]))
    rows = cheapest_path(-np.clip(clarity / _STRONG, 0.0, 1.0), max_step=3, step_cost=0.06)
    return float(np.percentile(clarity[rows, np.arange(len(x))], 25))


def _line_clarity(patch: FacePatch, points: np.ndarray, across: np.ndarray) -> np.ndarray:
    """How far each of the points (..., 2) differs, in the same way, from both sides of it (Lab)."""
    here, clarity = patch.sample(points), np.zeros(points.shape[:-1])
    for width in _WIDTHS_IOD:
        one, other = here - patch.sample(points - width * across), here - patch.sample(points + width * across)
        both = np.minimum(np.linalg.norm(one, axis=-1), np.linalg.norm(other, axis=-1))
        clarity = np.maximum(clarity, both * ((one * other).sum(axis=-1) > 0.0))
    return clarity


def _half_width(patch: FacePatch, ring: _Ring) -> np.ndarray:
    """How far (n,) the rim's colour reaches to the wider side of its line, evened out around the eye."""
    offsets = np.linspace(-_SEARCH_IOD, _SEARCH_IOD, 37)
    colours = patch.sample(ring.at(np.broadcast_to(offsets, (_ANGLES, len(offsets)))))
    away = np.linalg.norm(colours - colours[:, len(offsets) // 2 : len(offsets) // 2 + 1], axis=-1)
    limit = np.maximum(0.5 * ring.clarity, _CLEAR)[:, None]
    beyond = np.where(away > limit, np.abs(offsets), _SEARCH_IOD)
    inward, outward = beyond[:, offsets < 0].min(axis=1), beyond[:, offsets > 0].min(axis=1)
    width = np.maximum(inward, outward)
    width = np.where(ring.clarity > _CLEAR, width, np.median(width))
    around = np.stack([np.roll(width, shift) for shift in range(-3, 4)])
    return np.median(around, axis=0)
