"""The settings page: measured once, and one choice sets the whole picture."""

from __future__ import annotations

import json
import sys

import pytest
from PySide6.QtCore import Qt

from engine.protocol import messages as m

ESTIMATE = {
    "generator": "puppet", "options": {}, "canvas": [960, 540], "fps": 25, "frames_per_s": 90.0, "delay_s": 0.15,
    "memory_bytes": None, "is_measured": True, "words": "puppet, 960 x 540",
}  # fmt: skip
PRESENTATION = ESTIMATE | {"generator": "flashtalk", "options": {"steps": 4}, "canvas": [1280, 720]}


@pytest.fixture
def open_page(qtbot, make_window, tmp_path, monkeypatch):
    """The settings page of a window whose measurement is a program that prints `out` and ends with `code`."""
    monkeypatch.setattr("engine.tuning.store.data_folder", lambda: tmp_path / "data")

    def open_it(out: str, code: int = 0, complaint: str = ""):
        application = make_window()
        qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
        program = tmp_path / "measure.py"
        program.write_text(f"import sys\nprint({out!r})\nprint({complaint!r}, file=sys.stderr)\nsys.exit({code})\n")
        application.presenter._tuning._command = [sys.executable, str(program)]
        qtbot.mouseClick(application.window.settings_button, Qt.MouseButton.LeftButton)
        return application, application.presenter.dialog

    return open_it


def _measure(qtbot, page):
    qtbot.mouseClick(page.measure_button, Qt.MouseButton.LeftButton)
    assert not page.measure_button.isEnabled() and page.use_note.text().startswith("Up to two minutes")
    qtbot.waitUntil(page.measure_button.isEnabled, timeout=10_000)


def _choose(page, use):
    index = page.use_box.findData(use)
    page.use_box.setCurrentIndex(index)
    page.use_box.activated.emit(index)


def test_measuring_pauses_the_session_and_offers_what_it_found(qtbot, open_page, commands):
    application, page = open_page(json.dumps({"best": {"conversation": ESTIMATE, "presentation": PRESENTATION}}))
    assert not page.use_box.isEnabled() and page.use_note.text() == "Nothing was measured yet."
    _measure(qtbot, page)
    assert page.use_box.isEnabled() and page.use_box.count() == 3
    qtbot.waitUntil(lambda: application.broadcast.is_live)
    assert len(commands.of(m.Stop)) == 1 and len(commands.of(m.Start)) == 2


def test_one_choice_sets_generator_size_and_rate(qtbot, open_page, commands):
    application, page = open_page(json.dumps({"best": {"conversation": ESTIMATE, "presentation": PRESENTATION}}))
    _measure(qtbot, page)
    qtbot.waitUntil(lambda: application.broadcast.is_live)
    _choose(page, "conversation")
    assert page.use_note.text() == "Puppet, 960 x 540, 150 ms behind you, up to 90 frames a second."
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 3)
    started = commands.of(m.Start)[-1].settings
    assert (started.generator.name, started.canvas.width) == ("puppet", 960)
    assert application.store.settings.use == "conversation"
    qtbot.waitUntil(lambda: application.broadcast.is_live)
    _choose(page, "presentation")
    qtbot.waitUntil(lambda: len(commands.of(m.Start)) == 4)
    generator = commands.of(m.Start)[-1].settings.generator
    assert (generator.name, generator.options) == ("flashtalk", {"steps": 4})


def test_another_size_is_a_choice_of_ones_own(qtbot, open_page):
    application, page = open_page(json.dumps({"best": {"conversation": ESTIMATE}}))
    _measure(qtbot, page)
    _choose(page, "conversation")
    box = page._boxes["canvas"]
    assert box.currentData() == "960x540"
    box.setCurrentIndex(0)
    box.activated.emit(0)
    assert page.use_box.currentText() == "My own choice"
    assert (application.store.settings.use, application.store.settings.canvas) == ("", "640x360")


@pytest.mark.parametrize(
    ("out", "code", "complaint", "said"),
    [
        ("", 1, "The disk is full. Make room.", "The disk is full. Make room."),
        ("", 1, "", "This computer could not be measured."),
        ("no JSON", 0, "", "This computer could not be measured."),
        ('{"best": {}}', 0, "", "This computer could not be measured."),
    ],
)
def test_a_failure_is_told_and_the_session_comes_back(qtbot, open_page, out, code, complaint, said):
    application, page = open_page(out, code, complaint)
    _measure(qtbot, page)
    assert page.use_note.text() == said and not page.use_box.isEnabled()
    qtbot.waitUntil(lambda: application.broadcast.is_live)


def test_a_program_that_cannot_be_started_is_told(qtbot, open_page):
    application, page = open_page("")
    application.presenter._tuning._command = ["/nowhere/standin"]
    qtbot.mouseClick(page.measure_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.use_note.text() == "This computer could not be measured.", timeout=10_000)
    qtbot.waitUntil(lambda: application.broadcast.is_live)
