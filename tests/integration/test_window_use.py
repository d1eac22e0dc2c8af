"""The window used as a person would: pick, start, record, mute, adjust, open twice; with the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("PySide6", reason="the window needs the gui extra")

from PySide6.QtCore import QPoint, Qt

BACKEND = """
class Camera:
    def __init__(self, device, width, height, fps):
        self.label, self.device = "Test Camera", device
        self.file = open(device, "wb", buffering=0)
    def send(self, image):
        self.file.write(b".")
    def close(self):
        self.file.write(b"closed")
"""


@pytest.fixture
def application(qtbot, tmp_path, monkeypatch):
    from app.bootstrap import Application

    (tmp_path / "window_test_camera.py").write_text(BACKEND)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.getcwd()}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    settings = tmp_path / "window.toml"
    settings.write_text("version = 1\nhas_consented = true\nhas_microphone = false\n", encoding="utf-8")
    application = Application(settings_path=settings, library_folder=tmp_path / "portraits")
    qtbot.addWidget(application.window)
    application.open()
    start = application.window.preview
    qtbot.waitUntil(lambda: start.frames >= 5, timeout=30_000)
    yield application
    application.finish()


def _picture(application) -> np.ndarray:
    image = application.window.preview.image.scaled(64, 36)
    return np.array([[image.pixelColor(x, y).lightness() for x in range(64)] for y in range(36)], float)


def test_picking_another_portrait_changes_the_picture(qtbot, application):
    before = _picture(application)
    application.window.gallery.select("sample:theo")
    application.presenter._broadcast.change(portrait="sample:theo")
    qtbot.waitUntil(lambda: np.abs(_picture(application) - before).mean() > 8, timeout=15_000)
    assert application.store.settings.portrait == "sample:theo"


def test_dropped_picture_becomes_a_portrait_without_a_face_and_says_so(qtbot, application, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    before = set(application.window.gallery.refs())
    application.window.gallery.files_dropped.emit([str(tmp_path / "noise.png")])
    qtbot.waitUntil(lambda: len(application.window.gallery.refs()) == len(before) + 1, timeout=10_000)
    qtbot.waitUntil(lambda: "face" in application.window.banner.message.text().lower(), timeout=20_000)
    (kept,) = set(application.window.gallery.refs()) - before
    assert Path(kept).is_file() and Path(kept) != tmp_path / "noise.png"


def test_start_without_a_camera_names_the_cause(qtbot, application):
    presenter = application.presenter
    qtbot.waitUntil(lambda: presenter._cameras_reason is not None or bool(presenter._cameras), timeout=15_000)
    if any(camera.problem is None for camera in presenter._cameras):
        pytest.skip("this machine has a virtual camera")
    qtbot.mouseClick(application.window.start_button, Qt.MouseButton.LeftButton)
    expected = presenter._cameras_reason.message
    qtbot.waitUntil(lambda: application.window.banner.message.text() == expected, timeout=10_000)
    assert application.window.start_button.text() == "Start virtual camera"


def test_on_air_and_off_again(qtbot, application, tmp_path):
    """With a camera of the test's own behind the same button."""
    device = tmp_path / "device"
    application.broadcast.change(camera_device=str(device), camera_backend="window_test_camera:Camera")
    qtbot.mouseClick(application.window.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: application.window.air_label.text().endswith("On air"), timeout=20_000)
    qtbot.waitUntil(lambda: device.exists() and device.stat().st_size > 20, timeout=10_000)
    assert application.window.start_button.text() == "Stop virtual camera"
    qtbot.waitUntil(lambda: str(device) in application.window.state_label.text(), timeout=5_000)
    qtbot.mouseClick(application.window.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: application.window.air_label.text() == "Off air", timeout=10_000)
    assert device.read_bytes().endswith(b"closed")
    assert "pick the camera" not in application.window.state_label.text()


def test_killed_window_releases_the_camera(tmp_path, qtbot):
    """The whole chain: window killed, engine sees the end of its input, camera process that of its own."""
    device = tmp_path / "device"
    (tmp_path / "window_test_camera.py").write_text(BACKEND)
    (tmp_path / "window.toml").write_text(
        "version = 1\nhas_consented = true\nhas_microphone = false\n"
        f'camera_device = "{device}"\ncamera_backend = "window_test_camera:Camera"\n'
    )
    script = f"""
import sys
from pathlib import Path
from PySide6.QtWidgets import QApplication
from app.bootstrap import Application
qt = QApplication([])
application = Application(settings_path=Path({str(tmp_path / "window.toml")!r}), library_folder=Path({str(tmp_path)!r}))
application.open()
application.broadcast.set_camera(True)
qt.exec()
"""
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}", "QT_QPA_PLATFORM": "offscreen"}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    try:
        qtbot.waitUntil(lambda: device.exists() and device.stat().st_size > 20, timeout=30_000)
    finally:
        child.kill()
        child.wait()
    qtbot.waitUntil(lambda: device.read_bytes().endswith(b"closed"), timeout=30_000)


