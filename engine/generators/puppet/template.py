"""The average face, the ten handles that a person drags, and the face that fits them."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from engine.assets import asset_path
from engine.errors import PortraitError
from engine.generators.puppet.geometry import (
    CHIN,
    LANDMARK_COUNT,
    LEFT_BROW_BOTTOM,
    LEFT_BROW_TOP,
    LEFT_EYE,
    RIGHT_BROW_BOTTOM,
    RIGHT_BROW_TOP,
    RIGHT_EYE,
    FaceFrame,
    FaceGeometry,
    frame_of_landmarks,
)
from engine.generators.puppet.splines import ThinPlateSpline

MOUTH_LEFT, MOUTH_RIGHT, LIP_TOP, LIP_BOTTOM = 61, 291, 0, 17
JAW_LEFT, JAW_RIGHT = 172, 397
POINT_HANDLES = {
    "mouth_left": MOUTH_LEFT,
    "mouth_right": MOUTH_RIGHT,
    "lip_top": LIP_TOP,
    "lip_bottom": LIP_BOTTOM,
    "chin": CHIN,
    "jaw_left": JAW_LEFT,
    "jaw_right": JAW_RIGHT,
}
"""Handles that are one landmark each."""

_BROWS = LEFT_BROW_TOP + RIGHT_BROW_TOP
_BROWS_WHOLE = tuple(dict.fromkeys(_BROWS + LEFT_BROW_BOTTOM + RIGHT_BROW_BOTTOM))
_MIN_IOD_PX = 4.0


@dataclass(frozen=True, kw_only=True)
class EyeHandle:
    """An eye's opening as an upright ellipse in the face's axes: centre, width and height in image px."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class FaceHandles:
    """What a person places by hand; image px, left and right as the viewer sees them."""

    image_size: tuple[int, int]
    left_eye: EyeHandle
    right_eye: EyeHandle
    mouth_left: tuple[float, float]
    mouth_right: tuple[float, float]
    lip_top: tuple[float, float]
    lip_bottom: tuple[float, float]
    chin: tuple[float, float]
    jaw_left: tuple[float, float]
    jaw_right: tuple[float, float]
    brow: tuple[float, float]  # middle between the brows; only its height above the eyes counts

    def __post_init__(self) -> None:
        for name, value in self._numbers().items():
            if not math.isfinite(value):
                raise _bad_handles(f"{name} is {value}")
        if min(self.left_eye.width, self.left_eye.height, self.right_eye.width, self.right_eye.height) <= 0:
            raise _bad_handles("an eye has no size")
        if math.hypot(self.right_eye.x - self.left_eye.x, self.right_eye.y - self.left_eye.y) < _MIN_IOD_PX:
            raise _bad_handles("the eyes lie on top of each other")

    def _numbers(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name in ("left_eye", "right_eye"):
            numbers |= {f"{name}.{key}": value for key, value in asdict(getattr(self, name)).items()}
        for name in (*POINT_HANDLES, "brow"):
            x, y = getattr(self, name)
            numbers |= {f"{name}.x": x, f"{name}.y": y}
        return numbers

    def scaled(self, size: tuple[int, int]) -> FaceHandles:
        """The same handles on the portrait resized to `size` (width, height)."""
        fx, fy = size[0] / self.image_size[0], size[1] / self.image_size[1]

        def point(value: tuple[float, float]) -> tuple[float, float]:
            return ((value[0] + 0.5) * fx - 0.5, (value[1] + 0.5) * fy - 0.5)

        def eye(value: EyeHandle) -> EyeHandle:
            x, y = point((value.x, value.y))
            return EyeHandle(x=x, y=y, width=value.width * fx, height=value.height * fy)

        changes: dict[str, Any] = {name: point(getattr(self, name)) for name in (*POINT_HANDLES, "brow")}
        changes |= {"left_eye": eye(self.left_eye), "right_eye": eye(self.right_eye)}
        return replace(self, image_size=size, **changes)

    def to_points(self) -> dict[str, tuple[float, float]]:
        """Name -> (x, y) of every point to drag. `left_eye` moves the eye, `left_eye_size` is the lower right corner
        of the upright box around it in the face's axes."""
        axes = _eye_line(self)
        points: dict[str, tuple[float, float]] = {}
        for name in ("left_eye", "right_eye"):
            eye = getattr(self, name)
            corner = np.array([eye.x, eye.y]) + np.array([eye.width, eye.height]) / 2.0 @ axes
            points[name] = (eye.x, eye.y)
            points[f"{name}_size"] = (float(corner[0]), float(corner[1]))
        return points | {name: getattr(self, name) for name in (*POINT_HANDLES, "brow")}

    @classmethod
    def from_points(cls, image_size: tuple[int, int], points: Mapping[str, Sequence[float]]) -> FaceHandles:
        """The inverse of `to_points`. Raises PortraitError (`portrait.bad_handles`)."""
        try:
            found = {name: np.array([float(x), float(y)]) for name, (x, y) in points.items()}
            across = found["right_eye"] - found["left_eye"]
            x_axis = across / max(float(np.hypot(*across)), 1e-9)
            axes = np.array([x_axis, [-x_axis[1], x_axis[0]]])
            values: dict[str, Any] = {n: (float(found[n][0]), float(found[n][1])) for n in (*POINT_HANDLES, "brow")}
            for name in ("left_eye", "right_eye"):
                width, height = np.abs((found[f"{name}_size"] - found[name]) @ axes.T) * 2.0
                x, y = found[name]
                values[name] = EyeHandle(x=float(x), y=float(y), width=float(width), height=float(height))
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_handles(str(error)) from error
        return cls(image_size=image_size, **values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FaceHandles:
        """Raises PortraitError (`portrait.bad_handles`)."""
        try:
            values: dict[str, Any] = {}
            for field in fields(cls):
                value = data[field.name]
                if field.name in ("left_eye", "right_eye"):
                    values[field.name] = EyeHandle(**{key: float(number) for key, number in value.items()})
                else:
                    x, y = value
                    values[field.name] = (int(x), int(y)) if field.name == "image_size" else (float(x), float(y))
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad_handles(str(error)) from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> FaceHandles:
        """Raises PortraitError (`portrait.bad_handles`)."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise _bad_handles(str(error)) from error
        return cls.from_dict(data)


@functools.lru_cache(maxsize=1)
def _template() -> dict[str, Any]:
    return json.loads(asset_path("puppet/face_template.json").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1)
def canonical_landmarks() -> np.ndarray:
    """(468, 3) of a symmetric face with its mouth closed, in face units (see FaceFrame); read-only."""
    points = np.array(_template()["landmarks"], np.float64)
    assert points.shape == (LANDMARK_COUNT, 3)
    points.flags.writeable = False
    return points


@functools.lru_cache(maxsize=1)
def mirror_pairs() -> np.ndarray:
    """(468,) the landmark on the other side of the face, itself on the middle line; read-only."""
    pairs = np.array(_template()["mirror"], np.intp)
    pairs.flags.writeable = False
    return pairs


def handles_of_geometry(geometry: FaceGeometry) -> FaceHandles:
    """Where the handles of a known face are, for showing them ready to be dragged."""
    frame = geometry.face_frame()
    eyes = [
        _eye_handle(np.vstack([upper, lower]), frame)
        for upper, lower in zip(geometry.eye_upper, geometry.eye_lower, strict=True)
    ]
    return _handles(geometry.image_size, geometry.landmarks.astype(np.float64), eyes[0], eyes[1])


def handles_of_landmarks(image_size: tuple[int, int], landmarks: np.ndarray) -> FaceHandles:
    """The handles of landmarks (468, 2 or 3) whose eyes were not snapped to the picture."""
    frame = frame_of_landmarks(landmarks)
    left, right = (_eye_handle(landmarks[list(eye), :2], frame) for eye in (LEFT_EYE, RIGHT_EYE))
    return _handles(image_size, landmarks, left, right)


def default_handles(image_size: tuple[int, int]) -> FaceHandles:
    """Handles of an average face where the head of a portrait mostly is, for pictures in which none was found."""
    width, height = image_size
    iod = max(0.17 * min(width, height), _MIN_IOD_PX + 1.0)
    frame = FaceFrame(origin=np.array([0.5 * (width - 1), 0.5 * (height - 1) + 0.25 * iod]), iod_px=iod, roll_rad=0.0)
    return handles_of_landmarks(image_size, frame.to_image(canonical_landmarks()))


def landmarks_from_handles(handles: FaceHandles, base: np.ndarray | None = None) -> np.ndarray:
    """(468, 3) image px: `base` (landmarks in any units, default the average face) bent to meet the handles.

    An affine fit takes care of size, place and turn, thin-plate splines of the rest, each eye's ellipse
    included. Raises PortraitError (`portrait.bad_handles`) when no face has its parts in such places.
    """
    start = canonical_landmarks() if base is None else np.asarray(base, np.float64)
    xy, scale = _affine_fit(start, handles)
    sources, targets = _control_points(xy, handles, _eye_line(handles))
    bent = xy + ThinPlateSpline(sources, targets - sources)(xy)
    return np.hstack([bent, start[:, 2:3] * scale])


def _handles(image_size: tuple[int, int], points: np.ndarray, left: EyeHandle, right: EyeHandle) -> FaceHandles:
    singles = {name: (float(points[i, 0]), float(points[i, 1])) for name, i in POINT_HANDLES.items()}
    brow = points[list(_BROWS), :2].mean(axis=0)
    return FaceHandles(
        image_size=image_size, left_eye=left, right_eye=right, brow=(float(brow[0]), float(brow[1])), **singles
    )


def _eye_handle(contour: np.ndarray, frame: FaceFrame) -> EyeHandle:
    in_face = frame.to_face(contour)
    low, high = in_face.min(axis=0), in_face.max(axis=0)
    x, y = frame.to_image((low + high) / 2.0)
    width, height = np.maximum((high - low) * frame.iod_px, 1e-3)
    return EyeHandle(x=float(x), y=float(y), width=float(width), height=float(height))


def _eye_line(handles: FaceHandles) -> np.ndarray:
    """(2, 2) unit vectors of the face's x and y axes."""
    across = np.array([handles.right_eye.x - handles.left_eye.x, handles.right_eye.y - handles.left_eye.y])
    x_axis = across / np.hypot(*across)
    return np.array([x_axis, [-x_axis[1], x_axis[0]]])


def _affine_fit(start: np.ndarray, handles: FaceHandles) -> tuple[np.ndarray, float]:
    """`start` under the affine map that comes nearest to the handles, and how much that map enlarges."""
    eyes = [_box_centre(start[list(eye), :2]) for eye in (LEFT_EYE, RIGHT_EYE)]
    sources = np.vstack([eyes, start[list(POINT_HANDLES.values()), :2]])
    targets = np.array(
        [(handles.left_eye.x, handles.left_eye.y), (handles.right_eye.x, handles.right_eye.y)]
        + [getattr(handles, name) for name in POINT_HANDLES]
    )
    design = np.hstack([sources, np.ones((len(sources), 1))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    determinant = float(np.linalg.det(solution[:2]))
    if determinant <= 1e-9:
        raise _bad_handles("left and right, or eyes and mouth, have changed places")
    xy = start[:, :2] @ solution[:2] + solution[2]
    return xy, math.sqrt(determinant)


def _control_points(xy: np.ndarray, handles: FaceHandles, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indices = list(POINT_HANDLES.values())
    sources = [xy[indices]]
    targets = [np.array([getattr(handles, name) for name in POINT_HANDLES])]
    for eye_indices, eye in ((LEFT_EYE, handles.left_eye), (RIGHT_EYE, handles.right_eye)):
        contour = xy[list(eye_indices)]
        sources.append(contour)
        targets.append(_into_ellipse(contour, eye, axes))
    brows = xy[list(_BROWS_WHOLE)]
    lift = (np.array(handles.brow) - xy[list(_BROWS)].mean(axis=0)) @ axes[1]
    sources.append(brows)
    targets.append(brows + lift * axes[1])
    return np.vstack(sources), np.vstack(targets)


def _into_ellipse(contour: np.ndarray, eye: EyeHandle, axes: np.ndarray) -> np.ndarray:
    """The contour, stretched along the face's axes so that its extent is the ellipse's."""
    local = contour @ axes.T
    low, high = local.min(axis=0), local.max(axis=0)
    factor = np.array([eye.width, eye.height]) / np.maximum(high - low, 1e-6)
    centre = np.array([eye.x, eye.y]) @ axes.T
    return ((local - (low + high) / 2.0) * factor + centre) @ axes


def _box_centre(points: np.ndarray) -> np.ndarray:
    return (points.min(axis=0) + points.max(axis=0)) / 2.0


def _bad_handles(detail: str) -> PortraitError:
    return PortraitError(
        "The handles do not describe a face.",
        code="portrait.bad_handles",
        hint="Put the eyes, mouth, chin and jaw where they are in the picture, or reset the handles.",
        detail=detail,
    )
