"""Contours pulled onto the pixels: strokes, openings and eyes with known places."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from engine.generators.puppet.contours import (
    cheapest_path,
    eye_contrast,
    find_dot_eyes,
    find_eyes,
    find_seam,
    flatness,
    straighten,
)
from engine.generators.puppet.template import canonical_landmarks

IOD_PX = 120.0
ORIGIN = np.array([300.0, 420.0])


def face_points(turn_deg: float = 0.0) -> np.ndarray:
    turn = np.radians(turn_deg)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = canonical_landmarks() * IOD_PX
    return np.hstack([points[:, :2] @ rotation + ORIGIN, points[:, 2:]])


def skin(colour: tuple = (225, 180, 150)) -> np.ndarray:
    return np.full((600, 600, 3), colour, np.uint8)


def test_cheapest_path_against_all_paths() -> None:
    """Independent oracle: exhaustive search over a small grid."""
    cost = np.random.default_rng(3).uniform(0, 1, (4, 5))
    best = min(
        (
            sum(cost[row, column] for column, row in enumerate(path))
            + 0.15 * sum(abs(a - b) for a, b in pairwise(path)),
            path,
        )
        for path in np.ndindex(4, 4, 4, 4, 4)
        if all(abs(a - b) <= 2 for a, b in pairwise(path))
    )
    assert tuple(cheapest_path(cost)) == best[1]


@pytest.mark.parametrize("turn_deg", [0, 20])
@pytest.mark.parametrize("shift", [-0.06, 0.08])
def test_closed_seam_lies_on_the_stroke(turn_deg: float, shift: float) -> None:
    points = face_points(turn_deg)
    picture = skin()
    frame = straighten(picture, points).frame
    x = np.linspace(-0.36, 0.36, 60)
    stroke = np.column_stack([x, 0.02 + shift - 0.08 * (x / 0.36) ** 2])
    cv2.polylines(picture, [np.round(frame.to_image(stroke) * 16).astype(np.int32)], False, (90, 30, 30), 4,
                  cv2.LINE_AA, shift=4)  # fmt: skip
    seam = find_seam(straighten(picture, points))
    assert not seam.is_open
    np.testing.assert_array_equal(seam.upper, seam.lower)
    middle = slice(10, -10)
    expected = np.interp(seam.upper[middle, 0], stroke[:, 0], stroke[:, 1])
    assert np.abs(seam.upper[middle, 1] - expected).max() < 0.025


def open_points(gap: float) -> np.ndarray:
    points = face_points()
    x = (points[:, 0] - ORIGIN[0]) / IOD_PX
    for indices, sign in (
        ((191, 80, 81, 82, 13, 312, 311, 310, 415), -0.5),
        ((95, 88, 178, 87, 14, 317, 402, 318, 324), 0.5),
    ):
        for index in indices:
            points[index, 1] += sign * gap * IOD_PX * (1 - (x[index] / 0.33) ** 2)
    for index in (146, 91, 181, 84, 17, 314, 405, 321, 375):
        points[index, 1] += 0.5 * gap * IOD_PX
    return points


def test_dark_opening_is_open_and_skin_is_not() -> None:
    points = open_points(0.2)
    assert not find_seam(straighten(skin(), points)).is_open
    picture = skin()
    inner = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
    cv2.fillPoly(picture, [np.round(points[inner, :2]).astype(np.int32)], (60, 15, 20))
    seam = find_seam(straighten(picture, points))
    assert seam.is_open
    assert seam.gap == pytest.approx(0.19, abs=0.03)
    assert (seam.lower[20:-20, 1] - seam.upper[20:-20, 1]).min() > 0.1


def test_teeth_of_the_skins_colour_are_an_opening() -> None:
    points = open_points(0.18)
    picture = skin((230, 215, 205))
    outer = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
    inner = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
    cv2.fillPoly(picture, [np.round(points[outer, :2]).astype(np.int32)], (190, 90, 95))
    cv2.fillPoly(picture, [np.round(points[inner, :2]).astype(np.int32)], (232, 222, 210))
    assert find_seam(straighten(picture, points)).is_open


def test_open_can_be_overruled() -> None:
    assert find_seam(straighten(skin(), open_points(0.2)), is_open=True).is_open
    assert not find_seam(straighten(skin(), open_points(0.2)), is_open=False).is_open


def draw_eyes(half_height: float, *, sides: tuple = (-1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """White eyes with a dark outline, larger than the landmarks believe (these are about .065 high in half)."""
    points, picture = face_points(), skin()
    frame = straighten(picture, points).frame
    for side in sides:
        centre = frame.to_image(np.array([side * 0.5, -1.1]))
        axes = (round(0.25 * IOD_PX), round(half_height * IOD_PX))
        cv2.ellipse(
            picture, tuple(np.round(centre).astype(int).tolist()), axes, 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA
        )
        cv2.ellipse(
            picture, tuple(np.round(centre).astype(int).tolist()), axes, 0, 0, 360, (30, 20, 20), 4, cv2.LINE_AA
        )
        cv2.circle(
            picture, tuple(np.round(centre).astype(int).tolist()), round(0.06 * IOD_PX), (40, 60, 90), -1, cv2.LINE_AA
        )
    return picture, points


def heights(eyes: tuple) -> list[float]:
    (left_up, right_up), (left_low, right_low) = eyes
    return [float((low - up)[:, 1].max()) for up, low in ((left_up, left_low), (right_up, right_low))]


def test_large_cartoon_eyes_are_taken_at_their_size() -> None:
    picture, points = draw_eyes(0.10)
    patch = straighten(picture, points)
    believed = heights(find_eyes(patch, is_snapped=False))
    snapped = heights(find_eyes(patch))
    assert max(believed) < 0.15
    assert snapped == pytest.approx([0.2, 0.2], abs=0.035)


def test_one_eye_alone_does_not_grow() -> None:
    """Only the image-left eye is large: a crease or a brow, not an eye, where a real pair is meant."""
    picture, points = draw_eyes(0.10, sides=(-1,))
    patch = straighten(picture, points)
    believed = heights(find_eyes(patch, is_snapped=False))
    assert heights(find_eyes(patch))[0] < believed[0] * 1.25


def test_dot_eyes_are_outlined() -> None:
    picture, points = skin(), face_points()
    frame = straighten(picture, points).frame
    for side in (-1, 1):
        centre = tuple(np.round(frame.to_image(np.array([side * 0.5, -1.02]))).astype(int).tolist())
        cv2.ellipse(picture, centre, (10, 14), 0, 0, 360, (15, 15, 15), -1, cv2.LINE_AA)
    dots = find_dot_eyes(straighten(picture, points))
    assert dots is not None
    for side, (upper, lower) in zip((-1, 1), dots, strict=True):
        assert upper[:, 0].mean() == pytest.approx(side * 0.5, abs=0.02)
        assert np.ptp(upper[:, 0]) * IOD_PX == pytest.approx(20, abs=7)
        assert (lower - upper)[:, 1].max() * IOD_PX == pytest.approx(28, abs=7)


def test_eyes_with_white_are_no_dots() -> None:
    assert find_dot_eyes(straighten(*draw_eyes(0.1))) is None


def test_flatness_tells_drawing_from_photograph(astronaut: np.ndarray) -> None:
    assert flatness(straighten(*draw_eyes(0.1))) > 0.8
    points = canonical_landmarks() * 44 + [225, 160, 0]
    assert flatness(straighten(astronaut, points)) < 0.5


def test_eye_contrast_sees_eyes() -> None:
    assert eye_contrast(straighten(*draw_eyes(0.1))) > 30
    assert eye_contrast(straighten(skin(), face_points())) < 3
