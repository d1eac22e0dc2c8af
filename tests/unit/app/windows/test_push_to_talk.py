"""Hold Space to talk, and what the window says about it; the gate in the settings."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from app.windows.settings_dialog import SettingsDialog
from engine.protocol import messages as m


@pytest.fixture
def window(qtbot, make_window):
    application = make_window(settings="has_microphone = false\nis_push_to_talk = true\n")
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    application.window.activateWindow()
    qtbot.waitUntil(application.window.isActiveWindow)
    application.window.application = application
    return application.window


def _said(commands):
    return [command.is_talking for command in commands.of(m.SetTalking)]


def test_session_begins_silent_and_says_so(window, commands):
    assert commands.of(m.Start)[0].settings.sound.is_push_to_talk
    assert window.talk_label.isVisible() and window.talk_label.text() == "Silent: hold Space to talk"


def test_space_talks_while_it_is_held(qtbot, window, commands):
    QTest.keyPress(window, Qt.Key.Key_Space)
    assert window.talk_label.text() == "● Talking"
    for _ in range(3):
        repeat = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_Space, Qt.KeyboardModifier.NoModifier, " ", True)
        QApplication.sendEvent(window, repeat)
    QTest.keyRelease(window, Qt.Key.Key_Space)
    assert window.talk_label.text() == "Silent: hold Space to talk"
    qtbot.waitUntil(lambda: _said(commands) == [True, False])


def test_space_presses_no_button_but_return_does(qtbot, window, commands):
    window.mute_button.setFocus()
    QTest.keyClick(window.mute_button, Qt.Key.Key_Space)
    assert not window.mute_button.isChecked()
    QTest.keyClick(window.mute_button, Qt.Key.Key_Return)
    assert window.mute_button.isChecked()
    qtbot.waitUntil(lambda: _said(commands) == [True, False])


def test_losing_the_focus_lets_go(qtbot, window, commands):
    QTest.keyPress(window, Qt.Key.Key_Space)
    QApplication.sendEvent(window, QEvent(QEvent.Type.WindowDeactivate))
    qtbot.waitUntil(lambda: _said(commands) == [True, False])
    assert window.talk_label.text() == "Silent: hold Space to talk"


def test_without_it_space_is_an_ordinary_key(qtbot, make_window, commands):
    application = make_window()
    window = application.window
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    window.activateWindow()
    window.mute_button.setFocus()
    QTest.keyClick(window.mute_button, Qt.Key.Key_Space)
    assert window.mute_button.isChecked() and not commands.of(m.SetTalking) and not window.talk_label.isVisible()


def test_switched_on_and_off_in_the_settings(qtbot, window, commands):
    presenter = window.application.presenter
    presenter._on_setting({"is_push_to_talk": False})
    assert not window.talk_label.isVisible()
    presenter._on_setting({"gate": "level", "gate_dbfs": -45})
    qtbot.waitUntil(lambda: len(commands.of(m.SetSound)) == 2)
    last = commands.of(m.SetSound)[-1].sound
    assert not last.is_push_to_talk and (last.gate.mode, last.gate.level_dbfs) == ("level", -45.0)


def test_gate_of_the_settings_dialog(qtbot, window):
    changes = []
    dialog = SettingsDialog(window.application.broadcast.settings, [], [], window)
    dialog.changed.connect(changes.append)
    (box,) = [b for b in dialog.findChildren(type(dialog._gate(window.application.broadcast.settings)))
              if b.accessibleName() == "Noise gate"]  # fmt: skip
    assert box.currentText() == "Automatic (recommended)"
    for text, expected in (("Above -45 dBFS", {"gate": "level", "gate_dbfs": -45}), ("Off", {"gate": "off"})):
        index = box.findText(text)
        box.activated.emit(index)
        assert changes[-1] == expected
    dialog.deleteLater()


def test_microphone_that_is_back_clears_the_problem(qtbot, make_window):
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    application.client.send(m.SetPortrait, portrait="cue:back")
    qtbot.waitUntil(lambda: application.window.banner.message.text() == "The microphone is back.")
    assert application.window.banner.property("kind") == "info" and application.broadcast.microphone.problem is None
