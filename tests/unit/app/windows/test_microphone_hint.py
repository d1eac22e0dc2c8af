"""A computer without a microphone: a calm word beside the picker, a warning only to who goes on air."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from engine.protocol import messages as m


@pytest.fixture
def window(qtbot, make_window):
    application = make_window("no_microphone", settings="has_microphone = true\n")
    qtbot.waitUntil(lambda: application.window.microphone_hint.isVisible(), timeout=10_000)
    application.window.application = application
    return application.window


def test_first_start_shows_no_banner(window):
    assert not window.banner.isVisible()
    assert window.microphone_hint.text().startswith("This computer has no microphone.")
    assert window.microphone.accessibleDescription() == window.microphone_hint.text()


def test_going_on_air_warns_and_leads_to_the_picker(qtbot, window):
    qtbot.mouseClick(window.start_button, Qt.MouseButton.LeftButton)
    assert window.banner.isVisible() and window.banner.property("kind") == "warn"
    assert window.banner.message.text() == "The portrait will not speak. This computer has no microphone."
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")  # all the same
    assert window.banner.isVisible()
    qtbot.mouseClick(window.banner.action_button, Qt.MouseButton.LeftButton)
    assert window.microphone.view().isVisible() and not window.banner.isVisible()
    window.microphone.hidePopup()


def test_who_was_quicker_than_the_microphone_is_warned_too(qtbot, make_window):
    application = make_window("no_microphone", settings="has_microphone = true\n")
    application.broadcast.set_camera(True)
    qtbot.waitUntil(lambda: application.window.banner.isVisible(), timeout=10_000)
    assert application.window.banner.message.text().startswith("The portrait will not speak.")


def test_a_microphone_that_is_connected_is_taken_and_the_words_go(qtbot, window, commands):
    qtbot.mouseClick(window.start_button, Qt.MouseButton.LeftButton)
    window.application.client.send(m.SetPortrait, portrait="cue:plugged")
    asked = len(commands.of(m.SetSource))
    qtbot.keyClick(window, Qt.Key.Key_F5)
    qtbot.waitUntil(lambda: not window.microphone_hint.isVisible())
    assert not window.banner.isVisible() and len(commands.of(m.SetSource)) == asked + 1
    qtbot.keyClick(window, Qt.Key.Key_F5)
    qtbot.wait(200)
    assert len(commands.of(m.SetSource)) == asked + 1, "a microphone that is heard is left alone"


def test_choosing_no_microphone_is_no_problem(qtbot, window):
    window.microphone.setCurrentIndex(0)
    window.microphone.activated.emit(0)
    qtbot.waitUntil(lambda: not window.microphone_hint.isVisible())
    qtbot.mouseClick(window.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: window.air_label.text() == "● On air")
    assert not window.banner.isVisible()


def test_a_microphone_in_use_elsewhere_is_told_at_once(window):
    busy = m.Reason(code="microphone.busy", message='The microphone "Desk" is in use by another program.')
    window.application.broadcast.microphone._on_reply(busy)
    assert window.banner.property("kind") == "error" and window.banner.message.text() == busy.message
    assert not window.microphone_hint.isVisible()
