"""The dialog of the marks: there at once, busy while picture and marks are made elsewhere."""

from __future__ import annotations

import threading

import pytest
from PIL import Image
from PySide6.QtCore import Qt

from app.controllers import portrait_library
from engine.protocol import messages as m


@pytest.fixture
def application(qtbot, make_window):
    application = make_window(settings="has_microphone = false\nhas_consented = true\n")
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    return application


def _open(qtbot, application):
    qtbot.mouseClick(application.window.adjust_button, Qt.MouseButton.LeftButton)
    return application.presenter.dialog


def test_the_picture_is_read_off_the_gui_thread_while_the_dialog_is_busy(qtbot, application, monkeypatch):
    let_go, threads = threading.Event(), []
    read = portrait_library._read

    def slow(path, side_px):
        threads.append(threading.current_thread())
        let_go.wait(10)
        return read(path, side_px)

    monkeypatch.setattr(portrait_library, "_read", slow)
    dialog = _open(qtbot, application)
    assert dialog.isVisible() and dialog.busy.isVisible() and not dialog.save_button.isEnabled()
    assert dialog.hint.text() == "Looking for the face..."
    let_go.set()
    qtbot.waitUntil(lambda: not dialog.busy.isVisible(), timeout=10_000)
    assert dialog.save_button.isEnabled() and threads[-1] is not threading.main_thread()


def test_moved_marks_are_stored_and_the_picture_follows(qtbot, application, commands):
    dialog = _open(qtbot, application)
    qtbot.waitUntil(dialog.save_button.isEnabled, timeout=10_000)
    before = dialog.editor.handles
    qtbot.keyClick(dialog.editor, Qt.Key.Key_Space)
    qtbot.keyClick(dialog.editor, Qt.Key.Key_Left)
    qtbot.mouseClick(dialog.save_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(commands.of(m.SetPortrait)) == 1)
    (stored,) = commands.of(m.StoreHandles)
    width, height = before["left_eye_size"]
    assert stored.handles == before | {"left_eye_size": (width + 2, height)}
    assert not dialog.isVisible()


def test_find_automatically_forgets_the_marks(qtbot, application, commands):
    dialog = _open(qtbot, application)
    qtbot.waitUntil(dialog.save_button.isEnabled, timeout=10_000)
    qtbot.mouseClick(dialog.reset_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: [c.handles for c in commands.of(m.StoreHandles)] == [{}])


def test_marks_of_a_large_turned_picture_lie_on_the_reduced_one(qtbot, application, tmp_path):
    """The engine speaks of an upright portrait of at most 2048 px, the file holds another."""
    picture = Image.new("RGB", (3000, 1500), "#404040")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: upright it is 1500 x 3000
    picture.save(tmp_path / "turned.jpg", exif=exif)
    with qtbot.waitSignal(application.library.added, timeout=10_000):
        application.presenter.add_files([str(tmp_path / "turned.jpg")])
    dialog = _open(qtbot, application)
    qtbot.waitUntil(dialog.save_button.isEnabled, timeout=10_000)
    image = dialog.editor._image
    assert (image.width(), image.height()) == (1500, 3000)
    assert dialog.editor._marks.size == (512, 512), "what the fake engine says rules"


def test_a_portrait_that_cannot_be_analysed_is_told_in_the_dialog(qtbot, application):
    application.client.send(m.SetPortrait, portrait="cue:blind")
    dialog = _open(qtbot, application)
    qtbot.waitUntil(lambda: dialog.hint.text().startswith("The picture is damaged."), timeout=10_000)
    assert not dialog.busy.isVisible() and not dialog.save_button.isEnabled()


def test_closing_the_dialog_while_it_is_busy_is_harmless(qtbot, application):
    dialog = _open(qtbot, application)
    dialog.reject()
    qtbot.wait(200)
    assert _open(qtbot, application) is not dialog
