"""One correction of a face's marks: the dialog at once, then the picture and the marks, both made elsewhere."""

from __future__ import annotations

from PySide6.QtCore import QObject
from PySide6.QtGui import QImage

from app.controllers.broadcast import BroadcastController
from app.controllers.portrait_library import PortraitEntry, PortraitLibrary
from app.theme import Theme
from app.windows.handle_dialog import HandleDialog
from engine.protocol import messages as m


class FaceEditing(QObject):
    """Lives as long as the window, on the GUI thread; nothing is decoded or searched there."""

    def __init__(self, window, broadcast: BroadcastController, library: PortraitLibrary, theme: Theme) -> None:
        super().__init__(window)
        self._window, self._broadcast, self._library, self._theme = window, broadcast, library, theme
        self._waiting_for = ""
        self._dialog: HandleDialog | None = None
        self._image: QImage | None = None
        self._found: m.PortraitAnalysed | None = None
        library.picture_ready.connect(self._on_picture)
        broadcast.failed.connect(self._on_failed)

    def open(self, entry: PortraitEntry) -> HandleDialog:
        """Show the dialog, busy until picture and marks are there."""
        self._waiting_for, self._image, self._found = entry.ref, None, None
        self._dialog = HandleDialog(self._theme.colours, entry.ref, self._window)
        self._dialog.stored.connect(self._broadcast.store_handles)
        self._dialog.finished.connect(self._on_finished)
        self._dialog.open()
        self._library.request_picture(entry)
        self._broadcast.analyse(entry.ref)
        return self._dialog

    def takes(self, event: m.PortraitAnalysed) -> bool:
        """Whether these marks were asked for here."""
        if event.portrait != self._waiting_for:
            return False
        self._found = event
        self._show_if_complete()
        return True

    def _on_picture(self, ref: str, image: QImage) -> None:
        if ref == self._waiting_for and image.isNull():
            self._give_up("The picture cannot be shown.")
        elif ref == self._waiting_for:
            self._image = image
            self._show_if_complete()

    def _on_failed(self, part: str, reason: m.Reason) -> None:
        if part == "analysis" and self._waiting_for:
            self._give_up(f"{reason.message} {reason.hint}".strip())

    def _give_up(self, text: str) -> None:
        self._waiting_for = ""
        if self._dialog:
            self._dialog.set_problem(text)

    def _show_if_complete(self) -> None:
        if self._dialog and self._image is not None and self._found is not None:
            found = self._found
            self._waiting_for = ""
            self._dialog.set_face(self._image, (found.width, found.height), found.handles, found.has_face)

    def _on_finished(self) -> None:
        self._waiting_for = ""
        self._dialog = self._image = self._found = None
