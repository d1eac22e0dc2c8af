"""Every choice on the settings page is kept, and takes effect at once."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QComboBox

from engine.protocol import messages as m


@pytest.fixture
def application(qtbot, make_window):
    application = make_window(settings='has_microphone = false\ntheme = "light"\n')
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    camera = m.CameraDevice(device="/dev/video7", label="Standin Camera", backend="v4l2")
    application.client.devices_listed.emit(m.DevicesListed(microphones=[], voice_outs=[], cameras=[camera]))
    qtbot.mouseClick(application.window.settings_button, Qt.MouseButton.LeftButton)
    return application


def _choose(dialog, text: str) -> None:
    (box,) = [box for box in dialog.findChildren(QComboBox) if box.findText(text) >= 0]
    box.setCurrentIndex(box.findText(text))
    box.activated.emit(box.currentIndex())


def test_choices_are_kept_and_sent(qtbot, application, commands):
    dialog = application.presenter.dialog
    _choose(dialog, "Fill and crop")
    _choose(dialog, "Dark")
    (mirror,) = [box for box in dialog.findChildren(QCheckBox) if box.text().startswith("Mirror")]
    qtbot.keyClick(mirror, Qt.Key.Key_Space)
    now = application.store.settings
    assert (now.fill, now.theme, now.is_output_mirrored) == ("crop", "dark", True)
    assert application.theme.colours.is_dark
    qtbot.waitUntil(lambda: len(commands.of(m.SetCanvas)) == 2)
    last = commands.of(m.SetCanvas)[-1].canvas
    assert (last.fill, last.is_mirrored) == ("crop", True)


def test_a_camera_is_one_change(qtbot, application, commands):
    application.broadcast.set_camera(True)
    _choose(application.presenter.dialog, "Standin Camera /dev/video7")
    qtbot.waitUntil(lambda: len(commands.of(m.SetCamera)) == 2)
    chosen = commands.of(m.SetCamera)[1].camera
    assert (chosen.device, chosen.backend) == ("/dev/video7", "v4l2")


def test_quality_that_stays_as_chosen_is_kept_and_begins_the_session_anew(qtbot, application, commands):
    """Given up in the middle of a session, what was lowered would stay so: it begins at its best."""
    (box,) = [box for box in application.presenter.dialog.findChildren(QCheckBox) if "too slow" in box.text()]
    assert box.isChecked() and commands.of(m.Start)[-1].settings.adaptive
    qtbot.keyClick(box, Qt.Key.Key_Space)
    assert not application.store.settings.is_adaptive
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 2)
    assert not commands.of(m.Start)[-1].settings.adaptive


def test_return_closes_the_page_and_opens_no_colours(qtbot, application):
    dialog = application.presenter.dialog
    qtbot.keyClick(dialog, Qt.Key.Key_Return)
    assert not dialog.isVisible()
