"""What the puppet makes of a portrait, for a window: the handles to show and drag, and advice."""

from __future__ import annotations

import json

from engine.errors import PortraitError
from engine.generators.base import PortraitDescription
from engine.generators.puppet.analyse import analyse_portrait
from engine.generators.puppet.generator import stored_face
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.template import POINT_HANDLES, EyeHandle, FaceHandles, handles_of_geometry
from engine.media import Portrait

_POINTS = (*POINT_HANDLES, "brow")
_EYES = ("left_eye", "right_eye")


def describe(portrait: Portrait) -> PortraitDescription:
    """Handles by name in portrait px: points as (x, y), eyes as a centre and, under NAME_size, (width, height)."""
    stored = stored_face(portrait)
    if "handles" in stored:
        handles = FaceHandles.from_dict(stored["handles"])
        return PortraitDescription(has_face=True, handles=_as_points(handles), advice=[])
    if "geometry" in stored:
        handles = handles_of_geometry(FaceGeometry.from_dict(stored["geometry"]))
        return PortraitDescription(has_face=True, handles=_as_points(handles), advice=[])
    found = analyse_portrait(portrait.image)
    return PortraitDescription(
        has_face=found.is_face_found, handles=_as_points(found.handles()), advice=list(found.warnings)
    )


def annotation_of_handles(portrait: Portrait, points: dict[str, tuple[float, float]]) -> str:
    """What to store with the portrait for handles as `describe` gives them; empty for none.

    Raises `PortraitError` (`portrait.bad_handles`) where they cannot be a face.
    """
    if not points:
        return ""
    missing = {*_POINTS, *_EYES, *(f"{eye}_size" for eye in _EYES)} - set(points)
    if missing:
        raise PortraitError(
            f"The face marks are incomplete: {', '.join(sorted(missing))}.", code="portrait.bad_handles"
        )
    eyes = {
        name: EyeHandle(
            x=points[name][0], y=points[name][1], width=points[f"{name}_size"][0], height=points[f"{name}_size"][1]
        )
        for name in _EYES
    }
    size = (portrait.image.shape[1], portrait.image.shape[0])
    handles = FaceHandles(image_size=size, **eyes, **{name: tuple(points[name]) for name in _POINTS})
    return json.dumps({"handles": handles.to_dict()})


def _as_points(handles: FaceHandles) -> dict[str, tuple[float, float]]:
    points = {name: tuple(getattr(handles, name)) for name in _POINTS}
    for name in _EYES:
        eye = getattr(handles, name)
        points[name] = (eye.x, eye.y)
        points[f"{name}_size"] = (eye.width, eye.height)
    return points
