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
_OPEN_COLOUR = 14.0  # distance from the skin in Lab, lightness weighted by .6
_OPEN_LIPS = 10.0  # the same, from the lips
_WIDE_GAP = 0.13  # iod; from here on little colour is enough, as with teeth in a grey picture
_WIDE_COLOUR = 3.5
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


def find_seam(patch: FacePatch, *, is_open: bool | None = None, is_flat: bool = False) -> Seam:
    """The mouth's line or opening. `is_open` overrules what the pixels say.

    In a flat drawing a narrow opening is a thick stroke: it is taken for a closed mouth.
    """
    x = np.linspace(patch.points[78, 0], patch.points[308, 0], SEAM_COUNT)
    upper, lower = (_at(patch.points, lip, x) for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    middle = slice(SEAM_COUNT // 3, 2 * SEAM_COUNT // 3)
    gap = float((lower - upper)[middle].mean())
    if is_open is None:
        is_open = gap > (_WIDE_GAP if is_flat else _OPEN_GAP) and _shows_an_opening(patch, x, upper, lower, gap)
    if is_open:
        lower = np.maximum(lower, upper)
        return Seam(upper=np.column_stack([x, upper]), lower=np.column_stack([x, lower]), is_open=True, gap=gap)
    line = _closed_line(patch, x, (upper + lower) / 2.0)
    both = np.column_stack([x, line])
    return Seam(upper=both, lower=both.copy(), is_open=False, gap=gap)


def _shows_an_opening(patch: FacePatch, x: np.ndarray, upper: np.ndarray, lower: np.ndarray, gap: float) -> bool:
    """Whether what lies between the inner lips is neither skin nor lip.

    A cartoon's smile is one stroke between lips that the network believes apart: there is skin between them. Teeth
    may have the skin's colour, but then the lips around them have not.
    """
    within = slice(8, -8)
    inside = _between(patch, x[within], upper[within], lower[within], (0.25, 0.75))
    outer_top, outer_bottom = (_at(patch.points, lip, x) for lip in (UPPER_OUTER_LIP, LOWER_OUTER_LIP))
    lips = np.concatenate(
        [
            _between(patch, x[within], outer_top[within], upper[within], (0.35, 0.65)),
            _between(patch, x[within], lower[within], outer_bottom[within], (0.35, 0.65)),
        ]
    )
    from_skin = float(np.median(_lab_distance(inside, skin_colour(patch))))
    from_lips = float(np.median(_lab_distance(inside, np.median(lips, axis=0))))
    is_wide = gap > _WIDE_GAP and max(from_skin, from_lips) > _WIDE_COLOUR
    return from_skin > _OPEN_COLOUR or from_lips > _OPEN_LIPS or is_wide


def _between(
    patch: FacePatch, x: np.ndarray, upper: np.ndarray, lower: np.ndarray, part: tuple[float, float]
) -> np.ndarray:
    """Lab (n, 3) of the pixels between two lines, from the first to the second `part` of the way down."""
    y = upper + np.linspace(*part, 7)[:, None] * (lower - upper)
    return patch.sample(np.stack([np.broadcast_to(x, y.shape), y], axis=-1)).reshape(-1, 3)


def mouth_evidence(patch: FacePatch) -> float:
    """How clearly the picture shows a mouth where the landmarks have it: 0..1, the colour step along its contours."""
    x = np.linspace(patch.points[78, 0], patch.points[308, 0], SEAM_COUNT)[8:-8]
    upper, lower = (_at(patch.points, lip, x) for lip in (UPPER_INNER_LIP, LOWER_INNER_LIP))
    reach = 0.05
    if float((lower - upper).mean()) > _OPEN_GAP:
        pairs = [(upper - reach, upper + reach), (lower + reach, lower - reach)]
    else:
        middle = (upper + lower) / 2.0
        pairs = [(middle - reach, middle), (middle + reach, middle)]
    steps = []
    for outside, inside in pairs:
        rows = [patch.sample(np.stack([x, y], axis=-1)) for y in (outside, inside)]
        steps.append(float(np.sqrt(((rows[0] - rows[1]) ** 2).sum(axis=-1)).mean()))
    return min(1.0, min(steps) / 30.0)


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


@dataclass(kw_only=True)
class _Eye:
    """One eye while it is being snapped: heights of both lids at `x`, and how far each has grown outwards."""

    x: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    growth_up: np.ndarray
    growth_down: np.ndarray

    @property
    def height(self) -> float:
        return max(float((self.lower - self.upper).max()), 0.02)


def find_eyes(
    patch: FacePatch, *, is_snapped: bool = True
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Upper and lower lid contours in face units, (31, 2) each, as ((left, right), (left, right)).

    Without `is_snapped` they are the landmarks' own.
    """
    eyes = [_eye(patch, LEFT_EYE_UPPER, LEFT_EYE_LOWER), _eye(patch, RIGHT_EYE_UPPER, RIGHT_EYE_LOWER)]
    if is_snapped:
        skin = skin_colour(patch)
        for eye in eyes:
            eye.growth_up = _lid_growth(patch, skin, eye.x, eye.upper, eye.height, outward=-1.0, stiffness=0.55)
            eye.growth_down = _lid_growth(patch, skin, eye.x, eye.lower, eye.height, outward=1.0, stiffness=0.35)
            if not _has_bright_white(patch, eye, skin):
                # A photograph's: lids in shadow would be taken for the eye, and the network is right within this.
                limit = 0.12 * eye.height
                eye.growth_up = np.minimum(eye.growth_up, limit)
                eye.growth_down = np.minimum(eye.growth_down, limit)
        _balance(eyes[0], eyes[1])
    left, right = (_lids(eye) for eye in eyes)
    return (left[0], right[0]), (left[1], right[1])


def _eye(patch: FacePatch, upper: tuple[int, ...], lower: tuple[int, ...]) -> _Eye:
    ends = patch.points[[upper[0], upper[-1]], 0]
    x = np.linspace(ends.min(), ends.max(), EYE_COUNT)
    still = np.zeros(EYE_COUNT)
    return _Eye(
        x=x, upper=_at(patch.points, upper, x), lower=_at(patch.points, lower, x), growth_up=still, growth_down=still
    )


def find_dot_eyes(patch: FacePatch) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Upper and lower contour (31, 2) of each eye when both are blots without any white, else None.

    The blots' own outlines are taken with a small margin: landmarks of such eyes are the network's imagination.
    """
    skin = skin_colour(patch)
    eyes = [_eye(patch, LEFT_EYE_UPPER, LEFT_EYE_LOWER), _eye(patch, RIGHT_EYE_UPPER, RIGHT_EYE_LOWER)]
    if any(_has_bright_white(patch, eye, skin) for eye in eyes):
        return None
    found = [_blot(patch, eye, skin) for eye in eyes]
    return None if any(blot is None for blot in found) else [blot for blot in found if blot is not None]


def _blot(patch: FacePatch, eye: _Eye, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    centre = np.array([eye.x.mean(), float((eye.upper + eye.lower).mean()) / 2.0])
    side, reach = 61, np.array([0.3, 0.3])
    ticks = np.linspace(-1.0, 1.0, side)
    grid = centre + np.stack(np.meshgrid(ticks, ticks), axis=-1) * reach
    is_blot = (_lab_distance(patch.sample(grid), skin) > 18.0).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_blot)
    middle = labels[side // 2 - 5 : side // 2 + 6, side // 2 - 5 : side // 2 + 6]
    if not middle.any():
        return None
    left, top, width, height, _ = stats[int(np.bincount(middle[middle > 0]).argmax())]
    if left == 0 or top == 0 or left + width == side or top + height == side:
        return None  # it runs into the hair, a brow or the other eye: no blot
    step = 2.0 * reach / (side - 1)
    half = np.array([width, height]) / 2.0 * step + 0.012
    middle_of_blot = grid[0, 0] + (np.array([left, top]) + (np.array([width, height]) - 1) / 2.0) * step
    t = np.linspace(-1.0, 1.0, EYE_COUNT)
    arc = half[1] * np.sqrt(1.0 - t**2)
    x = middle_of_blot[0] + half[0] * t
    return np.column_stack([x, middle_of_blot[1] - arc]), np.column_stack([x, middle_of_blot[1] + arc])


def _has_bright_white(patch: FacePatch, eye: _Eye, skin: np.ndarray) -> bool:
    inside = _between(patch, eye.x[3:-3], eye.upper[3:-3], eye.lower[3:-3], (0.15, 0.85))
    return float(np.percentile(inside[:, 0], 85)) > skin[0] + 3.0


def _balance(one: _Eye, other: _Eye) -> None:
    """A cartoon's eyes are both larger than the network believes; one alone that grows has met a crease or a brow."""
    for name in ("growth_up", "growth_down"):
        means = [float(getattr(eye, name).mean()) / eye.height for eye in (one, other)]
        for eye, mine, others in ((one, means[0], means[1]), (other, means[1], means[0])):
            allowed = 1.3 * max(others, 0.0) + 0.05
            if mine > allowed:
                setattr(eye, name, getattr(eye, name) * (allowed / mine))


def _lids(eye: _Eye) -> tuple[np.ndarray, np.ndarray]:
    upper, lower = eye.upper - eye.growth_up, eye.lower + eye.growth_down
    grown = float((eye.growth_up + eye.growth_down).mean())
    # Where the network under-estimates the height it does so with the width.
    x = (eye.x - eye.x.mean()) * 1.12 + eye.x.mean() if grown > 0.15 * eye.height else eye.x
    return np.column_stack([x, upper]), np.column_stack([x, np.maximum(lower, upper)])


def _lid_growth(
    patch: FacePatch,
    skin: np.ndarray,
    x: np.ndarray,
    lid: np.ndarray,
    height: float,
    *,
    outward: float,
    stiffness: float,
) -> np.ndarray:
    """How far outwards (iod) the eye, lighter and not of the skin's colour, meets its darker edge."""
    offsets = np.linspace(-0.12 * height, 0.75 * height + 0.02, _EYE_ROWS)
    y = lid[None, :] + outward * offsets[:, None]
    probe = outward * (0.014 + 0.03 * height)
    grid = np.broadcast_to(x, y.shape)
    inside = patch.sample(np.stack([grid, y - probe], axis=-1))
    outside = patch.sample(np.stack([grid, y + probe], axis=-1))
    is_eye = np.clip((_lab_distance(inside, skin) - 6.0) / 10.0, 0.0, 1.0)
    step = np.clip((inside - outside)[..., 0] * 2.55, -5.0, 70.0) / 35.0 * is_eye
    # The corners stay: there is little white there, and skin next to it.
    t = np.linspace(-1.0, 1.0, len(x))
    bending = (stiffness + 2.0 * np.abs(t) ** 6) * (offsets[:, None] / (0.6 * height + 0.02)) ** 2
    rows = cheapest_path(bending - step * (1.0 - np.abs(t) ** 4))
    return _smooth(offsets[rows], 5)


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
