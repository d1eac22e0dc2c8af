"""The average face, the handles, and faces made from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import PortraitError
from engine.generators.puppet.geometry import (
    LEFT_EYE,
    LOWER_INNER_LIP,
    RIGHT_EYE,
    UPPER_INNER_LIP,
    frame_of_landmarks,
)
from engine.generators.puppet.splines import ThinPlateSpline
from engine.generators.puppet.template import (
    EyeHandle,
    FaceHandles,
    canonical_landmarks,
    default_handles,
    handles_of_landmarks,
    landmarks_from_handles,
    mirror_pairs,
)

SIZE = (800, 600)


def some_handles(**changes: object) -> FaceHandles:
    """A face that is wider, lower and more turned than the average one."""
    values: dict = {
        "image_size": SIZE,
        "left_eye": EyeHandle(x=300, y=200, width=70, height=50),
        "right_eye": EyeHandle(x=470, y=220, width=60, height=55),
        "mouth_left": (330, 400),
        "mouth_right": (440, 410),
        "lip_top": (388, 385),
        "lip_bottom": (384, 440),
        "chin": (375, 520),
        "jaw_left": (230, 420),
        "jaw_right": (520, 455),
        "brow": (395, 120),
    }
    return FaceHandles(**{**values, **changes})


def assert_same_handles(one: FaceHandles, other: FaceHandles, tolerance: float = 1e-3) -> None:
    points, others = one.to_points(), other.to_points()
    for name in points:
        assert points[name] == pytest.approx(others[name], abs=tolerance), name


def test_canonical_face_is_symmetric_closed_and_in_face_units() -> None:
    points = canonical_landmarks()
    mirrored = points[mirror_pairs()] * [-1, 1, 1]
    np.testing.assert_allclose(points, mirrored, atol=2e-4)
    np.testing.assert_allclose(points[list(UPPER_INNER_LIP), :2], points[list(LOWER_INNER_LIP), :2], atol=2e-4)
    frame = frame_of_landmarks(points)
    assert frame.iod_px == pytest.approx(1, abs=1e-3)
    assert frame.roll_rad == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(frame.origin, 0, atol=1e-3)


def test_mirror_pairs_swap_left_and_right() -> None:
    pairs = mirror_pairs()
    np.testing.assert_array_equal(pairs[pairs], np.arange(468))
    assert {int(pairs[i]) for i in LEFT_EYE} == set(RIGHT_EYE)
    assert pairs[152] == 152


def test_spline_meets_its_points_and_keeps_affine_maps() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 500, (12, 2))
    values = rng.uniform(-30, 30, (12, 2))
    np.testing.assert_allclose(ThinPlateSpline(points, values)(points), values, atol=1e-6)
    affine = points @ np.array([[0.2, 1.0], [-0.7, 0.1]]) + [3, 4]
    elsewhere = rng.uniform(-200, 900, (20, 2))
    expected = elsewhere @ np.array([[0.2, 1.0], [-0.7, 0.1]]) + [3, 4]
    np.testing.assert_allclose(ThinPlateSpline(points, affine)(elsewhere), expected, atol=1e-5)


@pytest.mark.parametrize("handles", [some_handles(), default_handles(SIZE), default_handles((64, 64))])
def test_face_meets_its_handles(handles: FaceHandles) -> None:
    landmarks = landmarks_from_handles(handles)
    assert landmarks.shape == (468, 3)
    assert np.isfinite(landmarks).all()
    tolerance = 0.035 * frame_of_landmarks(landmarks).iod_px  # brows: only their mean height is given
    again = handles_of_landmarks(handles.image_size, landmarks)
    for name, point in handles.to_points().items():
        if name == "brow":
            continue
        assert again.to_points()[name] == pytest.approx(point, abs=tolerance), name


def test_moving_one_handle_moves_its_part_and_leaves_the_others() -> None:
    before = landmarks_from_handles(default_handles(SIZE))
    handles = default_handles(SIZE)
    lower = replace(handles, chin=(handles.chin[0], handles.chin[1] + 20))
    after = landmarks_from_handles(lower)
    assert after[152, 1] - before[152, 1] == pytest.approx(20, abs=0.1)
    np.testing.assert_allclose(after[list(LEFT_EYE), :2], before[list(LEFT_EYE), :2], atol=0.5)
    np.testing.assert_allclose(after[[61, 291, 0, 17], :2], before[[61, 291, 0, 17], :2], atol=0.1)


def test_brow_handle_lifts_both_brows() -> None:
    handles = default_handles(SIZE)
    before = landmarks_from_handles(handles)
    after = landmarks_from_handles(replace(handles, brow=(handles.brow[0], handles.brow[1] - 12)))
    np.testing.assert_allclose((after - before)[[105, 334], 1], -12, atol=0.5)


def test_known_face_bends_less_than_the_average_one() -> None:
    """With the face's own landmarks as base, handles that agree with it change nothing."""
    rng = np.random.default_rng(4)
    warp = ThinPlateSpline(rng.uniform(-1, 1, (8, 2)), rng.normal(0, 0.04, (8, 2)))
    base = canonical_landmarks().copy()
    base[:, :2] += warp(base[:, :2])
    base = base * 90 + [400, 350, 0]
    again = landmarks_from_handles(handles_of_landmarks(SIZE, base), base)
    np.testing.assert_allclose(again, base, atol=0.6)


def test_handles_round_trips() -> None:
    handles = some_handles()
    assert FaceHandles.from_json(handles.to_json()) == handles
    assert_same_handles(FaceHandles.from_points(SIZE, handles.to_points()), handles, 1e-6)
    assert_same_handles(handles.scaled((1600, 1200)).scaled(SIZE), handles, 1e-6)
    assert handles.scaled((1600, 1200)).chin == pytest.approx((750.5, 1040.5))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"left_eye": 3}', some_handles().to_json().replace("300.0", "NaN").replace("300", "NaN", 1)],
)
def test_damaged_handles_are_a_portrait_error(text: str) -> None:
    with pytest.raises(PortraitError) as caught:
        FaceHandles.from_json(text)
    assert caught.value.code == "portrait.bad_handles"


@pytest.mark.parametrize(
    "change",
    [
        {"left_eye": EyeHandle(x=470, y=220, width=60, height=55)},
        {"right_eye": EyeHandle(x=470, y=220, width=0, height=55)},
        {"chin": (float("inf"), 3)},
    ],
)
def test_impossible_handles_are_refused(change: dict) -> None:
    with pytest.raises(PortraitError):
        some_handles(**change)


def test_swapped_sides_are_refused() -> None:
    swapped = some_handles(mouth_left=(440, 410), mouth_right=(330, 400), jaw_left=(520, 455), jaw_right=(230, 420))
    with pytest.raises(PortraitError) as caught:
        landmarks_from_handles(swapped)
    assert caught.value.code == "portrait.bad_handles"
