"""The face detector's geometry, and what it finds in real pictures."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from engine.errors import ModelFilesError
from engine.generators.puppet import models
from engine.generators.puppet.crops import ImagePyramid, Square, apply_affine
from engine.generators.puppet.detect import Detection, detect_faces, detect_in_square, merge_detections, overlap
from engine.generators.puppet.models import FaceModels, check_face_models, find_face_models, read_model


def detection(left: float, top: float, side: float, score: float) -> Detection:
    box = np.array([left, top, left + side, top + side])
    return Detection(box=box, key_points=np.full((6, 2), left), score=score)


def test_overlap_by_hand() -> None:
    one = np.array([0.0, 0.0, 10.0, 10.0])
    assert overlap(one, one) == pytest.approx(1.0)
    assert overlap(one, np.array([5.0, 0.0, 15.0, 10.0])) == pytest.approx(50 / 150)
    assert overlap(one, np.array([10.0, 0.0, 20.0, 10.0])) == 0.0


def test_merge_keeps_one_per_place_and_the_best_score() -> None:
    merged = merge_detections([detection(0, 0, 100, 0.5), detection(10, 0, 100, 0.9), detection(300, 0, 100, 0.7)])
    assert [face.score for face in merged] == [0.9, 0.7]
    assert 0 < merged[0].box[0] < 10  # between the two, nearer to the stronger
    assert merged[0].box[0] > 5


def test_square_maps_its_middle_and_corners() -> None:
    square = Square(centre=(100.0, 50.0), side_px=64.0, roll_rad=math.pi / 2)
    matrix = square.to_image(128)
    np.testing.assert_allclose(apply_affine(matrix, np.array([63.5, 63.5])), [100, 50], atol=1e-9)
    # A quarter turn clockwise: the crop's right is the image's bottom.
    right = apply_affine(matrix, np.array([127.5, 63.5]))
    np.testing.assert_allclose(right, [100, 82], atol=1e-9)


def test_crop_of_a_large_square_averages_instead_of_skipping_pixels() -> None:
    fine = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    picture = np.repeat(fine[:, :, None], 3, axis=2).astype(np.uint8)
    crop = ImagePyramid(picture).crop(Square(centre=(511.5, 511.5), side_px=1000.0), 128)
    assert abs(int(crop.min()) - 127) <= 3
    assert abs(int(crop.max()) - 127) <= 3


def test_crop_shows_what_the_matrix_says() -> None:
    """Independent oracle: a bright spot is found in the crop where the inverse matrix puts it."""
    picture = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(picture, (250, 120), 4, (255, 255, 255), -1)
    square = Square(centre=(240.0, 130.0), side_px=90.0, roll_rad=0.5)
    crop = ImagePyramid(picture).crop(square, 192)[..., 0].astype(float)
    ys, xs = np.indices(crop.shape)
    spot = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(apply_affine(square.to_image(192), spot), [250, 120], atol=0.15)


def test_reduced_crop_is_not_shifted() -> None:
    picture = np.zeros((1200, 1600, 3), np.uint8)
    cv2.circle(picture, (700, 500), 60, (255, 255, 255), -1)
    square = Square(centre=(740.0, 520.0), side_px=800.0)
    crop = ImagePyramid(picture).crop(square, 128)[..., 0].astype(float)
    ys, xs = np.indices(crop.shape)
    spot = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(apply_affine(square.to_image(128), spot), [700, 500], atol=0.5)


def test_finds_the_astronaut(face_models: FaceModels, astronaut: np.ndarray) -> None:
    best = detect_faces(ImagePyramid(astronaut), face_models)[0]
    assert best.score > 0.9
    # Her eyes, read off the photograph.
    np.testing.assert_allclose(best.key_points[0], [204, 101], atol=10)
    np.testing.assert_allclose(best.key_points[1], [246, 103], atol=10)
    assert abs(math.degrees(best.roll_rad)) < 12


def test_box_survives_a_turned_square(face_models: FaceModels, astronaut: np.ndarray) -> None:
    """The same face through squares turned against each other lies in the same place."""
    pyramid = ImagePyramid(astronaut)
    squares = [Square(centre=(225.0, 120.0), side_px=230.0, roll_rad=math.radians(turn)) for turn in (-20, 0, 20)]
    found = [max(detect_in_square(pyramid, face_models, square), key=lambda face: face.score) for square in squares]
    for face in found:
        np.testing.assert_allclose(face.centre, found[1].centre, atol=8)
        assert face.side_px == pytest.approx(found[1].side_px, rel=0.15)


def test_small_faces_are_found_in_small_tiles(face_models: FaceModels, astronaut: np.ndarray) -> None:
    wide = np.full((512, 1400, 3), 128, np.uint8)
    wide[150:350, 1100:1300] = cv2.resize(astronaut, (200, 200), interpolation=cv2.INTER_AREA)
    best = detect_faces(ImagePyramid(wide), face_models, passes=slice(3, 4))[0]
    assert best.score > 0.7
    np.testing.assert_allclose(best.centre, [1188, 198], atol=12)


# --- the files ---


def test_missing_models_are_a_typed_error_and_none(tmp_path) -> None:
    with pytest.raises(ModelFilesError) as caught:
        FaceModels(tmp_path)
    assert caught.value.code == "model_files.face_missing"
    assert find_face_models(tmp_path) is None
    assert len(check_face_models(tmp_path)) == 3


def test_damaged_model_is_refused(tmp_path) -> None:
    (tmp_path / models.DETECTOR.name).write_bytes(b"\0" * models.DETECTOR.size_bytes)
    with pytest.raises(ModelFilesError) as caught:
        read_model(models.DETECTOR, tmp_path)
    assert caught.value.code == "model_files.face_damaged"


def test_models_lie_in_the_users_data_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(models, "data_folder", lambda: tmp_path)
    assert models.face_models_dir() == tmp_path / "models" / "face"
    assert {model.name for model in models.FACE_MODELS} == {
        "face_detection_short_range.tflite",
        "face_landmark.tflite",
        "selfie_segmentation.tflite",
    }


def test_all_networks_give_the_expected_shapes(face_models: FaceModels) -> None:
    """Both OpenCV 4 and 5, whichever runs these tests: two outputs each, which OpenCV 5's new engine lacks."""
    scores, boxes = face_models.detect(np.zeros((1, 3, 128, 128), np.float32))
    assert (scores.shape, boxes.shape) == ((896,), (896, 16))
    points, presence = face_models.landmarks(np.zeros((1, 3, 192, 192), np.float32))
    assert points.shape == (468, 3)
    assert presence < 0  # an empty picture shows no face
    assert face_models.segment(np.zeros((1, 3, 256, 256), np.float32)).shape == (256, 256)
