"""Hold Space to talk, while the window has the focus."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

_TYPING = (QLineEdit, QTextEdit, QPlainTextEdit, QAbstractSpinBox)


class PushToTalk(QObject):
    """Watches the keyboard of one window while `is_on`.

    Space then presses no buttons any more, or a click on Record would make Space record; Return does instead. Losing
    the focus lets go.
    """

    talking_changed = Signal(bool)

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._window = window
        self.is_on = self.is_talking = False

    def set_on(self, is_on: bool) -> None:
        """Watch, or leave the keyboard alone."""
        application = QApplication.instance()
        assert application is not None
        self.is_on = is_on
        if is_on:
            application.installEventFilter(self)
        else:
            application.removeEventFilter(self)
            self._set_talking(False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind == QEvent.Type.WindowDeactivate and watched is self._window:
            self._set_talking(False)
        elif isinstance(event, QKeyEvent) and kind in (
            QEvent.Type.KeyPress, QEvent.Type.KeyRelease, QEvent.Type.ShortcutOverride
        ):  # fmt: skip
            return self._on_key(event, kind)
        return False

    def _on_key(self, event: QKeyEvent, kind: QEvent.Type) -> bool:
        is_space = event.key() == Qt.Key.Key_Space
        if is_space and kind == QEvent.Type.KeyRelease and self.is_talking:
            if not event.isAutoRepeat():
                self._set_talking(False)
            return True
        if not self._is_ours() or event.modifiers() not in (Qt.KeyboardModifier.NoModifier,):
            return False
        if is_space and kind != QEvent.Type.ShortcutOverride:
            if kind == QEvent.Type.KeyPress and not event.isAutoRepeat():
                self._set_talking(True)
            return True
        focus = QApplication.focusWidget()
        is_return = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and kind == QEvent.Type.KeyPress
        if is_return and isinstance(focus, QAbstractButton) and not event.isAutoRepeat():
            focus.click()
            return True
        return False

    def _is_ours(self) -> bool:
        """Nobody types, no list is open, and the window itself (no dialog) has the keyboard."""
        focus = QApplication.focusWidget()
        is_here = QApplication.activeWindow() is self._window and QApplication.activePopupWidget() is None
        return is_here and not isinstance(focus, _TYPING)

    def _set_talking(self, is_talking: bool) -> None:
        if self.is_talking != is_talking:
            self.is_talking = is_talking
            self.talking_changed.emit(is_talking)
