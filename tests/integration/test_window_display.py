"""The window on a real (virtual) X display, light and dark: shown as a whole, nothing cut, no warnings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("PySide6", reason="the window needs the gui extra")

_SCRIPT = """
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QLabel, QPushButton
from app.bootstrap import Application
folder, theme = Path(sys.argv[1]), sys.argv[2]
(folder / "w.toml").write_text(f'version = 1\\nhas_microphone = false\\ntheme = "{theme}"\\n', encoding="utf-8")
qt = QApplication([])
qt.setStyle("Fusion")
application = Application(settings_path=folder / "w.toml", library_folder=folder / "portraits")
window = application.window

def cut():
    found = [w for w in window.findChildren(QPushButton) if w.isVisible() and w.width() < w.minimumSizeHint().width()]
    labels = [w for w in window.findChildren(QLabel) if w.isVisible() and w.text()]
    found += [w for w in labels if w.height() < w.heightForWidth(w.width())]
    found += [w for w in labels if not w.wordWrap() and w.width() < w.sizeHint().width()]
    return [w.text() for w in found]

def look():
    if window.preview.frames < 5 or not window.stats_label.text():
        return
    timer.stop()
    window.resize(window.minimumSize())
    QTimer.singleShot(300, small)

def small():
    print("cut when small:", cut())
    window.resize(1280, 760)
    QTimer.singleShot(500, large)

def large():
    print("cut when large:", cut())
    window.screen().grabWindow(window.winId()).save(str(folder / "window.png"))
    window.close()

timer = QTimer()
timer.timeout.connect(look)
timer.start(100)
application.closed.connect(qt.quit)
application.open()
qt.exec()
application.finish()
"""


@pytest.fixture
def display():
    if sys.platform != "linux":
        pytest.skip("X displays are Linux's")
    if shutil.which("xvfb-run") is None:
        pytest.skip("xvfb-run is not installed")
    try:
        import ctypes

        ctypes.CDLL("libxcb-cursor.so.0")
    except OSError:
        pytest.skip("libxcb-cursor0, which Qt needs for X, is not installed")
    return ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_window_on_a_display(display, theme, tmp_path):
    environment = os.environ | {"QT_QPA_PLATFORM": "xcb", "PYTHONPATH": os.getcwd()}
    command = [*display, sys.executable, "-c", _SCRIPT, str(tmp_path), theme]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["cut when small: []", "cut when large: []"]
    assert "Qt" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    _look_at(tmp_path / "window.png", is_dark=theme == "dark")


def _look_at(path: Path, *, is_dark: bool) -> None:
    """Background, cards, the portrait in the middle and the one large button, by their colours."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape == (760, 1280, 3)
    corner, card = picture[5, 640], picture[500, 1150]
    assert (corner.mean() < 40) if is_dark else (corner.mean() > 230)
    assert (card.mean() < 60) if is_dark else (card.mean() == 255)
    portrait = picture[200:480, 450:820]
    assert portrait.std() > 35, "a face, not a plain area"
    red, green, blue = picture[683, 1040]
    assert blue > red + 60 and blue > green + 60, "the start button has the accent colour"
