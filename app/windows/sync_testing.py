"""The sync test from the window: the page, and the controller that does what it asks."""

from __future__ import annotations

from PySide6.QtCore import QObject

from app.controllers.broadcast import BroadcastController
from app.controllers.sync_test import SyncTestController
from app.engine_client.client import EngineClient
from app.windows.main_window import MainWindow
from app.windows.sync_dialog import SyncDialog
from engine.protocol import messages as m


class SyncTesting(QObject):
    """Opens one page at a time. Lives as long as the window, on the GUI thread."""

    def __init__(self, window: MainWindow, client: EngineClient, broadcast: BroadcastController) -> None:
        super().__init__(window)
        self._window, self._broadcast = window, broadcast
        self._test = SyncTestController(client, broadcast, self)
        self._microphones: list[tuple[str, str, bool]] = []
        client.devices_listed.connect(self._on_devices)

    def open(self) -> SyncDialog:
        """The page for the voice out that is chosen."""
        voice_out = self._broadcast.settings.voice_out
        dialog = SyncDialog(voice_out, self._window.voice_out.currentText(), self._microphones, self._window)
        dialog.test_asked.connect(self._test.begin)
        dialog.stop_asked.connect(self._test.stop)
        self._test.progressed.connect(dialog.show_progress)
        self._test.measured.connect(dialog.show_measured)
        self._test.failed.connect(dialog.show_failed)
        self._test.ended.connect(dialog.show_ended)
        dialog.open()
        return dialog

    def _on_devices(self, event: m.DevicesListed) -> None:
        self._microphones = [(d.name, d.host_api, d.is_default) for d in event.microphones]
