"""Without a mouse and without eyes: Tab goes everywhere in reading order, focus is seen, everything has a name."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QAbstractButton, QAbstractItemView, QApplication, QComboBox, QLabel, QProgressBar, QWidget

READING_ORDER = [
    "settings_button", "gallery", "add_button", "paste_button", "remove_button", "mirror_box", "adjust_button",
    "microphone", "mute_button", "voice_out", "record_button", "snapshot_button", "start_button",
]  # fmt: skip


@pytest.fixture
def application(qtbot, make_window):
    application = make_window(settings='has_microphone = false\ntheme = "light"\n')
    qtbot.waitUntil(lambda: application.broadcast.is_live, timeout=10_000)
    application.window.activateWindow()
    qtbot.waitUntil(lambda: application.window.isActiveWindow())
    return application


def _walk(qtbot, top: QWidget, key=Qt.Key.Key_Tab) -> list[QWidget]:
    """What has the focus after each key, once around."""
    seen = []
    while (focus := QApplication.focusWidget()) not in seen:
        seen.append(focus)
        assert len(seen) < 60
        qtbot.keyClick(focus or top, key)
    return seen


def _named(window, widgets) -> list[str]:
    names = {id(getattr(window, name)): name for name in READING_ORDER}
    names |= {id(window.banner.action_button): "banner action", id(window.banner.close_button): "banner close"}
    return [names.get(id(widget), repr(widget)) for widget in widgets]


def test_tab_visits_every_control_in_reading_order(qtbot, application):
    window = application.window
    window.settings_button.setFocus()
    assert _named(window, _walk(qtbot, window)) == READING_ORDER


def test_tab_backwards_is_the_same_order_backwards(qtbot, application):
    window = application.window
    window.start_button.setFocus()
    assert _named(window, _walk(qtbot, window, Qt.Key.Key_Backtab)) == READING_ORDER[::-1]


def test_a_message_and_its_remedy_come_after_the_header(qtbot, application):
    window = application.window
    window.banner.tell("warn", "Something.", action="Mend it")
    window.settings_button.setFocus()
    assert _named(window, _walk(qtbot, window))[:4] == ["settings_button", "banner action", "banner close", "gallery"]


def _reading(widget: QWidget, top: QWidget) -> tuple[int, int]:
    place = widget.mapTo(top, widget.rect().center())
    return place.y() // 12, place.x()


@pytest.mark.parametrize("which", ["settings_button", "adjust_button"])
def test_dialogs_are_walked_from_top_to_bottom(qtbot, application, which):
    qtbot.mouseClick(getattr(application.window, which), Qt.MouseButton.LeftButton)
    dialog = application.presenter.dialog
    if which == "adjust_button":
        qtbot.waitUntil(dialog.save_button.isEnabled, timeout=10_000)
    dialog.activateWindow()
    qtbot.waitUntil(lambda: dialog.isActiveWindow())
    able = [w for w in dialog.findChildren(QWidget) if _is_reached_by_tab(w, dialog)]
    first = min(able, key=lambda w: _reading(w, dialog))
    first.setFocus()
    seen = _walk(qtbot, dialog)
    assert seen == sorted(able, key=lambda w: _reading(w, dialog))


def _is_reached_by_tab(widget: QWidget, top: QWidget) -> bool:
    is_wanted = bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus) and widget.isEnabled()
    return is_wanted and widget.isVisibleTo(top) and widget.window() is top and widget.focusProxy() is None


def _pixels(widget: QWidget) -> np.ndarray:
    image = widget.window().grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_Grayscale8)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    place = widget.mapTo(widget.window(), widget.rect().topLeft())
    return rows[place.y() : place.y() + widget.height(), place.x() : place.x() + widget.width()].astype(int)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_focus_is_seen_on_every_control(qtbot, application, theme):
    window = application.window
    application.theme.choose(theme)
    for name in READING_ORDER:
        widget, other = getattr(window, name), window.settings_button
        other = window.start_button if widget is other else other
        other.setFocus()
        before = _pixels(widget)
        widget.setFocus()
        changed = np.abs(_pixels(widget) - before)
        assert (changed > 25).sum() >= 60, f"{name}: {(changed > 25).sum()} px"


def _name_of(widget: QWidget) -> str:
    return QAccessible.queryAccessibleInterface(widget).text(QAccessible.Text.Name)


def _is_for_people(widget: QWidget) -> bool:
    kinds = (QAbstractButton, QComboBox, QAbstractItemView, QProgressBar)
    is_inside = any(isinstance(p, QComboBox) for p in _parents(widget))
    return not is_inside and (isinstance(widget, kinds) or bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus))


def _parents(widget: QWidget):
    while (widget := widget.parentWidget()) is not None:
        yield widget


@pytest.mark.parametrize("dialog", ["", "settings_button", "adjust_button"])
def test_everything_one_can_use_has_a_name(qtbot, application, dialog):
    top = application.window
    if dialog:
        qtbot.mouseClick(getattr(top, dialog), Qt.MouseButton.LeftButton)
        top = application.presenter.dialog
    found = [w for w in top.findChildren(QWidget) if _is_for_people(w) and w.objectName() != "qt_scrollarea_viewport"]
    assert len(found) >= 5
    action = application.window.banner.action_button  # named with each message
    assert [w for w in found if not _name_of(w).strip() and w is not action] == []


def test_pictures_and_meters_have_names(application):
    window = application.window
    assert [_name_of(w) for w in (window.preview, window.meter)] == ["Preview of what others see", "Input level"]
    window.banner.tell("warn", "Something.", "Do this.", action="Mend it")
    assert _name_of(window.banner) == "Something. Do this." and _name_of(window.banner.action_button) == "Mend it"
    assert all(label.text() for label in window.findChildren(QLabel) if label.objectName() == "heading")
