"""The marks of a face over its portrait, to drag where they belong."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPen
from PySide6.QtWidgets import QWidget

from app.theme import Palette

_GRAB_PX = 18
LABELS = {
    "left_eye": "Eye", "right_eye": "Eye", "brow": "Brows", "mouth_left": "Corner of the mouth",
    "mouth_right": "Corner of the mouth", "lip_top": "Upper lip", "lip_bottom": "Lower lip", "chin": "Chin",
    "jaw_left": "Jaw", "jaw_right": "Jaw",
}  # fmt: skip


class HandleEditor(QWidget):
    """Drag with the mouse; Tab chooses a mark and the arrow keys move it (Shift: ten times as far)."""

    handles_changed = Signal()

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._colours = colours
        self._image = QImage()
        self.handles: dict[str, tuple[float, float]] = {}
        self._current = ""
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(360, 360)
        self.setAccessibleName("Face marks")
        self.setAccessibleDescription("Space chooses the next mark, arrow keys move it")

    def set_portrait(self, image: QImage, handles: dict[str, tuple[float, float]]) -> None:
        """Show `image` with `handles` in its pixels."""
        self._image, self.handles = image, dict(handles)
        self._current = next(iter(self._points()), "")
        self.update()

    def _points(self) -> list[str]:
        return [name for name in self.handles if not name.endswith("_size")]

    def _frame(self) -> tuple[QRectF, float]:
        scale = min(self.width() / max(1, self._image.width()), self.height() / max(1, self._image.height()))
        width, height = self._image.width() * scale, self._image.height() * scale
        return QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height), scale

    def position_of(self, name: str) -> QPointF:
        """Where a mark is in this widget."""
        area, scale = self._frame()
        x, y = self.handles[name]
        return QPointF(area.left() + x * scale, area.top() + y * scale)

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        area, scale = self._frame()
        painter.drawImage(area, self._image)
        for name in self._points():
            spot = self.position_of(name)
            size = self.handles.get(f"{name}_size")
            if size:
                for colour, width in (("#000000", 3.0), ("#ffffff", 1.6)):
                    painter.setPen(QPen(QColor(colour), width))
                    painter.setBrush(Qt.BrushStyle.NoBrush)
                    painter.drawEllipse(spot, size[0] * scale / 2, size[1] * scale / 2)
            radius = 8 if name == self._current else 6
            painter.setPen(QPen(QColor("#ffffff"), 2))
            painter.setBrush(QColor(self._colours.accent))
            painter.drawEllipse(spot, radius, radius)
        if self._current:
            self._paint_label(painter)

    def _paint_label(self, painter: QPainter) -> None:
        text = LABELS.get(self._current, self._current)
        spot = self.position_of(self._current)
        width = painter.fontMetrics().horizontalAdvance(text) + 16
        box = QRectF(min(spot.x() + 12, self.width() - width), spot.y() - 30, width, 22)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(0, 0, 0, 190))
        painter.drawRoundedRect(box, 6, 6)
        painter.setPen(QColor("#ffffff"))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)

    def mousePressEvent(self, event) -> None:
        names = self._points()
        near = min(names, key=lambda n: _distance(self.position_of(n), event.position()), default="")
        self._is_dragging = bool(near) and _distance(self.position_of(near), event.position()) <= _GRAB_PX
        if self._is_dragging:
            self._current = near
            self.update()

    def mouseMoveEvent(self, event) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton and getattr(self, "_is_dragging", False):
            area, scale = self._frame()
            self._move((event.position().x() - area.left()) / scale, (event.position().y() - area.top()) / scale)

    def keyPressEvent(self, event) -> None:
        steps = {Qt.Key.Key_Left: (-1, 0), Qt.Key.Key_Right: (1, 0), Qt.Key.Key_Up: (0, -1), Qt.Key.Key_Down: (0, 1)}
        names = self._points()
        if event.key() == Qt.Key.Key_Space and names:
            self._current = names[(names.index(self._current) + 1) % len(names)]
            self.update()
        elif event.key() in steps and self._current:
            far = 10 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1
            dx, dy = steps[event.key()]
            x, y = self.handles[self._current]
            self._move(x + dx * far, y + dy * far)
        else:
            super().keyPressEvent(event)

    def _move(self, x: float, y: float) -> None:
        self.handles[self._current] = (
            min(max(x, 0.0), self._image.width() - 1.0), min(max(y, 0.0), self._image.height() - 1.0)
        )  # fmt: skip
        self.update()
        self.handles_changed.emit()


def _distance(a: QPointF, b: QPointF) -> float:
    return ((a.x() - b.x()) ** 2 + (a.y() - b.y()) ** 2) ** 0.5
