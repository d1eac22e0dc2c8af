"""The face geometry: frame, mapping, storage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from engine.errors import PortraitError
from engine.generators.puppet.geometry import (
    FACE_OVAL,
    LEFT_EYE,
    RIGHT_EYE,
    SEAM_COUNT,
    FaceGeometry,
    frame_of_landmarks,
)


def make_geometry(seed: int = 1, **changes: object) -> FaceGeometry:
    rng = np.random.default_rng(seed)
    seam = rng.uniform(0, 500, (SEAM_COUNT, 2))
    eyes = tuple(rng.uniform(0, 500, (31, 2)) for _ in range(2))
    values: dict = {
        "image_size": (640, 480),
        "landmarks": rng.uniform(-20, 500, (468, 3)),
        "seam_upper": seam,
        "seam_lower": seam + 1,
        "eye_upper": eyes,
        "eye_lower": tuple(eye + 5 for eye in eyes),
        "is_mouth_open": True,
        "is_flat": False,
        "detection_score": 0.1 + 0.2,
        "presence_score": 0.987654321,
    }
    return FaceGeometry(**{**values, **changes})


def two_eyes_and_mouth(left: tuple, right: tuple, mouth: tuple) -> np.ndarray:
    landmarks = np.zeros((468, 3))
    landmarks[list(LEFT_EYE), :2] = left
    landmarks[list(RIGHT_EYE), :2] = right
    landmarks[[78, 308], :2] = mouth
    return landmarks


def test_json_round_trip_is_exact() -> None:
    geometry = make_geometry(blink="squash", source="handles")
    again = FaceGeometry.from_json(geometry.to_json())
    assert again == geometry
    assert again.landmarks.tobytes() == geometry.landmarks.tobytes()
    assert again.seam_lower.tobytes() == geometry.seam_lower.tobytes()
    assert again.detection_score == geometry.detection_score
    assert again.image_size == (640, 480)


def test_equality_sees_one_moved_point() -> None:
    geometry = make_geometry()
    moved = geometry.eye_lower[1].copy()
    moved[3, 1] += 0.01
    other = make_geometry(eye_lower=(geometry.eye_lower[0], moved))
    assert other != geometry


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 99}',
        json.dumps({**make_geometry().to_dict(), "landmarks": [[1, 2, 3]]}),
    ],
)
def test_damaged_json_is_a_portrait_error(text: str) -> None:
    with pytest.raises(PortraitError) as caught:
        FaceGeometry.from_json(text)
    assert caught.value.code == "portrait.bad_geometry"


def test_not_a_number_in_stored_json_is_refused() -> None:
    data = make_geometry().to_dict()
    data["seam_upper"][4][0] = math.nan
    with pytest.raises(PortraitError):
        FaceGeometry.from_json(json.dumps(data))


def test_arrays_are_copied_and_read_only() -> None:
    landmarks = np.ones((468, 3))
    geometry = make_geometry(landmarks=landmarks)
    landmarks[0, 0] = 77
    assert geometry.landmarks[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        geometry.landmarks[0, 0] = 5


@pytest.mark.parametrize(
    "changes",
    [
        {"landmarks": np.zeros((467, 3))},
        {"seam_upper": np.zeros((64, 2))},
        {"seam_upper": np.full((65, 2), np.nan)},
        {"eye_upper": (np.zeros((9, 2)),)},
        {"blink": "wink"},
        {"source": "guess"},
        {"image_size": (0, 5)},
    ],
)
def test_wrong_shapes_and_names_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_geometry(**changes)


def test_face_frame_by_hand() -> None:
    # Eyes 100 px apart, level; mouth below.
    frame = frame_of_landmarks(two_eyes_and_mouth((100, 50), (200, 50), (150, 160)))
    assert frame.iod_px == pytest.approx(100)
    assert frame.roll_rad == pytest.approx(0)
    np.testing.assert_allclose(frame.to_face(np.array([[150, 160], [200, 50]])), [[0, 0], [0.5, -1.1]], atol=1e-12)


def test_face_frame_turned_a_quarter() -> None:
    # The image-right eye is straight below the left one: x of the face points down, y to the image's left.
    frame = frame_of_landmarks(two_eyes_and_mouth((100, 100), (100, 300), (20, 200)))
    assert frame.roll_rad == pytest.approx(math.pi / 2)
    np.testing.assert_allclose(frame.to_face(np.array([0.0, 200.0])), [0, 0.1], atol=1e-12)
    np.testing.assert_allclose(frame.to_face(np.array([100.0, 300.0])), [0.5, -0.4], atol=1e-12)


def test_face_frame_there_and_back() -> None:
    geometry = make_geometry(5)
    frame = geometry.face_frame()
    points = geometry.landmarks[:, :2].astype(float)
    np.testing.assert_allclose(frame.to_image(frame.to_face(points)), points, atol=1e-9)
    assert frame.to_face(geometry.seam_upper).shape == (SEAM_COUNT, 2)


def test_scaled_keeps_pixel_centres() -> None:
    geometry = make_geometry()
    double = geometry.scaled((1280, 960))
    assert double.image_size == (1280, 960)
    # The centre of pixel 0 becomes the middle of pixels 0 and 1.
    np.testing.assert_allclose(double.landmarks[:, :2], geometry.landmarks[:, :2] * 2 + 0.5, rtol=1e-5)
    np.testing.assert_allclose(double.landmarks[:, 2], geometry.landmarks[:, 2] * 2, rtol=1e-6)
    np.testing.assert_allclose(double.scaled((640, 480)).landmarks, geometry.landmarks, atol=1e-3)


def test_scaled_matches_the_resized_picture() -> None:
    """Independent oracle: the brightest spot of a picture resized by OpenCV lies where the scaled point says."""
    cv2 = pytest.importorskip("cv2")
    picture = np.zeros((480, 640), np.float32)
    picture[200, 300] = 1.0
    picture = cv2.GaussianBlur(picture, (0, 0), 6)
    landmarks = np.zeros((468, 3))
    landmarks[7] = (300, 200, 0)
    scaled = make_geometry(landmarks=landmarks).scaled((960, 720))
    resized = cv2.resize(picture, (960, 720), interpolation=cv2.INTER_LINEAR)
    ys, xs = np.mgrid[:720, :960]
    centroid = ((xs * resized).sum() / resized.sum(), (ys * resized).sum() / resized.sum())
    np.testing.assert_allclose(scaled.landmarks[7, :2], centroid, atol=0.05)


def test_moved_adds_the_offset_everywhere() -> None:
    geometry = make_geometry()
    moved = geometry.moved((-10, 4), (300, 300))
    assert moved.image_size == (300, 300)
    np.testing.assert_allclose(moved.eye_upper[1] - geometry.eye_upper[1], np.tile([-10, 4], (31, 1)), atol=1e-4)
    np.testing.assert_allclose(moved.landmarks[:, 2], geometry.landmarks[:, 2])


def test_indices_are_what_they_say() -> None:
    assert len(set(LEFT_EYE)) == len(set(RIGHT_EYE)) == 16
    assert not set(LEFT_EYE) & set(RIGHT_EYE)
    assert len(set(FACE_OVAL)) == 36
