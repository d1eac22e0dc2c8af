"""The figure cut out, and the still picture behind it with the hole filled."""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.lattice import smoothstep

_BELOW_CHIN_IOD = 0.29
_SMALLEST_ISLAND = 0.15


def cut_out_alpha(
    person_mask: np.ndarray, geometry: FaceGeometry, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """(layer, figure), uint8 (h, w), a little outwards so that the outline stays with it; None where there is none.

    Below the chin the figure is widened and softened: shoulders and collars move so little that a hard cut would only
    show; `figure` is not widened: what lies behind it has to be filled. `person_mask` is uint8 or float32 of any size.
    """
    mask = person_mask.astype(np.float32)
    if person_mask.dtype == np.uint8:
        mask /= 255.0
    if mask.shape != (size[1], size[0]):
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    mask = _without_islands(smoothstep(mask, 0.12, 0.5).astype(np.float32))
    if mask.mean() < 0.01:
        return None
    frame = geometry.face_frame()
    iod = frame.iod_px
    mask = _dilated(mask, 0.012 * iod)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, 0.006 * iod))
    wide = cv2.GaussianBlur(_dilated(mask, 0.5 * _BELOW_CHIN_IOD * iod), (0, 0), 0.16 * iod)
    wide = np.maximum(mask, wide * (_dilated(mask, _BELOW_CHIN_IOD * iod) > 0))
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1)
    chin_y = frame.to_face(geometry.landmarks[152])[1]
    below = smoothstep(frame.to_face(grid)[..., 1], chin_y + 0.25, chin_y + 0.75)
    layer, figure = (
        np.clip(255 * part + 0.5, 0, 255).astype(np.uint8) for part in (mask + (wide - mask) * below, mask)
    )
    return layer, figure


def filled_background(image: np.ndarray, figure: np.ndarray, iod_px: float) -> np.ndarray:
    """RGB uint8: the picture with everything under the figure filled from around it (push and pull over a pyramid)."""
    known = (_dilated((figure > 5).astype(np.float32), 0.02 * iod_px) < 0.5).astype(np.float32)
    levels = [(image.astype(np.float32) * known[..., None], known)]
    while min(levels[-1][1].shape) > 1:
        colours, weights = levels[-1]
        size = (max(1, weights.shape[1] // 2), max(1, weights.shape[0] // 2))
        levels.append(tuple(cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (colours, weights)))
    filled = None
    for colours, weights in reversed(levels):
        own = colours / np.maximum(weights, 1e-6)[..., None]
        if filled is None:
            filled = own if weights.max() > 0 else np.full_like(own, 128.0)
        else:
            filled = cv2.resize(filled, (weights.shape[1], weights.shape[0]), interpolation=cv2.INTER_LINEAR)
            share = np.minimum(1.0, weights)[..., None]
            filled = filled.reshape(own.shape) * (1 - share) + own * share
    soft = cv2.GaussianBlur(known, (0, 0), max(1.0, 0.012 * iod_px))[..., None] * known[..., None]
    return np.clip(image * soft + filled * (1 - soft) + 0.5, 0, 255).astype(np.uint8)


def _dilated(mask: np.ndarray, radius_px: float) -> np.ndarray:
    radius = max(1, round(radius_px))
    if radius > 16:
        # A wide disc costs its area per pixel: done on a quarter of the size, where it looks the same.
        small = cv2.resize(mask, (-(-mask.shape[1] // 4), -(-mask.shape[0] // 4)), interpolation=cv2.INTER_AREA)
        wide = cv2.resize(_dilated(small, radius_px / 4), mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return np.maximum(mask, wide)
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))


def _without_islands(mask: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 0.3).astype(np.uint8))
    if count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    small = [i + 1 for i, area in enumerate(areas) if area < _SMALLEST_ISLAND * areas.max()]
    mask[np.isin(labels, small)] = 0.0
    return mask
