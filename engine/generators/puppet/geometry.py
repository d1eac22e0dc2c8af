"""Where the face is in a portrait: landmarks, mouth seam and eye contours, in image pixels.

"Left" and "right" are always the image's (the viewer's) left and right. All points are x, y with y down, pixel centres
at integer coordinates.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from engine.errors import PortraitError

LANDMARK_COUNT = 468
SEAM_COUNT = 65
FORMAT_VERSION = 1

# Indices into the 468 landmarks (MediaPipe's face mesh), each list from image-left to image-right.
UPPER_OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LOWER_OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LEFT_EYE_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
LEFT_EYE_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
RIGHT_EYE_UPPER = (362, 398, 384, 385, 386, 387, 388, 466, 263)
RIGHT_EYE_LOWER = (362, 382, 381, 380, 374, 373, 390, 249, 263)
LEFT_BROW_TOP = (70, 63, 105, 66, 107)
LEFT_BROW_BOTTOM = (46, 53, 52, 65, 55)
RIGHT_BROW_TOP = (336, 296, 334, 293, 300)
RIGHT_BROW_BOTTOM = (285, 295, 282, 283, 276)
# Closed contour, clockwise in the image from the top of the forehead; 152 is the chin.
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
             149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
CHIN = 152

LEFT_EYE = tuple(dict.fromkeys(LEFT_EYE_UPPER + LEFT_EYE_LOWER))
RIGHT_EYE = tuple(dict.fromkeys(RIGHT_EYE_UPPER + RIGHT_EYE_LOWER))

BLINK_STYLES = ("lid", "squash")
SOURCES = ("detected", "handles", "stored")


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceFrame:
    """The face's own coordinates: origin between the mouth's corners, x along the eyes, y to the chin, unit `iod_px`.

    `iod_px` is the distance between the centres of the two eye contours; `roll_rad` is positive when the image-right
    eye is lower than the left one.
    """

    origin: np.ndarray  # (2,) float64, image px
    iod_px: float
    roll_rad: float

    def _axes(self) -> np.ndarray:
        cos, sin = math.cos(self.roll_rad), math.sin(self.roll_rad)
        return np.array([[cos, sin], [-sin, cos]])

    def to_face(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) image px -> (..., 2) face units, float64."""
        return (np.asarray(points, np.float64)[..., :2] - self.origin) @ self._axes().T / self.iod_px

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) face units -> (..., 2) image px, float64."""
        return np.asarray(points, np.float64)[..., :2] @ self._axes() * self.iod_px + self.origin


def frame_of_landmarks(landmarks: np.ndarray) -> FaceFrame:
    """The face frame of (468, 2 or 3) landmarks in image px."""
    xy = np.asarray(landmarks, np.float64)[:, :2]
    left, right = xy[list(LEFT_EYE)].mean(axis=0), xy[list(RIGHT_EYE)].mean(axis=0)
    across = right - left
    return FaceFrame(
        origin=(xy[78] + xy[308]) / 2.0,
        iod_px=max(float(np.hypot(*across)), 1e-6),
        roll_rad=math.atan2(across[1], across[0]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceGeometry:
    """Everything the renderer has to know about one face. Immutable: arrays are read-only float32 copies."""

    image_size: tuple[int, int]  # width, height of the portrait that the points live in, px
    landmarks: np.ndarray  # (468, 3) x, y, z image px; smaller z is nearer to the camera
    seam_upper: np.ndarray  # (65, 2) from left to right mouth corner: lower edge of the upper lip
    seam_lower: np.ndarray  # (65, 2) upper edge of the lower lip; equals seam_upper when the mouth is closed
    eye_upper: tuple[np.ndarray, np.ndarray]  # left eye, right eye: (n, 2) upper lid contour, left to right
    eye_lower: tuple[np.ndarray, np.ndarray]
    is_mouth_open: bool
    is_flat: bool  # drawn in flat colours
    blink: str = "lid"  # one of BLINK_STYLES
    source: str = "detected"  # one of SOURCES
    detection_score: float = 0.0  # 0..1, of the face detector; 0 where no detector ran
    presence_score: float = 0.0  # 0..1, of the landmark network; 0 where it did not run

    def __post_init__(self) -> None:
        width, height = (int(side) for side in self.image_size)
        if width < 1 or height < 1:
            raise ValueError(f"image_size must be positive, not {self.image_size}")
        if self.blink not in BLINK_STYLES:
            raise ValueError(f"blink must be one of {BLINK_STYLES}, not {self.blink!r}")
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {SOURCES}, not {self.source!r}")
        if len(self.eye_upper) != 2 or len(self.eye_lower) != 2:
            raise ValueError("two eyes are needed")
        put = object.__setattr__
        put(self, "image_size", (width, height))
        put(self, "landmarks", _points(self.landmarks, "landmarks", (LANDMARK_COUNT, 3)))
        put(self, "seam_upper", _points(self.seam_upper, "seam_upper", (SEAM_COUNT, 2)))
        put(self, "seam_lower", _points(self.seam_lower, "seam_lower", (SEAM_COUNT, 2)))
        put(self, "eye_upper", tuple(_points(eye, "eye_upper", (None, 2)) for eye in self.eye_upper))
        put(self, "eye_lower", tuple(_points(eye, "eye_lower", (None, 2)) for eye in self.eye_lower))
        for name in ("is_mouth_open", "is_flat"):
            put(self, name, bool(getattr(self, name)))
        for name in ("detection_score", "presence_score"):
            put(self, name, float(getattr(self, name)))

    def face_frame(self) -> FaceFrame:
        return frame_of_landmarks(self.landmarks)

    def scaled(self, size: tuple[int, int]) -> FaceGeometry:
        """The same face in the portrait resized to `size` (width, height)."""
        factor = np.array([size[0] / self.image_size[0], size[1] / self.image_size[1]])
        # Pixel centres are at integers, so a resize maps x to (x + .5) * factor - .5.
        return self._mapped(size, factor, (factor - 1.0) / 2.0)

    def moved(self, offset: tuple[float, float], size: tuple[int, int]) -> FaceGeometry:
        """The same face in a crop or extension of the portrait: `offset` is added to every point."""
        return self._mapped(size, np.ones(2), np.asarray(offset, np.float64))

    def _mapped(self, size: tuple[int, int], factor: np.ndarray, offset: np.ndarray) -> FaceGeometry:
        def move(points: np.ndarray) -> np.ndarray:
            return points * factor + offset

        depth = self.landmarks[:, 2:] * math.sqrt(factor[0] * factor[1])
        return replace(
            self,
            image_size=size,
            landmarks=np.hstack([move(self.landmarks[:, :2]), depth]),
            seam_upper=move(self.seam_upper),
            seam_lower=move(self.seam_lower),
            eye_upper=tuple(move(eye) for eye in self.eye_upper),
            eye_lower=tuple(move(eye) for eye in self.eye_lower),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; `from_dict` gives the very same float32 values back."""
        return {
            "version": FORMAT_VERSION,
            "image_size": list(self.image_size),
            "landmarks": _numbers(self.landmarks),
            "seam_upper": _numbers(self.seam_upper),
            "seam_lower": _numbers(self.seam_lower),
            "eye_upper": [_numbers(eye) for eye in self.eye_upper],
            "eye_lower": [_numbers(eye) for eye in self.eye_lower],
            "is_mouth_open": self.is_mouth_open,
            "is_flat": self.is_flat,
            "blink": self.blink,
            "source": self.source,
            "detection_score": self.detection_score,
            "presence_score": self.presence_score,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FaceGeometry:
        """Raises PortraitError (`portrait.bad_geometry`) when `data` is not what `to_dict` made."""
        try:
            if data["version"] != FORMAT_VERSION:
                raise ValueError(f"format {data['version']} is not {FORMAT_VERSION}")
            fields = {name: value for name, value in data.items() if name != "version"}
            fields["image_size"] = tuple(fields["image_size"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise PortraitError(
                "The stored face of this portrait cannot be read.",
                code="portrait.bad_geometry",
                hint="Let it be found again, or place the handles by hand.",
                detail=str(error),
            ) from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FaceGeometry:
        """The inverse of `to_json`, exact. Raises PortraitError (`portrait.bad_geometry`)."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise PortraitError(
                "The stored face of this portrait is damaged.",
                code="portrait.bad_geometry",
                hint="Let it be found again, or place the handles by hand.",
                detail=str(error),
            ) from error
        return cls.from_dict(data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaceGeometry):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))

    __hash__ = None  # type: ignore[assignment]


def _points(values: Any, name: str, shape: tuple[int | None, int]) -> np.ndarray:
    points = np.array(values, np.float32)
    if points.ndim != 2 or points.shape[1] != shape[1] or (shape[0] is not None and points.shape[0] != shape[0]):
        raise ValueError(f"{name} must have shape {shape}, not {points.shape}")
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"{name} must be at least three finite points")
    points.flags.writeable = False
    return points


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _numbers(points: np.ndarray) -> list[list[float]]:
    # str() of a float32 is the shortest decimal that gives the same float32 back.
    return [[float(str(value)) for value in row] for row in points]
