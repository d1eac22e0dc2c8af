"""Marks in the face's own axes, against positions worked out by hand."""

from __future__ import annotations

import math

import pytest

from app.widgets.face_marks import LABELS, FaceMarks

LEVEL = {"left_eye": (100.0, 100.0), "left_eye_size": (40.0, 20.0), "right_eye": (200.0, 100.0),
         "right_eye_size": (40.0, 20.0), "chin": (150.0, 250.0)}  # fmt: skip


def test_sizes_are_grabbed_at_the_lower_outer_corner():
    marks = FaceMarks(LEVEL, (400, 400))
    assert marks.position("left_eye_size") == (80.0, 110.0)
    assert marks.position("right_eye_size") == (220.0, 110.0)
    assert marks.position("chin") == (150.0, 250.0)


def test_moving_a_corner_changes_width_and_height_alone():
    marks = FaceMarks(LEVEL, (400, 400))
    marks.move("left_eye_size", 70.0, 118.0)
    assert marks.handles["left_eye_size"] == (60.0, 36.0)
    assert marks.handles | {"left_eye_size": (40.0, 20.0)} == LEVEL


def test_boxes_of_a_head_on_its_side_are_turned_with_it():
    marks = FaceMarks(LEVEL | {"right_eye": (100.0, 200.0)}, (400, 400))
    assert marks.position("left_eye_size") == pytest.approx((90.0, 80.0)), "up is outward, left is down the face"
    assert marks.position("right_eye_size") == pytest.approx((90.0, 220.0))


def test_a_corner_stays_where_it_was_put_on_a_tilted_head():
    tilted = LEVEL | {"right_eye": (100 + 100 * math.cos(0.3), 100 + 100 * math.sin(0.3))}
    marks = FaceMarks(tilted, (400, 400))
    marks.move("right_eye_size", 225.0, 160.0)
    assert marks.position("right_eye_size") == pytest.approx((225.0, 160.0))
    width, height = marks.handles["right_eye_size"]
    cx, cy = tilted["right_eye"]
    assert math.hypot(width / 2, height / 2) == pytest.approx(math.hypot(225 - cx, 160 - cy))


def test_an_eye_keeps_some_size_and_marks_stay_in_the_picture():
    marks = FaceMarks(LEVEL, (400, 300))
    marks.move("left_eye_size", 300.0, 20.0)
    assert marks.handles["left_eye_size"] == (4.0, 2.0)
    marks.move("chin", -5.0, 1000.0)
    assert marks.handles["chin"] == (0.0, 299.0)


def test_eyes_on_one_spot_do_no_harm():
    marks = FaceMarks(LEVEL | {"right_eye": LEVEL["left_eye"]}, (400, 400))
    assert marks.position("right_eye_size") == (120.0, 110.0)


def test_the_engine_and_the_editor_mean_the_same_marks():
    describe = pytest.importorskip("engine.generators.puppet.describe", reason="needs the puppet")
    from engine.generators.puppet.template import default_handles

    given = describe._as_points(default_handles((512, 512)))
    assert set(given) == set(LABELS)
    assert FaceMarks(given, (512, 512)).names() == list(LABELS)
