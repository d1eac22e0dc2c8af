"""The loudness of the microphone as a row of segments, with a word beside it."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.theme import Palette

_SEGMENTS = 20
_FLOOR_DB, _WARN_DB, _CLIP_DB = -60.0, -12.0, -3.0


class LevelMeter(QWidget):
    """Shows dBFS from -60 to 0; `word` tells the same in text."""

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._colours = colours
        self._level_dbfs = self._peak_dbfs = -120.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Input level")

    def sizeHint(self) -> QSize:
        return QSize(200, 12)

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._colours = colours
        self.update()

    def set_level(self, level_dbfs: float, peak_dbfs: float) -> None:
        """Show a new measurement."""
        self._level_dbfs, self._peak_dbfs = level_dbfs, peak_dbfs
        self.update()

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        step = self.width() / _SEGMENTS
        for index in range(_SEGMENTS):
            threshold = _FLOOR_DB * (1 - index / _SEGMENTS)
            is_lit = max(self._level_dbfs, self._peak_dbfs - 6) > threshold
            painter.setBrush(QColor(self._colour(threshold) if is_lit else self._colours.well))
            painter.drawRoundedRect(QRectF(index * step, 0, step - 3, self.height()), 2, 2)

    def _colour(self, threshold_db: float) -> str:
        if threshold_db >= _CLIP_DB - 3:
            return self._colours.on_air
        return self._colours.warn if threshold_db >= _WARN_DB else self._colours.good
