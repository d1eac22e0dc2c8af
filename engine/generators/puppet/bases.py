"""How the face can move: displacement fields on the lattice for jaw, lips, brows and gaze, on two sheets.

The upper sheet carries the head with the upper lip, the lower one the lower lip and the chin; they differ around and
below the mouth only, and where they part the mouth is open. All lengths are in iod (distance between the eyes) in the
face's own axes; t runs from -1 to 1 across the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.generators.puppet import geometry as g
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.glasses import Glasses
from engine.generators.puppet.lattice import Lattice, smoothstep
from engine.generators.puppet.splines import ThinPlateSpline

BASES = ("jaw", "wide", "round", "press", "close", "tuck", "brow", "gaze_x", "gaze_y", "blink")

JAW_DROP = 0.21
_CLOSABLE = 0.32
"""A laughing mouth wider open than this stays a little open: drawn together further, the face would fold."""

_NARROWING, _RELAXED_WIDTH = 0.14, 0.7
_SMILE_AT_REST, _MOST_SMILE, _UNSMILED = 0.02, 0.12, 0.75
"""Rounded lips give up this share of a smile: /u/ has no raised corners."""

_SMOOTHING = 1e-3
_ACROSS = 19
_BESIDE = ((0.12, 0.75), (0.30, 0.30))
"""Points beside the mouth's corners: how far outside, and how much of the corner's movement they take."""

_ABOVE_GLASSES = 0.2
"""Over this height the brows' movement fades out towards a frame of glasses."""

_NOSE = (1, 2, 98, 327, 5, 6, 168, 129, 358, 164)
_NOSE_BRIDGE = (6, 168)
"""All of the nose that holds the lower sheet: pinned under the nose it would have to fold above the lowered lip."""

_CHEEKS = (50, 280, 117, 346)
_CHIN = (152, 148, 377, 176, 400, 149, 378, 199, 200, 175)
_JAW = (150, 379, 136, 365, 172, 397, 58, 288, 132, 361)
_HAIRLINE = (10, 338, 297, 109, 67)


