"""The column of portraits: pick, drop, paste, add, remove."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QImage, QKeySequence, QPainter, QPainterPath, QPen, QPixmap
from PySide6.QtWidgets import (
    QApplication,
    QListView,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
)

from app.theme import Palette

_REF, _PIXMAP = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
_TILE = QSize(100, 124)
_PICTURE = 88


class PortraitGallery(QListWidget):
    """Tiles of two columns. Emits references; decides nothing."""

    portrait_picked = Signal(str)
    files_dropped = Signal(list)
    image_dropped = Signal(QImage)
    removal_asked = Signal(str)

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self._delegate = _TileDelegate(colours, self)
        self.setItemDelegate(self._delegate)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setGridSize(_TILE)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setAcceptDrops(True)
        self.setAccessibleName("Portraits")
        self.viewport().setMouseTracking(True)
        self.itemSelectionChanged.connect(self._on_selection)

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._delegate.colours = colours
        self.viewport().update()

    def add(self, ref: str, title: str) -> None:
        """A tile at the end, once per reference."""
        if self._item(ref) is None:
            item = QListWidgetItem(title)
            item.setData(_REF, ref)
            item.setToolTip(title)
            item.setSizeHint(_TILE)
            self.addItem(item)

    def set_thumbnail(self, ref: str, image: QImage) -> None:
        """Give a tile its picture."""
        item = self._item(ref)
        if item:
            item.setData(_PIXMAP, QPixmap.fromImage(image))

    def remove(self, ref: str) -> None:
        """Take a tile away."""
        item = self._item(ref)
        if item:
            self.takeItem(self.row(item))

    def select(self, ref: str) -> None:
        """Mark a tile without telling anybody."""
        item = self._item(ref)
        self.blockSignals(True)
        self.setCurrentRow(self.row(item) if item else -1)
        self.blockSignals(False)
        self.viewport().update()

    def refs(self) -> list[str]:
        """What is shown, in order."""
        return [self.item(i).data(_REF) for i in range(self.count())]

    def _item(self, ref: str) -> QListWidgetItem | None:
        return next((self.item(i) for i in range(self.count()) if self.item(i).data(_REF) == ref), None)

    def _on_selection(self) -> None:
        if self.currentItem():
            self.portrait_picked.emit(self.currentItem().data(_REF))

    def keyPressEvent(self, event) -> None:
        if event.matches(QKeySequence.StandardKey.Paste):
            self.paste()
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace) and self.currentItem():
            self.removal_asked.emit(self.currentItem().data(_REF))
        else:
            super().keyPressEvent(event)

    def paste(self) -> None:
        """Take files or a picture from the clipboard."""
        self._take(QApplication.clipboard().mimeData())

    def dragEnterEvent(self, event) -> None:
        self.dragMoveEvent(event)

    def dragMoveEvent(self, event) -> None:
        if event.mimeData().hasUrls() or event.mimeData().hasImage():
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:
        self._take(event.mimeData())
        event.acceptProposedAction()

    def _take(self, data) -> None:
        paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        if paths:
            self.files_dropped.emit(paths)
        elif data.hasImage():
            self.image_dropped.emit(QImage(data.imageData()))


class _TileDelegate(QStyledItemDelegate):
    """Rounded picture with its name; the chosen one is framed and ticked."""

    def __init__(self, colours: Palette, parent) -> None:
        super().__init__(parent)
        self.colours = colours

    def sizeHint(self, _option, _index) -> QSize:
        return _TILE

    def paint(self, painter: QPainter, option, index) -> None:
        painter.save()
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        rect = QRectF(option.rect)
        box = QRectF(rect.center().x() - _PICTURE / 2, rect.top() + 5, _PICTURE, _PICTURE)
        path = QPainterPath()
        path.addRoundedRect(box, 10, 10)
        painter.fillPath(path, QColor(self.colours.well))
        pixmap = index.data(_PIXMAP)
        if pixmap:
            side = min(pixmap.width(), pixmap.height())
            source = QRectF((pixmap.width() - side) / 2, (pixmap.height() - side) / 4, side, side)
            painter.setClipPath(path)
            painter.drawPixmap(box, pixmap, source)
            painter.setClipping(False)
        is_chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if is_chosen or option.state & QStyle.StateFlag.State_MouseOver:
            painter.setPen(QPen(QColor(self.colours.accent), 3 if is_chosen else 1.5))
            painter.drawPath(path)
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(QColor(self.colours.text), 2))
            painter.drawRoundedRect(box.adjusted(-4, -4, 4, 4), 13, 13)
        if is_chosen:
            self._paint_tick(painter, box)
        font = QFont(painter.font())
        font.setPixelSize(12)
        font.setBold(is_chosen)
        painter.setFont(font)
        painter.setPen(QColor(self.colours.text if is_chosen else self.colours.dim))
        label = QRectF(rect.left() + 4, box.bottom() + 5, rect.width() - 8, 18)
        text = painter.fontMetrics().elidedText(index.data(), Qt.TextElideMode.ElideRight, int(label.width()))
        painter.drawText(label, Qt.AlignmentFlag.AlignCenter, text)
        painter.restore()

    def _paint_tick(self, painter: QPainter, box: QRectF) -> None:
        dot = QRectF(box.right() - 25, box.top() + 5, 20, 20)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self.colours.accent))
        painter.drawEllipse(dot)
        painter.setPen(QPen(QColor(self.colours.on_accent), 2.2))
        painter.drawPolyline([dot.topLeft() + p for p in _tick_points()])


def _tick_points():
    from PySide6.QtCore import QPointF

    return [QPointF(5.5, 10.5), QPointF(8.8, 13.6), QPointF(14.5, 7)]
