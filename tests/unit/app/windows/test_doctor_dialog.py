"""The doctor's page: the worst first, one button for what can be done."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QPushButton

from app.theme import LIGHT
from app.windows.doctor_dialog import DoctorDialog
from engine.protocol import messages as m


@pytest.fixture
def page(qtbot, make_window):
    """Opened by F1 on a fake engine, with its findings."""
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    qtbot.keyClick(application.window, Qt.Key.Key_F1)
    dialog = application.presenter.dialog
    assert isinstance(dialog, DoctorDialog) and not dialog.again_button.isEnabled()
    qtbot.waitUntil(lambda: dialog.again_button.isEnabled())
    return dialog


def _cards(dialog):
    layout = dialog._list
    widgets = [layout.itemAt(i).widget() for i in range(layout.count())]
    return [widget for widget in widgets if widget is not None]


def _texts(card):
    return [label.text() for label in card.findChildren(QLabel) if label.text()]


def test_the_worst_comes_first_with_its_cause_and_its_remedy(page):
    assert [_texts(card) for card in _cards(page)] == [
        ["The driver is not loaded", "It is not loaded.", "Load it."],
        ["The folder is missing", "It does not exist.", "Create it."],
        ["Disk", "72 GB free."],
    ]
    assert page.summary.text() == "2 things are not as they should be."
    assert _cards(page)[0].accessibleName().startswith("Will not work: The driver is not loaded.")


def test_what_standin_can_do_is_asked_for_by_its_button_and_looked_at_again(qtbot, page, commands):
    (button,) = [b for b in page.findChildren(QPushButton) if b.text() == "Do it"]
    assert not commands.of(m.ApplyFix), "nothing is changed before it is pressed"
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.summary.text() == "Everything works.")
    assert [c.code for c in commands.of(m.ApplyFix)] == ["recording.no_folder"] and len(_cards(page)) == 1


def test_what_needs_root_is_copied(qtbot, page):
    (button,) = [b for b in page.findChildren(QPushButton) if b.text() == "Copy command"]
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == "sudo modprobe v4l2loopback"


def test_report_names_codes(qtbot, page):
    qtbot.mouseClick(page.copy_button, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text().splitlines()[:2] == [
        "bad: camera: It is not loaded. (camera.not_loaded)", "    Load it."
    ]  # fmt: skip


def test_again_asks_again(qtbot, page, commands):
    qtbot.mouseClick(page.again_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(commands.of(m.Examine)) == 2 and page.again_button.isEnabled())


def test_engine_that_cannot_be_asked_is_told(qtbot):
    dialog = DoctorDialog(LIGHT, None)
    qtbot.addWidget(dialog)
    dialog.show_failed(m.Reason(code="engine.lost", message="The engine ended.", hint="Wait."))
    assert dialog.summary.text() == "The engine ended. Wait." and dialog.again_button.isEnabled()


def test_settings_lead_to_it(qtbot, make_window):
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    qtbot.mouseClick(application.window.settings_button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(application.presenter.dialog.doctor_button, Qt.MouseButton.LeftButton)
    assert isinstance(application.presenter.dialog, DoctorDialog)
