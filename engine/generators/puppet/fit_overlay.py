"""Draws a fitted face over its portrait, for people to judge the fit."""

from __future__ import annotations

import cv2
import numpy as np

from engine.generators.puppet.geometry import (
    FACE_OVAL,
    LEFT_BROW_TOP,
    LOWER_OUTER_LIP,
    RIGHT_BROW_TOP,
    UPPER_OUTER_LIP,
    FaceGeometry,
)
from engine.generators.puppet.template import handles_of_geometry

_OVAL, _BROWS, _LIPS, _SEAM, _EYES, _HANDLES = (
    (120, 200, 255), (255, 190, 80), (255, 110, 160), (255, 30, 30), (60, 255, 120), (255, 255, 0),
)  # fmt: skip


def draw_fit(image: np.ndarray, geometry: FaceGeometry, *, has_handles: bool = False) -> np.ndarray:
    """A copy of the RGB picture (of the geometry's size) with the oval, brows, lips, mouth line and eyes in colours."""
    picture = np.ascontiguousarray(image).copy()
    width = max(1, round(geometry.face_frame().iod_px / 60))
    points = geometry.landmarks

    def line(path: np.ndarray, colour: tuple[int, int, int], *, is_closed: bool = False) -> None:
        # Four fractional bits: the lines shall show sub-pixel fits.
        fixed = np.round(path[:, :2] * 16).astype(np.int32)
        cv2.polylines(picture, [fixed], is_closed, colour, width, cv2.LINE_AA, shift=4)

    line(points[list(FACE_OVAL)], _OVAL, is_closed=True)
    for indices in (LEFT_BROW_TOP, RIGHT_BROW_TOP):
        line(points[list(indices)], _BROWS)
    for indices in (UPPER_OUTER_LIP, LOWER_OUTER_LIP):
        line(points[list(indices)], _LIPS)
    for lid in (*geometry.eye_upper, *geometry.eye_lower):
        line(lid, _EYES)
    for edge in (geometry.seam_upper, geometry.seam_lower):
        line(edge, _SEAM)
    if has_handles:
        for x, y in handles_of_geometry(geometry).to_points().values():
            cv2.circle(picture, (round(x), round(y)), 2 * width, _HANDLES, -1, cv2.LINE_AA)
    return picture
