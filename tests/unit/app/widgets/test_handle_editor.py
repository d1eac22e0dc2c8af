"""The editor under the mouse and the keyboard."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor, QImage

from app.theme import LIGHT
from app.widgets.face_marks import LABELS
from app.widgets.handle_editor import HandleEditor

HANDLES = {"left_eye": (160.0, 200.0), "left_eye_size": (60.0, 30.0), "right_eye": (352.0, 200.0),
           "right_eye_size": (60.0, 30.0), "chin": (256.0, 420.0)}  # fmt: skip


@pytest.fixture
def editor(qtbot):
    """A portrait of 512 x 512 px, shown from a picture of half that size in a window of 600 x 400."""
    editor = HandleEditor(LIGHT)
    qtbot.addWidget(editor)
    editor.resize(600, 400)
    picture = QImage(256, 256, QImage.Format.Format_RGB888)
    picture.fill(QColor("#808080"))
    editor.set_portrait(picture, (512, 512), HANDLES)
    editor.show()
    return editor


def _drag(qtbot, editor, name: str, dx: int, dy: int) -> None:
    start = editor.position_of(name).toPoint() + QPoint(3, -2)  # nobody hits the middle
    qtbot.mousePress(editor, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(editor, start + QPoint(dx // 2, dy // 2))
    qtbot.mouseMove(editor, start + QPoint(dx, dy))
    qtbot.mouseRelease(editor, Qt.MouseButton.LeftButton, pos=start + QPoint(dx, dy))


def test_marks_lie_on_the_picture_whatever_its_own_size(editor):
    scale = 400 / 512
    spot = editor.position_of("chin")
    assert (spot.x(), spot.y()) == pytest.approx((100 + 256.5 * scale, 420.5 * scale))


def test_a_dragged_point_moves_as_far_as_the_mouse(qtbot, editor):
    _drag(qtbot, editor, "chin", 40, -20)
    x, y = editor.handles["chin"]
    assert (x, y) == pytest.approx((256 + 40 * 512 / 400, 420 - 20 * 512 / 400), abs=0.01)
    assert {k: v for k, v in editor.handles.items() if k != "chin"} == {k: HANDLES[k] for k in HANDLES if k != "chin"}


def test_the_corner_of_an_eye_changes_its_size(qtbot, editor):
    _drag(qtbot, editor, "left_eye_size", -10, 5)
    width, height = editor.handles["left_eye_size"]
    assert (width, height) == pytest.approx((60 + 2 * 10 * 512 / 400, 30 + 2 * 5 * 512 / 400), abs=0.01)
    assert editor.handles["left_eye"] == HANDLES["left_eye"] and editor.current == "left_eye_size"


def test_a_mouse_beside_every_mark_moves_nothing(qtbot, editor):
    qtbot.mousePress(editor, Qt.MouseButton.LeftButton, pos=QPoint(300, 20))
    qtbot.mouseMove(editor, QPoint(350, 60))
    qtbot.mouseRelease(editor, Qt.MouseButton.LeftButton, pos=QPoint(350, 60))
    assert editor.handles == HANDLES


def test_space_goes_through_all_marks_and_arrows_move_the_current(qtbot, editor):
    seen = []
    for _ in HANDLES:
        seen.append(editor.current)
        assert LABELS[editor.current] in editor.accessibleDescription()
        qtbot.keyClick(editor, Qt.Key.Key_Space)
    assert seen == ["left_eye", "left_eye_size", "right_eye", "right_eye_size", "chin"]
    assert editor.current == "left_eye"
    qtbot.keyClick(editor, Qt.Key.Key_Space, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClick(editor, Qt.Key.Key_Right)
    qtbot.keyClick(editor, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert editor.handles["chin"] == (257.0, 430.0)
    qtbot.keyClick(editor, Qt.Key.Key_Space)
    qtbot.keyClick(editor, Qt.Key.Key_Space)
    qtbot.keyClick(editor, Qt.Key.Key_Left)
    assert editor.handles["left_eye_size"] == (62.0, 30.0)


def test_eyes_and_marks_are_painted(editor):
    picture = editor.grab().toImage()
    spot = editor.position_of("right_eye_size").toPoint()
    assert picture.pixelColor(spot) == QColor(LIGHT.accent)
    rim = editor.position_of("right_eye").toPoint() + QPoint(round(30 * 400 / 512), 0)
    row = {picture.pixelColor(rim + QPoint(dx, 0)).lightness() for dx in range(-3, 4)}
    assert max(row) > 200 and min(row) < 80, "a white line on a black one, seen on every skin"
