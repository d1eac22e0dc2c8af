"""Correct the marks of a face by hand."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout

from app.theme import Palette
from app.widgets.handle_editor import HandleEditor

_DRAG = "Drag the marks onto the eyes, brows, mouth and chin; the square beside an eye sets its size."
_KEYS = "Space chooses the next mark, the arrow keys move it."


class HandleDialog(QDialog):
    """Busy until `set_face` or `set_problem`. `stored` carries the marks, or an empty dict to find the face
    automatically again."""

    stored = Signal(str, dict)

    def __init__(self, colours: Palette, portrait: str, parent) -> None:
        super().__init__(parent)
        self.setWindowTitle("Adjust face")
        self.resize(720, 760)
        self._portrait = portrait
        title = QLabel("Adjust face")
        title.setObjectName("title")
        self.hint = QLabel("Looking for the face...")
        self.hint.setObjectName("dim")
        self.hint.setWordWrap(True)
        self.busy = QProgressBar()
        self.busy.setRange(0, 0)
        self.busy.setTextVisible(False)
        self.busy.setAccessibleName("Looking for the face")
        self.editor = HandleEditor(colours)
        self.reset_button, self.cancel_button = QPushButton("Find automatically"), QPushButton("Cancel")
        self.save_button = QPushButton("Save marks")
        self.reset_button.clicked.connect(self._on_reset)
        self.cancel_button.clicked.connect(self.reject)
        self.save_button.clicked.connect(self._on_save)
        self.reset_button.setAutoDefault(False)
        self.cancel_button.setAutoDefault(False)
        self.save_button.setDefault(True)
        self.save_button.setEnabled(False)
        buttons = QHBoxLayout()
        buttons.addWidget(self.reset_button)
        buttons.addStretch(1)
        buttons.addWidget(self.cancel_button)
        buttons.addWidget(self.save_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(12)
        for widget in (title, self.hint, self.busy):
            column.addWidget(widget)
        column.addWidget(self.editor, 1)
        column.addLayout(buttons)
        self.editor.setFocus()

    def set_face(
        self, image: QImage, size: tuple[int, int], handles: dict[str, tuple[float, float]], has_face: bool
    ) -> None:
        """Show the marks in px of a portrait of `size`, on its picture."""
        self.busy.hide()
        self.hint.setText(f"{_DRAG} {_KEYS}" if has_face else f"No face was found. {_DRAG} {_KEYS}")
        self.editor.set_portrait(image, size, handles)
        self.save_button.setEnabled(True)

    def set_problem(self, text: str) -> None:
        """Say why there are no marks to show."""
        self.busy.hide()
        self.hint.setText(text)

    def _on_save(self) -> None:
        self.stored.emit(self._portrait, self.editor.handles)
        self.accept()

    def _on_reset(self) -> None:
        self.stored.emit(self._portrait, {})
        self.accept()
