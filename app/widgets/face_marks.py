"""Where the marks of a face are and how they move: points, and the sizes of the eyes as corners of a box around them.

The engine gives points as (x, y) and, under `left_eye_size` and `right_eye_size`, the width and height of an eye's
opening, an ellipse along the line between the eyes; all in px of the portrait, pixel centres at whole numbers.
"""

from __future__ import annotations

import math

Point = tuple[float, float]

LABELS = {
    "left_eye": "Left eye", "left_eye_size": "Size of the left eye", "right_eye": "Right eye",
    "right_eye_size": "Size of the right eye", "brow": "Brows", "mouth_left": "Left corner of the mouth",
    "mouth_right": "Right corner of the mouth", "lip_top": "Upper lip", "lip_bottom": "Lower lip", "chin": "Chin",
    "jaw_left": "Left jaw", "jaw_right": "Right jaw",
}  # fmt: skip
"""Words for people, in the order in which the keyboard goes through the marks."""

_LEAST_WIDTH_PX, _LEAST_HEIGHT_PX = 4.0, 2.0
_OUTWARD = {"left_eye_size": -1.0, "right_eye_size": 1.0}


class FaceMarks:
    """`handles` as the engine gave them, moved since; `size` is the portrait's (width, height)."""

    def __init__(self, handles: dict[str, Point], size: tuple[int, int]) -> None:
        self.handles = dict(handles)
        self.size = size

    def names(self) -> list[str]:
        """Every mark, known ones first."""
        known = [name for name in LABELS if name in self.handles]
        return known + [name for name in self.handles if name not in LABELS]

    def axes(self) -> tuple[Point, Point]:
        """Unit vectors along the eyes and down the face."""
        (ax, ay), (bx, by) = (self.handles.get(name, (0.0, 0.0)) for name in ("left_eye", "right_eye"))
        length = math.hypot(bx - ax, by - ay)
        cos, sin = ((bx - ax) / length, (by - ay) / length) if length > 0 else (1.0, 0.0)
        return (cos, sin), (-sin, cos)

    def position(self, name: str) -> Point:
        """Where the mark is to be grabbed: for a size, the lower outer corner of the eye's box."""
        if name not in _OUTWARD:
            return self.handles[name]
        (cx, cy), (width, height) = self.handles[name.removesuffix("_size")], self.handles[name]
        (ux, uy), (vx, vy) = self.axes()
        along, down = _OUTWARD[name] * width / 2, height / 2
        return cx + along * ux + down * vx, cy + along * uy + down * vy

    def move(self, name: str, x: float, y: float) -> None:
        """Put a mark at (x, y), or as near as it may be."""
        x, y = min(max(x, 0.0), self.size[0] - 1.0), min(max(y, 0.0), self.size[1] - 1.0)
        if name not in _OUTWARD:
            self.handles[name] = (x, y)
            return
        cx, cy = self.handles[name.removesuffix("_size")]
        (ux, uy), (vx, vy) = self.axes()
        width = 2 * _OUTWARD[name] * ((x - cx) * ux + (y - cy) * uy)
        height = 2 * ((x - cx) * vx + (y - cy) * vy)
        self.handles[name] = (max(width, _LEAST_WIDTH_PX), max(height, _LEAST_HEIGHT_PX))
