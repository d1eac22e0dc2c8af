"""Correct the marks of a face by hand."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from app.theme import Palette
from app.widgets.handle_editor import HandleEditor


class HandleDialog(QDialog):
    """`stored` carries the marks, or an empty dict to find the face automatically again."""

    stored = Signal(str, dict)

    def __init__(self, colours: Palette, portrait: str, image: QImage, handles: dict, has_face: bool, parent) -> None:
        super().__init__(parent)
        self.setWindowTitle("Adjust face")
        self.resize(720, 760)
        self._portrait = portrait
        title = QLabel("Adjust face")
        title.setObjectName("title")
        text = (
            "Drag the marks onto the eyes, brows, mouth and chin."
            if has_face
            else "No face was found. Drag the marks onto the eyes, brows, mouth and chin."
        )
        hint = QLabel(f"{text} Space chooses the next mark, the arrow keys move it.")
        hint.setObjectName("dim")
        hint.setWordWrap(True)
        self.editor = HandleEditor(colours)
        self.editor.set_portrait(image, handles)
        self.reset_button, self.cancel_button = QPushButton("Find automatically"), QPushButton("Cancel")
        self.save_button = QPushButton("Save marks")
        self.reset_button.clicked.connect(self._on_reset)
        self.cancel_button.clicked.connect(self.reject)
        self.save_button.clicked.connect(self._on_save)
        buttons = QHBoxLayout()
        buttons.addWidget(self.reset_button)
        buttons.addStretch(1)
        buttons.addWidget(self.cancel_button)
        buttons.addWidget(self.save_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(12)
        for widget in (title, hint):
            column.addWidget(widget)
        column.addWidget(self.editor, 1)
        column.addLayout(buttons)
        self.editor.setFocus()

    def _on_save(self) -> None:
        self.stored.emit(self._portrait, self.editor.handles)
        self.accept()

    def _on_reset(self) -> None:
        self.stored.emit(self._portrait, {})
        self.accept()
