"""From landmarks to the picture's own contours: the line between the lips and the edges of the eyes.

The landmark network is trained on photographs; on drawings it is a few pixels off, which the renderer would show as a
mouth that opens beside its line. Dynamic programming (Viterbi) pulls the contours onto the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engine.generators.puppet.geometry import (
    LEFT_EYE_LOWER,
    LEFT_EYE_UPPER,
    LOWER_INNER_LIP,
    LOWER_OUTER_LIP,
    RIGHT_EYE_LOWER,
    RIGHT_EYE_UPPER,
    SEAM_COUNT,
    UPPER_INNER_LIP,
    UPPER_OUTER_LIP,
    FaceFrame,
    frame_of_landmarks,
)

EYE_COUNT = 31
_SEAM_ROWS = 49
_EYE_ROWS = 41
_OPEN_GAP = 0.055  # iod
_OPEN_COLOUR = 14.0  # distance in Lab, lightness weighted by .6
_PX_PER_IOD = (64.0, 160.0)
_LEFT, _TOP, _RIGHT, _BOTTOM = -1.7, -2.3, 1.7, 1.3  # what the straightened face shows, iod


@dataclass(frozen=True, kw_only=True, eq=False)
class FacePatch:
    """The face straightened and at a known scale, as Lab float32 (L 0..100), with its landmarks in face units."""

    lab: np.ndarray
    frame: FaceFrame
    px_per_iod: float
    points: np.ndarray  # (468, 2)

    def sample(self, where: np.ndarray) -> np.ndarray:
        """Lab at (n, m, 2) or (n, 2) face units, linear."""
        at = (np.atleast_3d(where.reshape(-1, 1, 2)) - [_LEFT, _TOP]) * self.px_per_iod
        mapped = at.astype(np.float32)
        values = cv2.remap(self.lab, mapped, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return values.reshape(*where.shape[:-1], 3)


def straighten(image: np.ndarray, landmarks: np.ndarray) -> FacePatch:
    """Cut the face of (468, 2 or 3) landmarks out of an RGB image."""
    frame = frame_of_landmarks(landmarks)
    scale = float(np.clip(frame.iod_px, *_PX_PER_IOD))
    size = (round((_RIGHT - _LEFT) * scale), round((_BOTTOM - _TOP) * scale))
    image, factor = _reduced(image, frame.iod_px / scale)
    corners = np.array([[0.0, 0.0], [size[0], 0.0], [0.0, size[1]]])
    in_image = (frame.to_image(corners / scale + [_LEFT, _TOP]) + 0.5) * factor - 0.5
    matrix = cv2.getAffineTransform(corners.astype(np.float32), in_image.astype(np.float32))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(patch.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
    return FacePatch(lab=lab, frame=frame, px_per_iod=scale, points=frame.to_face(landmarks))


def _reduced(image: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """A large picture reduced by averaging, so that the straightened face does not alias."""
    if ratio < 1.5:
        return image, np.ones(2)
    size = (max(1, round(image.shape[1] / ratio)), max(1, round(image.shape[0] / ratio)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, np.array([size[0] / image.shape[1], size[1] / image.shape[0]])


# --- mouth ---


@dataclass(frozen=True, kw_only=True, eq=False)
class Seam:
    """Both edges of the mouth in face units, (65, 2) each; the same line when it is closed."""

    upper: np.ndarray
    lower: np.ndarray
    is_open: bool
    gap: float  # mean distance of the inner lips in the middle third, iod


def find_seam(patch: FacePatch, *, is_open: bool | None = None) -> Seam:
    """The mouth's line or opening. `is_open` overrules what the pixels say."""
    x = np.linspace(patch.points[78, 0], patch.points[308, 0], SEAM_COUNT)
    upper, lower = (_at(patch.points, lip, x) for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    middle = slice(SEAM_COUNT // 3, 2 * SEAM_COUNT // 3)
    gap = float((lower - upper)[middle].mean())
    if is_open is None:
        is_open = gap > _OPEN_GAP and _inside_differs_from_skin(patch, x, upper, lower)
    if is_open:
        lower = np.maximum(lower, upper)
        return Seam(upper=np.column_stack([x, upper]), lower=np.column_stack([x, lower]), is_open=True, gap=gap)
    line = _closed_line(patch, x, (upper + lower) / 2.0)
    both = np.column_stack([x, line])
    return Seam(upper=both, lower=both.copy(), is_open=False, gap=gap)


def _inside_differs_from_skin(patch: FacePatch, x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> bool:
    """A cartoon's smile is one stroke between lips that the network believes apart: there is skin between them."""
    inner = x[8:-8]
    rows = np.linspace(0.25, 0.75, 7)[:, None]
    y = upper[None, 8:-8] + rows * (lower - upper)[None, 8:-8]
    inside = patch.sample(np.stack([np.broadcast_to(inner, y.shape), y], axis=-1)).reshape(-1, 3)
    return float(np.median(_lab_distance(inside, skin_colour(patch)))) > _OPEN_COLOUR


def _closed_line(patch: FacePatch, x: np.ndarray, middle: np.ndarray) -> np.ndarray:
    top, bottom = (_at(patch.points, lip, x) for lip in (UPPER_OUTER_LIP, LOWER_OUTER_LIP))
    margin = 0.03 + 0.3 * float((bottom - top).max())
    top, bottom = np.minimum(top, middle) - 0.3 * margin, np.maximum(bottom, middle) + margin
    y = top + np.linspace(0.0, 1.0, _SEAM_ROWS)[:, None] * (bottom - top)
    lightness = patch.sample(np.stack([np.broadcast_to(x, y.shape), y], axis=-1))[..., 0] * 2.55
    # A stroke that is darker than its surroundings, not merely dark: beards and shadows have no edge.
    darkness = (lightness - np.median(lightness, axis=0)) / 25.0
    # At the corners the network is right more often than the pixels, which show a crease that runs on.
    t = np.linspace(-1.0, 1.0, len(x))
    reach = 0.16 - 0.09 * np.abs(t) ** 3
    cost = np.clip(darkness, -4.0, 4.0) + 0.5 * ((y - middle) / reach) ** 2
    rows = cheapest_path(cost)
    line = np.take_along_axis(y, rows[None], axis=0)[0]
    return _smooth(line, 7)


# --- eyes ---


def find_eyes(
    patch: FacePatch, *, is_snapped: bool = True
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Upper and lower lid contours in face units, (31, 2) each, as ((left, right), (left, right))."""
    uppers, lowers = [], []
    for upper_indices, lower_indices in ((LEFT_EYE_UPPER, LEFT_EYE_LOWER), (RIGHT_EYE_UPPER, RIGHT_EYE_LOWER)):
        upper, lower = _find_eye(patch, upper_indices, lower_indices, is_snapped)
        uppers.append(upper)
        lowers.append(lower)
    return (uppers[0], uppers[1]), (lowers[0], lowers[1])


def _find_eye(
    patch: FacePatch, upper_indices: tuple[int, ...], lower_indices: tuple[int, ...], is_snapped: bool
) -> tuple[np.ndarray, np.ndarray]:
    ends = patch.points[[upper_indices[0], upper_indices[-1]], 0]
    x = np.linspace(ends.min(), ends.max(), EYE_COUNT)
    upper, lower = _at(patch.points, upper_indices, x), _at(patch.points, lower_indices, x)
    height = max(float((lower - upper).max()), 0.02)
    if not is_snapped:
        return np.column_stack([x, upper]), np.column_stack([x, lower])
    new_upper = _snap_lid(patch, x, upper, height, outward=-1.0, stiffness=0.55)
    new_lower = _snap_lid(patch, x, lower, height, outward=1.0, stiffness=0.35)
    grown = float(((new_lower - new_upper) - (lower - upper)).mean())
    if grown > 0.15 * height:
        # The network under-estimates a cartoon's eyes in width as well.
        x = (x - x.mean()) * 1.12 + x.mean()
    return np.column_stack([x, new_upper]), np.column_stack([x, np.maximum(new_lower, new_upper)])


def _snap_lid(
    patch: FacePatch, x: np.ndarray, lid: np.ndarray, height: float, *, outward: float, stiffness: float
) -> np.ndarray:
    """Move a lid to where the eye, lighter, meets the lid's darker edge; `outward` is -1 for the upper lid."""
    offsets = np.linspace(-0.12 * height, 0.75 * height + 0.02, _EYE_ROWS)
    y = lid[None, :] + outward * offsets[:, None]
    probe = outward * (0.014 + 0.03 * height)
    grid = np.broadcast_to(x, y.shape)
    inside = patch.sample(np.stack([grid, y - probe], axis=-1))[..., 0] * 2.55
    outside = patch.sample(np.stack([grid, y + probe], axis=-1))[..., 0] * 2.55
    step = np.clip(inside - outside, -5.0, 70.0) / 35.0
    # The corners stay: there is little white there, and skin next to it.
    t = np.linspace(-1.0, 1.0, len(x))
    weight = 1.0 - np.abs(t) ** 4
    cost = -step * weight + (stiffness + 2.0 * np.abs(t) ** 6) * (offsets[:, None] / (0.6 * height + 0.02)) ** 2
    rows = cheapest_path(cost)
    moved = np.take_along_axis(y, rows[None], axis=0)[0]
    return _smooth(moved, 5)


# --- the look of the face ---


def skin_colour(patch: FacePatch) -> np.ndarray:
    """Median Lab (3,) of cheeks, nose bridge and chin."""
    centres = patch.points[[50, 280, 117, 346, 6, 197, 199]]
    spots = np.stack(np.meshgrid(np.linspace(-0.05, 0.05, 5), np.linspace(-0.05, 0.05, 5)), axis=-1).reshape(-1, 2)
    return np.median(patch.sample(centres[:, None, :] + spots[None]).reshape(-1, 3), axis=0)


def flatness(patch: FacePatch) -> float:
    """Share of the face's pixels without any texture: near 1 for flat colours, .2 for photographs."""
    oval = cv2.convexHull(((patch.points - [_LEFT, _TOP]) * patch.px_per_iod).astype(np.int32))
    mask = np.zeros(patch.lab.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, oval, 255)
    rough = np.abs(cv2.Laplacian(patch.lab[..., 0] * 2.55, cv2.CV_32F))
    return float((rough[mask > 0] < 0.6).mean()) if mask.any() else 0.0


def eye_contrast(patch: FacePatch) -> float:
    """Range of lightness inside the eyes, 0..100: whites and pupils differ, closed lids and knuckles do not."""
    ranges = []
    for upper_indices, lower_indices in ((LEFT_EYE_UPPER, LEFT_EYE_LOWER), (RIGHT_EYE_UPPER, RIGHT_EYE_LOWER)):
        upper, lower = patch.points[list(upper_indices[1:-1])], patch.points[list(lower_indices[1:-1])]
        across = np.linspace(0.1, 0.9, 7)[:, None, None]
        inside = patch.sample(upper + across * (lower - upper))[..., 0]
        ranges.append(float(np.percentile(inside, 95) - np.percentile(inside, 5)))
    return min(ranges)


def cheapest_path(cost: np.ndarray, *, max_step: int = 2, step_cost: float = 0.15) -> np.ndarray:
    """Row per column (m,) of the cheapest way through `cost` (n, m) from the left to the right edge."""
    rows, columns = cost.shape
    total = cost[:, 0].astype(np.float64)
    came_from = np.zeros((rows, columns), np.intp)
    steps = np.arange(-max_step, max_step + 1)
    for column in range(1, columns):
        options = np.full((len(steps), rows), np.inf)
        for k, step in enumerate(steps):
            low, high = max(0, -step), min(rows, rows - step)
            options[k, low:high] = total[low + step : high + step] + step_cost * abs(step)
        best = options.argmin(axis=0)
        came_from[:, column] = np.arange(rows) + steps[best]
        total = options[best, np.arange(rows)] + cost[:, column]
    path = np.empty(columns, np.intp)
    path[-1] = int(total.argmin())
    for column in range(columns - 1, 0, -1):
        path[column - 1] = came_from[path[column], column]
    return path


def _at(points: np.ndarray, indices: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Height of a left-to-right chain of landmarks at `x`; a chain that turns back (a profile) is put in order."""
    chain = points[list(indices)]
    return np.interp(x, np.maximum.accumulate(chain[:, 0] + np.arange(len(chain)) * 1e-6), chain[:, 1])


def _smooth(line: np.ndarray, width: int) -> np.ndarray:
    """Box filter that keeps the ends where they are."""
    padded = np.concatenate(
        [2 * line[0] - line[width // 2 : 0 : -1], line, 2 * line[-1] - line[-2 : -2 - width // 2 : -1]]
    )
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")


def _lab_distance(colours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.sqrt((((colours - reference) * [0.6, 1.0, 1.0]) ** 2).sum(axis=-1))
