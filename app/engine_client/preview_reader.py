"""The newest picture of the session, from shared memory, as QImage."""

from __future__ import annotations

import logging

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QImage

from engine.errors import ProtocolError
from engine.protocol.shared_memory import FrameReader

logger = logging.getLogger(__name__)

_EVERY_MS = 20


class PreviewReader(QObject):
    """Looks for a new picture at twice the frame rate; copying one takes well under a millisecond."""

    frame_ready = Signal(QImage)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._reader: FrameReader | None = None
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(_EVERY_MS)
        self._timer.timeout.connect(self._on_tick)

    def open(self, memory_name: str) -> None:
        """Show the pictures in `memory_name` from now on."""
        self.close()
        try:
            self._reader = FrameReader(memory_name)
        except ProtocolError as error:
            logger.warning("%s", error)
            return
        self._timer.start()

    def close(self) -> None:
        """Let go of the memory; safe to call twice."""
        self._timer.stop()
        if self._reader:
            self._reader.close()
            self._reader = None

    def _on_tick(self) -> None:
        found = self._reader.newest() if self._reader else None
        if found:
            image = found[1]
            height, width = image.shape[:2]
            # copy(): the QImage must own its pixels, the array is gone after this call.
            self.frame_ready.emit(QImage(image.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
