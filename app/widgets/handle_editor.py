"""The marks of a face over its portrait, to drag where they belong."""

from __future__ import annotations

import math

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPen
from PySide6.QtWidgets import QWidget

from app.theme import Palette
from app.widgets.face_marks import LABELS, FaceMarks

_GRAB_PX = 18
_HELP = "Space chooses the next mark, arrow keys move it"
_STEPS = {Qt.Key.Key_Left: (-1, 0), Qt.Key.Key_Right: (1, 0), Qt.Key.Key_Up: (0, -1), Qt.Key.Key_Down: (0, 1)}


class HandleEditor(QWidget):
    """Drag with the mouse; Space chooses a mark and the arrow keys move it (Shift: ten times as far)."""

    handles_changed = Signal()

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._colours = colours
        self._image, self._shown = QImage(), QImage()
        self._marks = FaceMarks({}, (1, 1))
        self._current = ""
        self._is_dragging = False
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(360, 360)
        self.setAccessibleName("Face marks")
        self.setAccessibleDescription(_HELP)

    def set_portrait(self, image: QImage, size: tuple[int, int], handles: dict[str, tuple[float, float]]) -> None:
        """Show `image` (of any size) of a portrait of `size` (width, height) px with `handles` in its px."""
        self._image, self._shown = image, QImage()
        self._marks = FaceMarks(handles, size)
        self._choose(next(iter(self._marks.names()), ""))

    @property
    def handles(self) -> dict[str, tuple[float, float]]:
        """The marks as they are now, in portrait px."""
        return dict(self._marks.handles)

    @property
    def current(self) -> str:
        """The mark that the keyboard moves."""
        return self._current

    def position_of(self, name: str) -> QPointF:
        """Where a mark is in this widget."""
        area, scale = self._frame()
        x, y = self._marks.position(name)
        return QPointF(area.left() + (x + 0.5) * scale, area.top() + (y + 0.5) * scale)

    def _frame(self) -> tuple[QRectF, float]:
        width, height = self._marks.size
        scale = min(self.width() / width, self.height() / height)
        shown = QRectF(0, 0, width * scale, height * scale)
        shown.moveCenter(QRectF(self.rect()).center())
        return shown, scale

    def _choose(self, name: str) -> None:
        self._current = name
        self.setAccessibleDescription(f"{LABELS.get(name, name)}. {_HELP}" if name else _HELP)
        self.update()

    # ---------------------------------------------------------------------------------------------- painting

    def paintEvent(self, _event) -> None:
        if self._image.isNull():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area, scale = self._frame()
        painter.drawImage(area, self._picture(area.size().toSize()))
        for name in self._marks.names():
            if name.endswith("_size"):
                self._paint_eye(painter, name, scale)
        for name in self._marks.names():
            self._paint_mark(painter, name)
        if self._current:
            self._paint_label(painter)

    def _picture(self, size: QSize) -> QImage:
        """Scaled once per size: marks are repainted with each movement of the mouse."""
        size = size * self.devicePixelRatioF()
        if self._shown.size() != size:
            ways = Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation
            self._shown = self._image.scaled(size, *ways)
        return self._shown

    def _paint_eye(self, painter: QPainter, name: str, scale: float) -> None:
        width, height = self._marks.handles[name]
        (cos, sin), _down = self._marks.axes()
        painter.save()
        painter.translate(self.position_of(name.removesuffix("_size")))
        painter.rotate(math.degrees(math.atan2(sin, cos)))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for colour, pen_px in (("#000000", 3.0), ("#ffffff", 1.6)):
            painter.setPen(QPen(QColor(colour), pen_px))
            painter.drawEllipse(QPointF(0, 0), width * scale / 2, height * scale / 2)
        painter.restore()

    def _paint_mark(self, painter: QPainter, name: str) -> None:
        is_current = name == self._current
        spot, radius = self.position_of(name), 8 if is_current else 6
        ring = self._colours.warn if is_current and self.hasFocus() else "#ffffff"
        painter.setPen(QPen(QColor(ring), 3 if is_current else 2))
        painter.setBrush(QColor(self._colours.accent))
        if name.endswith("_size"):
            side = 2 * radius - 3
            painter.drawRect(QRectF(spot.x() - side / 2, spot.y() - side / 2, side, side))
        else:
            painter.drawEllipse(spot, radius, radius)

    def _paint_label(self, painter: QPainter) -> None:
        text = LABELS.get(self._current, self._current)
        spot = self.position_of(self._current)
        width = painter.fontMetrics().horizontalAdvance(text) + 16
        left = min(spot.x() + 12, self.width() - width)
        box = QRectF(left, max(0.0, spot.y() - 34), width, 22)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(0, 0, 0, 190))
        painter.drawRoundedRect(box, 6, 6)
        painter.setPen(QColor("#ffffff"))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)

    # ------------------------------------------------------------------------------------- mouse and keyboard

    def _near(self, position: QPointF) -> str:
        spots = {name: self.position_of(name) - position for name in self._marks.names()}
        near = min(spots, key=lambda name: QPointF.dotProduct(spots[name], spots[name]), default="")
        return near if near and QPointF.dotProduct(spots[near], spots[near]) <= _GRAB_PX**2 else ""

    def mousePressEvent(self, event) -> None:
        near = self._near(event.position())
        self._is_dragging = bool(near) and event.button() == Qt.MouseButton.LeftButton
        if self._is_dragging:
            self._offset = self.position_of(near) - event.position()
            self._choose(near)

    def mouseMoveEvent(self, event) -> None:
        if not self._is_dragging:
            shape = Qt.CursorShape.OpenHandCursor if self._near(event.position()) else Qt.CursorShape.ArrowCursor
            self.setCursor(shape)
            return
        area, scale = self._frame()
        spot = event.position() + self._offset - area.topLeft()
        self._move(spot.x() / scale - 0.5, spot.y() / scale - 0.5)

    def mouseReleaseEvent(self, _event) -> None:
        self._is_dragging = False

    def keyPressEvent(self, event) -> None:
        names = self._marks.names()
        if event.key() == Qt.Key.Key_Space and names:
            step = -1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1
            self._choose(names[(names.index(self._current) + step) % len(names)])
        elif event.key() in _STEPS and self._current:
            far = 10 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1
            dx, dy = _STEPS[event.key()]
            x, y = self._marks.position(self._current)
            self._move(x + dx * far, y + dy * far)
        else:
            super().keyPressEvent(event)

    def focusInEvent(self, event) -> None:
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event) -> None:
        super().focusOutEvent(event)
        self.update()

    def _move(self, x: float, y: float) -> None:
        self._marks.move(self._current, x, y)
        self.update()
        self.handles_changed.emit()
