"""A microphone picked in the window, with real sound from a real sound server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="the window needs the gui extra")

from PySide6.QtCore import Qt

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "english.flac"


@pytest.fixture
def open_window(qtbot, sound_server, tmp_path, monkeypatch):
    """Opens the window with some settings, and waits until it knows the devices."""
    from app.bootstrap import Application

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    opened = []

    def begin(settings: str):
        path = tmp_path / "window.toml"
        path.write_text(f'version = 1\ntheme = "light"\n{settings}', encoding="utf-8")
        application = Application(settings_path=path, library_folder=tmp_path / "portraits")
        opened.append(application)
        qtbot.addWidget(application.window)
        application.open()
        qtbot.waitUntil(lambda: application.window.preview.frames >= 5, timeout=30_000)
        qtbot.waitUntil(lambda: application.window.microphone.findText("fakemic") >= 0, timeout=20_000)
        return application

    yield begin
    for application in opened:
        application.finish()


def _pick(qtbot, box, text: str) -> None:
    """Open the list and click the entry, as a hand does."""
    box.showPopup()
    view = box.view()
    qtbot.waitUntil(view.isVisible, timeout=20_000)
    place = view.visualRect(view.model().index(box.findText(text), 0)).center()
    qtbot.mouseMove(view.viewport(), place)
    qtbot.wait(400)  # Qt ignores a click right after the list has opened
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)


def _lit(meter) -> int:
    """Segments of the level that are lit, read from the picture of the widget."""
    picture = meter.grab().toImage()
    step, middle = picture.width() / 20, picture.height() // 2
    colours = [picture.pixelColor(round((i + 0.4) * step), middle) for i in range(20)]
    return sum(colour.saturation() > 80 for colour in colours)


def _levels(qtbot, window, seconds: float) -> np.ndarray:
    levels = []
    for _ in range(round(seconds / 0.1)):
        qtbot.wait(100)
        levels.append(_lit(window.meter))
    return np.array(levels)


def test_a_picked_microphone_moves_the_level_and_mute_stops_it(qtbot, open_window, sound_server):
    application = open_window("has_microphone = false\n")
    window = application.window
    assert _levels(qtbot, window, 0.5).max() == 0 and window.speaking_label.text() == "No microphone"
    _pick(qtbot, window.microphone, "fakemic")
    assert application.store.settings.microphone == "fakemic"
    qtbot.waitUntil(lambda: window.speaking_label.text() == "Quiet", timeout=10_000)

    sound_server.speak(SPEECH)
    qtbot.waitUntil(lambda: window.speaking_label.text() == "Speaking", timeout=10_000)
    speaking = _levels(qtbot, window, 1.0)
    assert speaking.max() >= 8 and np.ptp(speaking) >= 2, speaking

    qtbot.mouseClick(window.mute_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: _lit(window.meter) == 0, timeout=10_000)
    assert _levels(qtbot, window, 0.7).max() == 0, "the speech goes on, and nothing of it is taken"
    assert window.speaking_label.text() == "Muted" and window.mute_button.text() == "Muted"

    qtbot.mouseClick(window.mute_button, Qt.MouseButton.LeftButton)
    sound_server.speak(SPEECH)
    qtbot.waitUntil(lambda: _lit(window.meter) >= 8, timeout=20_000)
    assert not window.banner.isVisible()


def test_the_microphone_of_last_time_is_heard_until_it_is_given_up(qtbot, open_window, sound_server):
    application = open_window('has_microphone = true\nmicrophone = "fakemic"\nmicrophone_host = "ALSA"\n')
    window = application.window
    assert window.microphone.currentText() == "fakemic"
    sound_server.speak(SPEECH)
    qtbot.waitUntil(lambda: _lit(window.meter) >= 8, timeout=10_000)
    _pick(qtbot, window.microphone, "No microphone")
    qtbot.waitUntil(lambda: window.speaking_label.text() == "No microphone", timeout=10_000)
    qtbot.waitUntil(lambda: _lit(window.meter) == 0, timeout=10_000)
    sound_server.speak(SPEECH)
    assert _levels(qtbot, window, 1.5).max() == 0, "what is not chosen is not heard"
    assert application.store.settings.has_microphone is False


def test_a_microphone_that_goes_away_is_told(qtbot, open_window, sound_server):
    window = open_window('has_microphone = true\nmicrophone = "fakemic"\nmicrophone_host = "ALSA"\n').window
    qtbot.waitUntil(lambda: window.speaking_label.text() == "Quiet", timeout=10_000)
    sound_server.stop()
    qtbot.waitUntil(lambda: "is gone" in window.banner.message.text(), timeout=15_000)
    qtbot.waitUntil(lambda: window.speaking_label.text() == "No microphone", timeout=20_000)
    shown = window.preview.frames
    qtbot.waitUntil(lambda: window.preview.frames > shown + 10, timeout=20_000)


def test_the_sync_test_is_done_on_the_virtual_microphone_and_stored(qtbot, open_window):
    application = open_window("has_microphone = false\n")
    window = application.window
    _pick(qtbot, window.voice_out, "Standin Microphone (virtual)")
    qtbot.waitUntil(lambda: "Standin Microphone" in window.voice_label.text(), timeout=10_000)
    qtbot.mouseClick(window.sync_button, Qt.MouseButton.LeftButton)
    page = application.presenter.dialog
    qtbot.mouseClick(page.test_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.bar.value() > 0, timeout=20_000)
    qtbot.waitUntil(lambda: page.test_button.text() == "Test again", timeout=40_000)
    shown = window.preview.frames
    if page.verdict.text().startswith("The clicks were heard unevenly"):
        assert page.detail.text()  # a busy computer: said, and nothing stored
    else:
        assert page.verdict.text().startswith("Lip sync: ") and page.detail.text().startswith("Stored: ")
    qtbot.waitUntil(lambda: window.preview.frames > shown + 10, timeout=20_000)
