"""What the window says while the computer is too slow for all that was chosen."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel, QPushButton

from app.theme import DARK, LIGHT
from app.widgets.status_note import StatusNote
from app.windows.quality import pace_words, show_quality
from engine.protocol import messages as m


@pytest.fixture
def window(qtbot, make_window):
    application = make_window()
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)

    def cue(name: str) -> None:
        application.client.send(m.SetPortrait, portrait=f"cue:{name}")

    application.window.cue = cue
    return application.window


def test_the_present_step_stays_in_sight_until_it_is_over(qtbot, window):
    note = window.quality_note
    assert not note.isVisible()
    window.cue("lowered")
    qtbot.waitUntil(note.isVisible)
    assert note.message.text() == "Lower quality: 3 steps"
    assert note.hint.text() == (
        "The computer is too slow for full quality: flashtalk goes on with 3 steps. "
        "It gets better by itself as soon as the computer keeps up; closing other programs helps."
    )
    assert "made in 980 of 1120 ms" in window.stats_label.text()
    assert not window.banner.isVisible(), "said once"
    window.cue("raised")
    qtbot.waitUntil(lambda: not note.isVisible())
    assert "made in 900 of 1120 ms" in window.stats_label.text() and not window.banner.isVisible()


def test_it_ends_with_the_session(qtbot, window):
    window.cue("lowered")
    qtbot.waitUntil(window.quality_note.isVisible)
    window.cue("spoken")
    qtbot.waitUntil(lambda: not window.quality_note.isVisible())


@pytest.mark.parametrize(
    ("kind", "step", "said"),
    [
        ("economy", "at most 2 steps", "Lower quality: at most 2 steps"),
        ("smaller", "512x320", "Lower quality: 512x320"),
        ("standby", "puppet", "Lower quality: the puppet stands in"),
        ("card", "card", "Lower quality: a still picture is shown"),
    ],
)
def test_every_kind_of_step_has_its_words(qtbot, kind, step, said):
    note = StatusNote(LIGHT)
    qtbot.addWidget(note)
    show_quality(note, m.QualityStats(step=step, kind=kind, reason="The computer is too slow."))
    assert note.message.text() == said
    assert note.accessibleName().startswith(f"{said}. The computer is too slow. It gets")
    before = note._icon.pixmap().toImage()
    note.set_colours(DARK)
    assert note._icon.pixmap().toImage() != before


def test_no_figures_where_nothing_was_measured():
    assert pace_words(m.QualityStats()) == ""
    assert pace_words(m.QualityStats(budget_ms=40.0)) == ""
    assert pace_words(m.QualityStats(chunk_ms=7.6, budget_ms=40.0)) == "   made in 8 of 40 ms"


def test_nothing_is_cut_in_the_smallest_window_however_much_is_told(qtbot, window):
    window.resize(window.minimumSize())
    window.cue("lowered")
    qtbot.waitUntil(window.quality_note.isVisible)
    window.model_note.tell("info", "FlashTalk needs its model", "The puppet is shown. " * 5, action="Download...")
    window.banner.tell("warn", "No face was found in this portrait.", "Place the marks by hand.", action="Adjust...")
    qtbot.wait(100)
    assert (window.width(), window.height()) == (960, 600)
    shown = [widget for widget in window.findChildren(QPushButton) if widget.isVisible()]
    least = [(button, button.minimumSizeHint()) for button in shown]
    assert [b.text() for b, size in least if b.height() < size.height() or b.width() < size.width()] == []
    labels = [label for label in window.findChildren(QLabel) if label.isVisible() and label.text()]
    assert [label.text() for label in labels if label.height() < label.heightForWidth(label.width())] == []
