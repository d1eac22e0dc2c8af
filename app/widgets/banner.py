"""A sentence with its remedy across the window, until it is dismissed or solved."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from app.theme import Palette, icon


class Banner(QFrame):
    """Hidden while there is nothing to say. `kind` is "info", "warn" or "error"."""

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self.setObjectName("banner")
        self._colours = colours
        self._action: Callable[[], None] | None = None
        self.code = ""
        self._icon = QLabel()
        self.message, self.hint = QLabel(), QLabel()
        self.message.setObjectName("label")
        self.action_button, self.close_button = QPushButton(), QPushButton()
        self.close_button.setObjectName("quiet")
        self.close_button.setAccessibleName("Dismiss message")
        self.close_button.clicked.connect(self.dismiss)
        self.action_button.clicked.connect(self._on_action)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        for label in (self.message, self.hint):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            texts.addWidget(label)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 8, 8, 8)
        row.setSpacing(12)
        row.addWidget(self._icon)
        row.addLayout(texts, 1)
        row.addWidget(self.action_button)
        row.addWidget(self.close_button)
        self.hide()

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._colours = colours
        self.close_button.setIcon(icon("close", colours.text))
        kind = self.property("kind")
        colour = {"error": colours.on_air, "warn": colours.warn}.get(kind, colours.accent)
        self._icon.setPixmap(icon("warning" if kind in ("error", "warn") else "info", colour).pixmap(24, 24))

    def tell(
        self, kind: str, message: str, hint: str = "", *, code: str = "", action: str = "",
        on_action: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Show a sentence; it takes the place of the one before."""
        self.code = code
        self.setProperty("kind", kind)
        self.message.setText(message)
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))
        self._action = on_action
        self.action_button.setText(action)
        self.action_button.setVisible(bool(action))
        self.setAccessibleName(f"{message} {hint}".strip())
        self.style().unpolish(self)
        self.style().polish(self)
        self.set_colours(self._colours)
        self.show()
        # Read out at once by screen readers, wherever the focus is.
        QAccessible.updateAccessibility(QAccessibleEvent(self, QAccessible.Event.Alert))

    def dismiss(self) -> None:
        """Nothing more to say."""
        self.code = ""
        self.hide()

    def dismiss_if(self, code: str) -> None:
        """Take back what was said under `code`."""
        if self.code == code:
            self.dismiss()

    def _on_action(self) -> None:
        action = self._action
        self.dismiss()
        if action:
            action()
