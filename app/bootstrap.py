"""The one place that builds the window's objects and connects them."""

from __future__ import annotations

import sys
from pathlib import Path

import shiboken6
from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication

from app.controllers.broadcast import BroadcastController
from app.controllers.portrait_library import PortraitLibrary
from app.engine_client.client import EngineClient
from app.engine_client.preview_reader import PreviewReader
from app.engine_client.process import EngineProcess
from app.interrupts import Interrupts
from app.settings.store import SettingsStore
from app.single_instance import SingleInstance
from app.theme import Theme
from app.windows.main_window import MainWindow
from app.windows.presenter import Presenter
from engine.assets import asset_path


class Application(QObject):
    """Window and engine of one run. Closing the window hides it at once and ends the engine beside; `closed` follows
    when that is done (some seconds at most, also if the engine hangs)."""

    closed = Signal()

    def __init__(
        self, *, settings_path: Path | None = None, library_folder: Path | None = None, command: list[str] | None = None
    ) -> None:
        super().__init__()
        self._is_closing = False
        self.store = SettingsStore(settings_path)
        self.theme = Theme(self.store.settings.theme)
        self.client = EngineClient(EngineProcess(command))
        self.broadcast = BroadcastController(self.client, self.store)
        self.library = PortraitLibrary(library_folder)
        self.reader = PreviewReader()
        self.window = MainWindow(self.theme.colours)
        self.presenter = Presenter(self.window, self.client, self.broadcast, self.library, self.reader, self.theme)
        self.window.setWindowIcon(QIcon(str(asset_path("icon/standin-256.png"))))
        self.window.closing.connect(self.close)
        self.client.closed.connect(self.closed)
        if self.store.problem:
            self.window.banner.tell("warn", self.store.problem)

    def open(self) -> None:
        """Show the window and start the engine."""
        self.client.start()
        self.window.show()

    def show_window(self) -> None:
        """Bring the window to the front."""
        self.window.showNormal()
        self.window.raise_()
        self.window.activateWindow()

    def close(self) -> None:
        """Put the window away and begin to let go of everything; `closed` follows. Safe to call twice."""
        if self._is_closing:
            return
        self._is_closing = True
        self.window.close()
        self.reader.close()
        self.client.close()

    def finish(self) -> None:
        """`close`, and wait for it: for when no event loop will turn again. Safe to call twice."""
        self.close()
        self.client.finish()
        self.library.wait()


def run() -> int:
    """The program, until its window is closed."""
    existing = QApplication.instance()
    qt = existing if isinstance(existing, QApplication) else QApplication(sys.argv[:1])
    qt.setApplicationName("Standin")
    qt.setStyle("Fusion")
    instance = SingleInstance()
    if not instance.is_first():
        sys.stderr.write("Standin is open already; its window comes to the front.\n")
        return 0
    application = Application()
    instance.asked_to_show.connect(application.show_window)
    # Not with the last window: the engine still has to end then, and Qt's loop waits for it without blocking.
    qt.setQuitOnLastWindowClosed(False)
    application.window.closing.connect(instance.close)
    application.closed.connect(qt.quit)
    interrupts = Interrupts()
    interrupts.asked_to_end.connect(application.close)
    application.open()
    status = qt.exec()
    application.finish()
    interrupts.close()
    instance.close()
    # Destroyed here, in order, while Qt is whole: at the interpreter's end some of it would go after its parents.
    shiboken6.delete(application.window)
    return status
