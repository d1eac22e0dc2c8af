"""FlashTalk without its model: the window says so, offers the download, and shows it until FlashTalk takes over."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.controllers.broadcast import BroadcastController
from app.controllers.model_download import ModelDownload, Stage
from app.engine_client.client import EngineClient
from app.windows.main_window import MainWindow
from app.windows.model_dialog import ModelDialog
from app.windows.model_words import progress_words

_PUPPET = "The puppet is shown until it is there."


class ModelOffer(QObject):
    """Opens one page at a time. Lives as long as the window, on the GUI thread."""

    asked = Signal()
    """Somebody wants the page: `open` it."""

    def __init__(self, window: MainWindow, client: EngineClient, broadcast: BroadcastController) -> None:
        super().__init__(window)
        self._window = window
        self.download = ModelDownload(client, broadcast, self)
        self.download.changed.connect(self._show)

    def open(self) -> ModelDialog:
        """The page of the download."""
        dialog = ModelDialog(self.download, self._window)
        dialog.open()
        return dialog

    @property
    def action(self) -> str:
        """What a button that opens the page is to say; empty where there is nothing to offer."""
        if self.download.is_downloading:
            return "Show download..."
        if self.download.missing is None:
            return ""
        has_begun = self.download.stage is Stage.STOPPED or self.download.missing.code == "models.partial"
        return "Go on with the download..." if has_begun else "Download FlashTalk..."

    def _show(self) -> None:
        note, now = self._window.model_note, self.download
        if now.is_downloading:
            what, figures = progress_words(now)
            hint = figures if figures else what
            note.tell("info", "FlashTalk is being downloaded", hint, action="Show...", on_action=self.asked.emit)
        elif now.missing is None:
            note.clear()
        elif now.stage is Stage.THERE:
            hint = "It takes over when your camera and recording are off, or now; the picture then stops for a moment."
            note.tell("info", "FlashTalk is ready", hint, action="Use it now", on_action=now.take_up)
        elif now.stage is Stage.FAILED and now.problem is not None:
            hint = f"{now.problem.message} {_PUPPET}"
            note.tell("warn", "FlashTalk could not be downloaded", hint, action="Show...", on_action=self.asked.emit)
        else:
            hint = f"{now.missing.message} {_PUPPET}"
            note.tell("info", "FlashTalk needs its model", hint, action="Download...", on_action=self.asked.emit)
