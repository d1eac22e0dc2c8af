"""The person's silhouette: selfie segmentation of the whole picture and of the head, sharpened along its edges."""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet.crops import ImagePyramid, Square, as_batch
from engine.generators.puppet.geometry import frame_of_landmarks
from engine.generators.puppet.models import FaceModels

INPUT_SIDE_PX = 256
_WORKING_SIDE_PX = 640
_HEAD_SQUARE_IOD = 9.0
_SMALLEST_ISLAND = 0.15
"""Parts smaller than this share of the largest are other people's hands, lamps and the like."""


def person_mask(pyramid: ImagePyramid, models: FaceModels, landmarks: np.ndarray | None = None) -> np.ndarray:
    """float32 (height, width) 0..1, of the person to whom `landmarks` (468, 2 or 3) belong, else of the largest one.

    The edge is biased outwards a little: background that moves along is seen less than a bitten-off ear.
    """
    width, height = pyramid.size
    scale = min(1.0, _WORKING_SIDE_PX / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pyramid.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    rough = _whole_picture(small, models)
    iod_px = 0.08 * max(size)
    if landmarks is not None:
        frame = frame_of_landmarks(landmarks)
        iod_px = frame.iod_px * scale
        rough = _with_head(rough, pyramid, models, landmarks, scale)
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    fine = guided_filter(guide, rough, radius_px=max(2, round(0.06 * iod_px)), epsilon=1e-3)
    mask = _smoothstep(fine, 0.12, 0.5)
    mask = _without_islands(mask, None if landmarks is None else landmarks[:, :2] * scale)
    if scale < 1.0:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(mask, 0.0, 1.0)


def guided_filter(guide: np.ndarray, source: np.ndarray, *, radius_px: int, epsilon: float) -> np.ndarray:
    """`source` smoothed except across the edges of `guide` (float32 0..1 both); He, Sun and Tang 2010."""

    def box(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, cv2.CV_32F, (2 * radius_px + 1, 2 * radius_px + 1))

    mean_guide, mean_source = box(guide), box(source)
    variance = box(guide * guide) - mean_guide**2
    slope = (box(guide * source) - mean_guide * mean_source) / (variance + epsilon)
    offset = mean_source - slope * mean_guide
    return box(slope) * guide + box(offset)


def _whole_picture(small: np.ndarray, models: FaceModels) -> np.ndarray:
    # The network was trained on pictures squeezed into a square.
    crop = cv2.resize(small, (INPUT_SIDE_PX, INPUT_SIDE_PX), interpolation=cv2.INTER_AREA)
    found = models.segment(as_batch(crop, scale=1 / 255.0))
    return cv2.resize(found, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_LINEAR)


def _with_head(
    rough: np.ndarray, pyramid: ImagePyramid, models: FaceModels, landmarks: np.ndarray, scale: float
) -> np.ndarray:
    """Where a head is small in the picture, a second look at it alone is finer and surer."""
    frame = frame_of_landmarks(landmarks)
    width, height = pyramid.size
    side = _HEAD_SQUARE_IOD * frame.iod_px
    if side > 0.9 * min(width, height):
        return rough
    # The square stays inside the picture: the network would take a repeated border for the person.
    centre = frame.to_image(np.array([0.0, 0.3]))
    low, high = np.full(2, side / 2.0), np.array([width, height]) - side / 2.0
    x, y = np.clip(centre, low, high)
    square = Square(centre=(float(x), float(y)), side_px=side)
    found = models.segment(as_batch(pyramid.crop(square, INPUT_SIDE_PX), scale=1 / 255.0))
    # Its word counts fully inside and fades towards the square's edge.
    ramp = np.minimum(np.arange(INPUT_SIDE_PX), np.arange(INPUT_SIDE_PX)[::-1]) / (0.2 * INPUT_SIDE_PX)
    weight = np.minimum(np.minimum(ramp[:, None], ramp[None, :]), 1.0).astype(np.float32)
    matrix = square.to_image(INPUT_SIDE_PX)
    matrix[:, 2] = (matrix[:, 2] + 0.5) * scale - 0.5
    matrix[:, :2] *= scale
    size = (rough.shape[1], rough.shape[0])
    found, weight = (cv2.warpAffine(layer, matrix, size, flags=cv2.INTER_LINEAR) for layer in (found, weight))
    return rough + weight * (found - rough)


def _without_islands(mask: np.ndarray, face: np.ndarray | None) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 0.3).astype(np.uint8))
    if count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    main = 1 + int(areas.argmax())
    if face is not None:
        x, y = np.clip(np.median(face, axis=0), 0, np.array(mask.shape[::-1]) - 1).astype(int)
        main = int(labels[y, x]) or main
    smallest = _SMALLEST_ISLAND * stats[main, cv2.CC_STAT_AREA]
    is_kept = np.concatenate([[False], areas >= smallest])
    is_kept[main] = True
    # Soft edges around what is kept lie below the threshold: grow the kept parts before cutting.
    kept = cv2.dilate(is_kept[labels].astype(np.uint8), np.ones((9, 9), np.uint8))
    return mask * kept


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return (t * t * (3.0 - 2.0 * t)).astype(np.float32)
