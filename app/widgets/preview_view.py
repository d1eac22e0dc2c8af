"""What others see, in its shape, with a frame and a word while it is on air."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.theme import Palette

_RADIUS = 12


class PreviewView(QWidget):
    """Paints the newest picture; mirrored only here, never for others."""

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._colours = colours
        self._image: QImage | None = None
        self._text = "Starting..."
        self.is_mirrored = False
        self._is_on_air = False
        self.frames = 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(320, 180)
        self.setAccessibleName("Preview of what others see")

    def sizeHint(self) -> QSize:
        return QSize(960, 540)

    @property
    def image(self) -> QImage | None:
        """The picture shown now."""
        return self._image

    @property
    def is_waiting(self) -> bool:
        """Whether a text covers the picture."""
        return bool(self._text)

    @property
    def waiting_text(self) -> str:
        """Why there is no picture; empty while there is one."""
        return self._text

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._colours = colours
        self.update()

    def set_image(self, image: QImage) -> None:
        """Show a new picture."""
        self._image = image
        self.frames += 1
        self.update()

    def set_waiting(self, text: str) -> None:
        """Say why there is no picture; the last one stays, dimmed."""
        self._text = text
        self.update()

    def set_on_air(self, is_on_air: bool) -> None:
        """Whether others see this now."""
        self._is_on_air = is_on_air
        self.setAccessibleDescription("On air" if is_on_air else "Not on air")
        self.update()

    def set_mirrored(self, is_mirrored: bool) -> None:
        """Show it as in a mirror."""
        self.is_mirrored = is_mirrored
        self.update()

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        area = self._area()
        path = QPainterPath()
        path.addRoundedRect(area, _RADIUS, _RADIUS)
        painter.fillPath(path, QColor(self._colours.well))
        if self._image:
            self._paint_picture(painter, self._image, area, path)
        if self._text:
            self._paint_text(painter, area, path)
        if self._is_on_air:
            painter.setPen(QPen(QColor(self._colours.on_air), 4))
            painter.drawRoundedRect(area.adjusted(2, 2, -2, -2), _RADIUS, _RADIUS)

    def _area(self) -> QRectF:
        ratio = self._image.width() / self._image.height() if self._image else 16 / 9
        width = min(self.width(), self.height() * ratio)
        height = width / ratio
        return QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height)

    def _paint_picture(self, painter: QPainter, image: QImage, area: QRectF, path: QPainterPath) -> None:
        painter.save()
        painter.setClipPath(path)
        if self.is_mirrored:
            painter.translate(2 * area.center().x(), 0)
            painter.scale(-1, 1)
        painter.drawImage(area, image)
        painter.restore()

    def _paint_text(self, painter: QPainter, area: QRectF, path: QPainterPath) -> None:
        if self._image:
            painter.fillPath(path, QColor(0, 0, 0, 140))
        painter.setPen(QColor("#ffffff" if self._image else self._colours.dim))
        font = painter.font()
        font.setPixelSize(15)
        painter.setFont(font)
        painter.drawText(area, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._text)