@dataclass(frozen=True, kw_only=True)
class FacePoints:
    """The face in its own units: what bases, mouth and lids are built from."""

    landmarks: np.ndarray
    seam_upper: np.ndarray
    seam_lower: np.ndarray
    corner_x: tuple[float, float]
    chin_y: float
    gap: float
    smile: float
    """How much higher than its middle the mouth's corners are, iod; 0 where they are not."""

    @property
    def narrowing(self) -> float:
        """How far rounding draws the corners inwards: a mouth that the portrait shows spread has farther to go."""
        width = self.corner_x[1] - self.corner_x[0]
        return _NARROWING * min(1.3, max(1.0, width / _RELAXED_WIDTH))

    @classmethod
    def of(cls, geometry: FaceGeometry) -> FacePoints:
        to_face = geometry.face_frame().to_face
        landmarks = to_face(geometry.landmarks)
        upper, lower = to_face(geometry.seam_upper), to_face(geometry.seam_lower)
        middle = slice(g.SEAM_COUNT // 3, 2 * g.SEAM_COUNT // 3)
        corners_y = float(upper[[0, -1], 1].mean())
        middle_y = float((lower[middle, 1] + upper[middle, 1]).mean()) / 2
        return cls(
            landmarks=landmarks,
            seam_upper=upper,
            seam_lower=lower,
            corner_x=(float(upper[0, 0]), float(upper[-1, 0])),
            chin_y=float(landmarks[g.CHIN, 1]),
            gap=min(_CLOSABLE, float((lower[middle, 1] - upper[middle, 1]).mean())) if geometry.is_mouth_open else 0.0,
            smile=min(_MOST_SMILE, max(0.0, middle_y - corners_y - _SMILE_AT_REST)),
        )

    def seam_at(self, x: np.ndarray, seam: np.ndarray) -> np.ndarray:
        """The seam's height at any x; beyond the corners it goes on with its end slope, flattening out."""
        y = np.interp(x, seam[:, 0], seam[:, 1])
        for end, inner, outside in ((seam[0], seam[6], x < seam[0, 0]), (seam[-1], seam[-7], x > seam[-1, 0])):
            slope = (end[1] - inner[1]) / (end[0] - inner[0]) if abs(end[0] - inner[0]) > 1e-6 else 0.0
            away = x - end[0]
            y = np.where(outside, end[1] + np.clip(slope, -0.5, 0.5) * away * np.exp(-np.abs(away) / 0.12), y)
        return y


def radius_about_oval(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Distance of (..., 2) points from the face's middle, as a multiple of its outline's in that direction."""
    oval = landmarks[list(g.FACE_OVAL)]
    centre = (oval.min(axis=0) + oval.max(axis=0)) / 2
    away = oval - centre
    angles = np.arctan2(away[:, 1], away[:, 0])
    order = np.argsort(angles)
    radii = np.hypot(*away.T)
    here = points - centre
    outline = np.interp(np.arctan2(here[..., 1], here[..., 0]), angles[order], radii[order], period=2 * np.pi)
    return np.hypot(here[..., 0], here[..., 1]) / np.maximum(outline, 1e-6)


def displacement_bases(geometry: FaceGeometry, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """(upper, lower): float32 (len(BASES), height, width, 2) px of forward displacement per unit."""
    frame = geometry.face_frame()
    face = FacePoints.of(geometry)
    points = frame.to_face(lattice.points)
    inside = 1.0 - smoothstep(radius_about_oval(points, face.landmarks), 1.08, 1.5)
    sheets = []
    for is_upper in (True, False):
        knots, values = _controls(face, is_upper=is_upper)
        spline = ThinPlateSpline(knots, values.reshape(len(knots), -1), smoothing=_SMOOTHING)
        field = spline(points.reshape(-1, 2)).reshape(*points.shape[:2], len(BASES), 2)
        field *= inside[..., None, None]
        _add_gaze(field, face, geometry, points)
        turned = frame.to_image(field) - frame.to_image(np.zeros(2))
        sheets.append(np.ascontiguousarray(np.moveaxis(turned, 2, 0), dtype=np.float32))
    return sheets[0], sheets[1]


def hold_glasses_still(
    glasses: Glasses, geometry: FaceGeometry, lattice: Lattice, sheets: tuple[np.ndarray, np.ndarray]
) -> None:
    """Take from both sheets, in place, what would bend a frame: brows below its upper edge, and lower lids."""
    y = geometry.face_frame().to_face(lattice.points)[..., 1]
    above = 1.0 - smoothstep(y, glasses.top - _ABOVE_GLASSES, glasses.top - 0.02)
    for sheet in sheets:
        sheet[BASES.index("brow")] *= above[..., None].astype(np.float32)
        sheet[BASES.index("blink")] = 0.0


def _controls(face: FacePoints, *, is_upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Knots (n, 2) and their displacements (n, len(BASES), 2)."""
    knots: list[np.ndarray] = []
    values: list[np.ndarray] = []

    def add(points: np.ndarray, **moves: np.ndarray) -> None:
        block = np.zeros((len(points), len(BASES), 2))
        for name, move in moves.items():
            block[:, BASES.index(name)] = move
        knots.append(np.atleast_2d(points))
        values.append(block)

    t = np.linspace(-1, 1, _ACROSS)[1:-1]
    x = np.interp(t, (-1, 1), face.corner_x)
    if is_upper:
        _add_upper_lip(add, face, t, x)
    else:
        _add_lower_lip(add, face, t, x)
        _add_chin(add, face)
    _add_corners(add, face)
    _add_jaw(add, face)
    _add_still(add, face, nose=_NOSE if is_upper else _NOSE_BRIDGE)
    return np.concatenate(knots), np.concatenate(values)


def _pair(dx: np.ndarray | float, dy: np.ndarray | float, count: int) -> np.ndarray:
    return np.stack([np.broadcast_to(dx, count), np.broadcast_to(dy, count)], axis=-1)


def _lip_line(landmarks: np.ndarray, indices: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    line = landmarks[list(indices)]
    order = np.argsort(line[:, 0])
    return np.stack([x, np.interp(x, line[order, 0], line[order, 1])], axis=-1)


def _add_upper_lip(add, face: FacePoints, t: np.ndarray, x: np.ndarray) -> None:
    n, par, us, gap = len(t), 1 - t * t, 0.035, face.gap
    fall = _UNSMILED * face.smile * t**2
    add(
        np.stack([x, face.seam_at(x, face.seam_upper)], axis=-1),
        jaw=_pair(-0.02 * t, -0.022 * par, n),
        wide=_pair(0.065 * t, -0.028 * t**2 - 0.012 * par, n),
        round=_pair(-face.narrowing * t, fall - 0.004 * par, n),
        press=_pair(0, 0.004 * par, n),
        close=_pair(-us * t, 0.55 * gap * par**0.5 + 0.8 * us * t**2, n),
        tuck=_pair(0, -0.010 * par, n),
    )
    add(
        _lip_line(face.landmarks, g.UPPER_OUTER_LIP, x),
        jaw=_pair(-0.02 * t, -0.018 * par, n),
        wide=_pair(0.06 * t, 0.012 * par - 0.026 * t**2, n),
        round=_pair(-0.90 * face.narrowing * t, fall - 0.022 * par, n),
        press=_pair(0, 0.016 * par, n),
        close=_pair(-us * t, 0.33 * gap * par**0.5 + 0.8 * us * t**2, n),
        tuck=_pair(0, -0.008 * par, n),
    )


def _add_lower_lip(add, face: FacePoints, t: np.ndarray, x: np.ndarray) -> None:
    n, par, b, us, gap = len(t), 1 - t * t, 1 - np.abs(t) ** 3, 0.035, face.gap
    fall = _UNSMILED * face.smile * t**2
    add(
        np.stack([x, face.seam_at(x, face.seam_lower)], axis=-1),
        jaw=_pair(-0.03 * t, JAW_DROP * b**0.8, n),
        wide=_pair(0.065 * t, -0.028 * t**2 + 0.034 * b, n),
        round=_pair(-face.narrowing * t, fall + 0.016 * par, n),
        press=_pair(0, -0.004 * par, n),
        close=_pair(-us * t, -0.45 * gap * par**0.5 + 0.8 * us * t**2, n),
        tuck=_pair(0, 0.014 * par, n),
    )
    add(
        _lip_line(face.landmarks, g.LOWER_OUTER_LIP, x),
        jaw=_pair(-0.02 * t, JAW_DROP * (0.90 * b**0.7 + 0.12), n),
        wide=_pair(0.06 * t, 0.012 * par - 0.022 * t**2, n),
        round=_pair(-0.85 * face.narrowing * t, fall + 0.03 * par, n),
        press=_pair(0, -0.022 * par, n),
        close=_pair(-us * t, -0.36 * gap * par**0.5 + 0.8 * us * t**2, n),
        tuck=_pair(0, -0.020 * par, n),
    )


def _add_corners(add, face: FacePoints) -> None:
    for side, x in ((-1.0, face.corner_x[0]), (1.0, face.corner_x[1])):
        for away, share in ((0.0, 1.0), *_BESIDE):
            point = np.array([[x + side * away, 0.0]])
            point[0, 1] = face.seam_at(point[:, 0], face.seam_upper)[0]
            us = 0.035
            add(
                point,
                jaw=_pair(-0.022 * side * share * (1 if away == 0 else 0.68), 0.045 * share, 1),
                wide=_pair(0.068 * side * share, -0.03 * share, 1),
                round=_pair(-face.narrowing * side * share, _UNSMILED * face.smile * share, 1),
                press=_pair(0.012 * side * share, 0, 1),
                close=_pair(-us * side * share * (face.gap > 0), 0.8 * us * share * (face.gap > 0), 1),
            )


def _add_chin(add, face: FacePoints) -> None:
    points = face.landmarks[list(_CHIN)]
    n = len(points)
    fade = np.interp(points[:, 1], (points[:, 1].min(), face.chin_y), (1.0, 0.9))
    add(
        points,
        jaw=_pair(0, 0.93 * JAW_DROP * fade, n),
        round=_pair(0, 0.012, n),
        press=_pair(0, -0.01, n),
        close=_pair(0, -0.25 * face.gap, n),
    )


def _add_jaw(add, face: FacePoints) -> None:
    points = face.landmarks[list(_JAW)]
    ear_y = float(face.landmarks[[234, 454], 1].mean())
    weight = np.clip((points[:, 1] - ear_y) / max(face.chin_y - ear_y, 1e-3), 0, 1) ** 1.6
    add(
        points,
        jaw=_pair(0, 0.8 * JAW_DROP * weight, len(points)),
        close=_pair(0, -0.1 * face.gap * weight, len(points)),
    )


def _add_still(add, face: FacePoints, *, nose: tuple[int, ...]) -> None:
    """What stays where it is while the mouth moves, and the brows, which move by themselves."""
    marks = face.landmarks
    oval = marks[list(g.FACE_OVAL)]
    centre = (oval.min(axis=0) + oval.max(axis=0)) / 2
    ear_y = float(marks[[93, 323], 1].max())
    ring = centre + 1.5 * (oval - centre)
    add(oval[oval[:, 1] <= ear_y + 1e-6])
    add(ring[ring[:, 1] < face.chin_y + 0.3])
    add(marks[list(nose + _CHEEKS)])
    neck = np.array([-0.6, -0.3, 0.0, 0.3, 0.6])
    # Just under the chin the skin of the neck gives way; held there, it would be pressed into folds by a wide jaw.
    for below, share in ((0.45, 0.25), (0.85, 0.0)):
        points = np.stack([neck, np.full(5, face.chin_y + below)], axis=-1)
        add(points, jaw=_pair(0, share * JAW_DROP, 5))
    for top, bottom in ((g.LEFT_BROW_TOP, g.LEFT_BROW_BOTTOM), (g.RIGHT_BROW_TOP, g.RIGHT_BROW_BOTTOM)):
        for indices in (top, bottom):
            points = marks[list(indices)]
            order = np.argsort(np.abs(points[:, 0]))  # from the inner end outwards
            lift = np.empty(len(points))
            lift[order] = -0.085 * np.array([0.8, 0.95, 1.0, 1.0, 0.75])
            add(points, brow=_pair(0, lift, len(points)))
    add(marks[list(_HAIRLINE)] + np.array([0.0, -0.05]), brow=_pair(0, -0.02, len(_HAIRLINE)))
    for upper, lower in ((g.LEFT_EYE_UPPER, g.LEFT_EYE_LOWER), (g.RIGHT_EYE_UPPER, g.RIGHT_EYE_LOWER)):
        lid, rim = marks[list(upper)], marks[list(lower)]
        height = float((rim[1:-1, 1] - lid[1:-1, 1]).mean())
        add(lid[1:-1], brow=_pair(0, -0.012, len(lid) - 2))
        add(rim[1:-1], blink=_pair(0, -0.10 * height, len(rim) - 2))
        add(lid[[0, -1]])


def _add_gaze(field: np.ndarray, face: FacePoints, geometry: FaceGeometry, points: np.ndarray) -> None:
    to_face = geometry.face_frame().to_face
    for upper, lower in zip(geometry.eye_upper, geometry.eye_lower, strict=True):
        outline = np.concatenate([to_face(upper), to_face(lower)])
        low, high = outline.min(axis=0), outline.max(axis=0)
        reach = np.maximum((high - low) * np.array([0.5, 0.75]), 1e-3)
        weight = np.exp(-0.9 * (((points - (low + high) / 2) / reach) ** 2).sum(axis=-1) ** 2)
        field[..., BASES.index("gaze_x"), 0] += 0.028 * weight
        field[..., BASES.index("gaze_y"), 1] += 0.020 * weight
