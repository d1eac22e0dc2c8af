"""Landmarks, and which candidate is a face."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.generators.puppet.candidates import FaceCandidate, find_candidates, judge, prominence
from engine.generators.puppet.crops import ImagePyramid, Square
from engine.generators.puppet.detect import detect_faces
from engine.generators.puppet.geometry import LEFT_EYE, RIGHT_EYE
from engine.generators.puppet.landmarks import fit_landmarks, fit_once, square_of_detection, square_of_landmarks
from engine.generators.puppet.models import FaceModels
from engine.generators.puppet.template import canonical_landmarks

FIST_BOX = (140, 165, 235, 275)  # left, top, right, bottom in dwarven_blacksmith.jpg
SMITH_EYES = ((304, 95), (333, 92))


def read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def distance_iod(one: np.ndarray, other: np.ndarray, iod_px: float) -> float:
    return float(np.hypot(*(one[:, :2] - other[:, :2]).T).mean()) / iod_px


def test_square_of_landmarks_is_level_with_the_eyes_and_holds_the_face() -> None:
    turn = math.radians(30)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    points = canonical_landmarks()[:, :2] @ rotation * 50 + [200, 100]
    square = square_of_landmarks(points)
    assert square.roll_rad == pytest.approx(turn, abs=1e-6)
    level = canonical_landmarks()[:, :2] * 50
    assert square.side_px == pytest.approx(1.5 * np.ptp(level, axis=0).max())
    middle = (level.min(axis=0) + level.max(axis=0)) / 2
    np.testing.assert_allclose(square.centre, middle @ rotation + [200, 100], atol=1e-6)


def test_fits_the_astronauts_eyes(face_models: FaceModels, astronaut: np.ndarray) -> None:
    pyramid = ImagePyramid(astronaut)
    fit = fit_landmarks(pyramid, face_models, square_of_detection(detect_faces(pyramid, face_models)[0]))
    assert fit.presence > 0.99
    np.testing.assert_allclose(fit.points[list(LEFT_EYE), :2].mean(axis=0), [204, 101], atol=3)
    np.testing.assert_allclose(fit.points[list(RIGHT_EYE), :2].mean(axis=0), [246, 103], atol=3)


def test_mirrored_look_gives_the_same_landmarks(face_models: FaceModels, astronaut: np.ndarray) -> None:
    pyramid = ImagePyramid(astronaut)
    square = Square(centre=(225.0, 125.0), side_px=160.0)
    plain = fit_once(pyramid, face_models, square)
    mirrored = fit_once(pyramid, face_models, square, is_mirrored=True)
    assert distance_iod(plain.points, mirrored.points, plain.frame().iod_px) < 0.06


@pytest.mark.parametrize("turn_deg", [25, -25, 90])
def test_turned_faces(face_models: FaceModels, astronaut: np.ndarray, turn_deg: int) -> None:
    upright = find_candidates(ImagePyramid(astronaut), face_models)[0]
    matrix = cv2.getRotationMatrix2D((256, 256), turn_deg, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    found = find_candidates(ImagePyramid(turned), face_models)[0]
    expected = upright.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert found.confidence > 0.8
    assert distance_iod(found.landmarks, expected, upright.frame.iod_px) < 0.03


@pytest.mark.parametrize("turn_deg", [25, -25])
def test_turned_drawings(face_models: FaceModels, draw_cartoon, turn_deg: int) -> None:
    matrix = cv2.getRotationMatrix2D((256, 256), turn_deg, 1.0)
    turned = cv2.warpAffine(draw_cartoon(), matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    found = find_candidates(ImagePyramid(turned), face_models)[0]
    assert found.confidence > 0.6
    eyes = np.array([(206, 225), (306, 225)]) @ matrix[:, :2].T + matrix[:, 2]
    for indices, eye in zip((LEFT_EYE, RIGHT_EYE), eyes, strict=True):
        centre = found.landmarks[list(indices), :2].mean(axis=0)
        assert np.hypot(*(centre - eye)) < 0.15 * found.frame.iod_px


def test_the_smiths_face_and_not_his_fist(face_models: FaceModels, shared_data: Path) -> None:
    picture = read(shared_data / "dwarven_blacksmith.jpg")
    faces = find_candidates(ImagePyramid(picture), face_models)
    best = max(faces, key=lambda face: prominence(face, (720, 400)))
    for indices, eye in zip((LEFT_EYE, RIGHT_EYE), SMITH_EYES, strict=True):
        centre = best.landmarks[list(indices), :2].mean(axis=0)
        assert np.hypot(*(centre - eye)) < 12
    left, top, right, bottom = FIST_BOX
    fists = [face for face in faces if left < face.landmarks[1, 0] < right and top < face.landmarks[1, 1] < bottom]
    assert all(fist.confidence < 0.45 for fist in fists)


def test_the_fist_is_seen_through_even_where_the_network_is_sure(face_models: FaceModels, shared_data: Path) -> None:
    """From this square the landmark network alone says 1.00: only its disagreement with itself gives it away."""
    pyramid = ImagePyramid(read(shared_data / "dwarven_blacksmith.jpg"))
    square = Square(centre=(180.0, 215.0), side_px=130.0, roll_rad=math.radians(-50))
    fit = fit_landmarks(pyramid, face_models, square)
    assert fit.presence > 0.95
    fist = judge(pyramid, face_models, square_of_landmarks(fit.points), 0.6)
    assert fist.confidence < 0.3
    assert fist.spread > 0.1


def test_prominence_prefers_large_central_and_sure() -> None:
    def face(x: float, iod: float, confidence: float) -> FaceCandidate:
        points = canonical_landmarks() * iod + [x, 300, 0]
        return FaceCandidate(
            landmarks=points, detection_score=0.9, presence_score=1.0, spread=0.02, confidence=confidence
        )

    size = (1000, 600)
    middle = prominence(face(500, 50, 0.95), size)
    assert middle > prominence(face(500, 30, 0.95), size)
    assert middle > prominence(face(950, 55, 0.95), size)
    assert middle > prominence(face(500, 60, 0.5), size)
    assert prominence(face(900, 100, 0.95), size) > middle
