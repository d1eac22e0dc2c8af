"""Glasses: found where there are some, and straight while the lids behind them close."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from engine.generators.puppet.analyse import analyse_portrait
from engine.generators.puppet.expression import Expression
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.glasses import find_glasses
from engine.generators.puppet.render import PuppetRenderer
from engine.portrait.load import load_portrait

SAMPLES = ("maya", "theo", "ingrid")


def _sample(name: str) -> tuple[np.ndarray, FaceGeometry]:
    portrait = load_portrait(f"sample:{name}")
    return portrait.image, FaceGeometry.from_dict(json.loads(portrait.annotations["puppet"])["geometry"])


def _with_glasses(image: np.ndarray, geometry: FaceGeometry, *, shape: str, thick_iod: float, grey: int):
    """(image, float32 mask) with a frame of round or square rims, a bridge and arms drawn onto the face."""
    frame, mask = geometry.face_frame(), np.zeros(image.shape[:2], np.uint8)
    thick = max(1, round(thick_iod * frame.iod_px))
    angles = np.linspace(0, 2 * np.pi, 65)[:-1] if shape == "round" else np.pi / 4 + np.arange(4) * np.pi / 2
    stretch = np.array([0.38, 0.28]) * (1.0 if shape == "round" else 2**0.5)
    centres = [
        frame.to_face(np.concatenate([upper, lower])).mean(axis=0) + np.array([0.0, 0.04])
        for upper, lower in zip(geometry.eye_upper, geometry.eye_lower, strict=True)
    ]
    lines = [c + stretch * np.stack([np.cos(angles), np.sin(angles)], axis=-1) for c in centres]
    inner = [centres[0] + [0.38, -0.02], centres[1] - [0.38, 0.02]]
    arms = [
        [centres[0] - [0.38, 0.02], centres[0] - [0.8, 0.02]],
        [centres[1] + [0.38, -0.02], centres[1] + [0.8, -0.02]],
    ]
    for line, is_closed in [*((line, True) for line in lines), *((np.array(line), False) for line in [inner, *arms])]:
        points = np.round(frame.to_image(line) * 8).astype(np.int32)
        cv2.polylines(mask, [points], is_closed, 255, thick, cv2.LINE_AA, 3)
    share = mask[..., None] / 255.0
    return np.round(image * (1 - share) + grey * share).astype(np.uint8), mask


def _frame(renderer: PuppetRenderer, **values: float) -> np.ndarray:
    expression, out = Expression(), np.empty((renderer.size[1], renderer.size[0], 3), np.uint8)
    for name, value in values.items():
        setattr(expression, name, value)
    renderer.render(expression, out)
    return out.astype(int)


def _lens_changes(image: np.ndarray, geometry: FaceGeometry, mask: np.ndarray) -> tuple[int, float]:
    """(largest change on the frame, mean change inside the eyes) in grey levels during a blink with raised brows."""
    size = (512, 512)
    renderer = PuppetRenderer(image, geometry, size=size)
    on_frame = cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 200
    eyes = np.zeros(size, np.uint8)
    scaled = geometry.scaled(size)
    for upper, lower in zip(scaled.eye_upper, scaled.eye_lower, strict=True):
        cv2.fillPoly(eyes, [np.round(np.concatenate([upper, lower[::-1]])).astype(np.int32)], 1)
    rest, largest = _frame(renderer), 0
    assert on_frame.sum() > 300
    for blink in (0.1, 0.4, 0.7, 1.0):
        change = np.abs(_frame(renderer, blink=blink, brow=0.5) - rest).max(axis=-1)
        largest = max(largest, int(change[on_frame].max()))
    return largest, float(change[eyes > 0].mean())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_face_without_glasses_has_none(name):
    assert find_glasses(*_sample(name)) is None


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("shape", "thick_iod", "grey"), [("round", 0.05, 30), ("square", 0.03, 60)])
def test_frames_stay_straight_while_the_lids_close(name, shape, thick_iod, grey):
    image, geometry = _sample(name)
    image, mask = _with_glasses(image, geometry, shape=shape, thick_iod=thick_iod, grey=grey)
    assert find_glasses(image, geometry) is not None
    on_frame, in_eyes = _lens_changes(image, geometry, mask)
    assert on_frame <= 3
    assert in_eyes > 25, "the eyes do close"


def test_photographs_with_and_without_glasses(astronaut, face_models):
    found = analyse_portrait(astronaut, models=face_models)
    assert find_glasses(astronaut, found.geometry) is None
    for shape in ("round", "square"):
        image, mask = _with_glasses(astronaut, found.geometry, shape=shape, thick_iod=0.05, grey=35)
        geometry = analyse_portrait(image, models=face_models).geometry
        assert find_glasses(image, geometry) is not None
        on_frame, in_eyes = _lens_changes(image, geometry, mask)
        assert on_frame <= 3
        assert in_eyes > 15


def test_portraits_of_others_wear_none(shared_data, face_models):
    for path in sorted(shared_data.glob("*.jpg")):
        portrait = load_portrait(str(path))
        assert find_glasses(portrait.image, analyse_portrait(portrait.image, models=face_models).geometry) is None
