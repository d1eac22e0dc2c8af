"""A calm word about a state that lasts: what is the case, why and what follows, until it is over."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.theme import Palette, icon

_ICON_PX = 18


class StatusNote(QWidget):
    """Hidden while there is nothing to say. `kind` is "info" or "warn"."""

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._colours, self._kind = colours, "info"
        self._action: Callable[[], None] | None = None
        self._icon = QLabel()
        self.message, self.hint = QLabel(), QLabel()
        self.message.setObjectName("label")
        self.hint.setObjectName("dim")
        self.action_button = QPushButton()
        self.action_button.setAccessibleName("What to do about it")
        self.action_button.clicked.connect(self._on_action)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        for label in (self.message, self.hint):
            label.setWordWrap(True)
            texts.addWidget(label)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(10)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(texts, 1)
        row.addWidget(self.action_button)
        self.hide()

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._colours = colours
        symbol, colour = ("warning", colours.warn) if self._kind == "warn" else ("info", colours.accent)
        self._icon.setPixmap(icon(symbol, colour, _ICON_PX).pixmap(_ICON_PX, _ICON_PX))

    def tell(
        self, kind: str, message: str, hint: str = "", *, action: str = "", on_action: Callable[[], None] | None = None
    ) -> None:
        """What is the case now; may be called again and again with the same words."""
        is_news = self.isHidden() or message != self.message.text()
        self._kind, self._action = kind, on_action
        self.message.setText(message)
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))
        self.action_button.setText(action)
        self.action_button.setAccessibleName(action)
        self.action_button.setVisible(bool(action))
        self.setAccessibleName(f"{message}. {hint}".strip())
        if is_news:
            self.set_colours(self._colours)
            self.show()
            QAccessible.updateAccessibility(QAccessibleEvent(self, QAccessible.Event.Alert))

    def clear(self) -> None:
        """It is over."""
        self.hide()

    def _on_action(self) -> None:
        if self._action:
            self._action()