def test_recording_from_the_window_plays(qtbot, application, tmp_path, monkeypatch):
    clip = tmp_path / "clip.mp4"
    monkeypatch.setattr("app.windows.presenter._new_file", lambda suffix: str(clip))
    qtbot.mouseClick(application.window.record_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: clip.exists(), timeout=10_000)
    qtbot.wait(1200)
    qtbot.mouseClick(application.window.record_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "kept" in application.window.banner.message.text(), timeout=10_000)
    with av.open(str(clip)) as file:
        assert sum(1 for _ in file.decode(video=0)) >= 15


def test_mute_by_keyboard_and_its_words(qtbot, application):
    application.window.activateWindow()
    application.window.mute_button.setFocus()
    qtbot.keyClick(application.window.mute_button, Qt.Key.Key_Space)
    assert application.broadcast.is_muted and application.window.mute_button.isChecked()
    qtbot.waitUntil(lambda: "No microphone" in application.window.speaking_label.text(), timeout=5_000)


def test_every_control_has_a_name_for_a_screen_reader(application):
    from PySide6.QtWidgets import QAbstractButton, QComboBox, QListWidget

    for kind in (QAbstractButton, QComboBox, QListWidget):
        for widget in application.window.findChildren(kind):
            if widget.isVisibleTo(application.window):
                assert widget.accessibleName() or getattr(widget, "text", str)(), widget


def _marks(qtbot, application):
    """The dialog of the marks, once the engine and the reader of pictures have delivered."""
    qtbot.mouseClick(application.window.adjust_button, Qt.MouseButton.LeftButton)
    dialog = application.presenter.dialog
    qtbot.waitUntil(dialog.save_button.isEnabled, timeout=15_000)
    return dialog


def test_an_eye_made_larger_is_stored_with_the_portrait_and_seen(qtbot, application):
    dialog = _marks(qtbot, application)
    before = dialog.editor.handles
    start = dialog.editor.position_of("left_eye_size").toPoint()
    qtbot.mousePress(dialog.editor, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(dialog.editor, start + QPoint(-12, 6))
    qtbot.mouseRelease(dialog.editor, Qt.MouseButton.LeftButton)
    moved = dialog.editor.handles["left_eye_size"]
    assert moved[0] > before["left_eye_size"][0] + 10 and moved[1] > before["left_eye_size"][1] + 5
    shown = application.window.preview.frames
    qtbot.mouseClick(dialog.save_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: application.window.preview.frames > shown + 5, timeout=15_000)
    dialog = _marks(qtbot, application)
    assert dialog.editor.handles["left_eye_size"] == pytest.approx(moved, abs=0.5)
    assert dialog.editor.handles["chin"] == pytest.approx(before["chin"], abs=0.5)
    with qtbot.waitSignal(application.client.portrait_analysed, timeout=15_000, raising=False) as again:
        qtbot.mouseClick(dialog.reset_button, Qt.MouseButton.LeftButton)
        application.broadcast.analyse(application.broadcast.settings.portrait)
    assert again.args[0].handles["left_eye_size"] == pytest.approx(before["left_eye_size"], abs=0.5)


def test_remembered_portrait_that_is_gone_falls_back_to_a_sample(qtbot, tmp_path):
    from app.bootstrap import Application

    (tmp_path / "w.toml").write_text(
        'version = 1\nhas_microphone = false\nportrait = "/nowhere/me.png"\n', encoding="utf-8"
    )
    application = Application(settings_path=tmp_path / "w.toml", library_folder=tmp_path / "portraits")
    qtbot.addWidget(application.window)
    application.open()
    qtbot.waitUntil(lambda: application.window.preview.frames >= 3, timeout=30_000)
    application.finish()


def test_second_window_asks_the_first_to_show_itself(qtbot):
    from app.single_instance import SingleInstance

    name = f"standin-test-{os.getpid()}"
    first, second = SingleInstance(name), SingleInstance(name)
    assert first.is_first()
    with qtbot.waitSignal(first.asked_to_show, timeout=5_000):
        assert not second.is_first()
    first.close()
    assert second.is_first()
    second.close()
