"""The best settings for this computer: found by `standin bench --recommend` while the session is paused."""

from __future__ import annotations

import json
import logging
import sys

from PySide6.QtCore import QObject, QProcess, Signal

from app.controllers.broadcast import BroadcastController
from app.settings.uses import offers

logger = logging.getLogger(__name__)

_FAILED = "This computer could not be measured."


class TuningController(QObject):
    """One measurement at a time, in a process of its own. Lives on the GUI thread."""

    found = Signal(list)
    """What was found: `Offer` for `Offer`."""
    failed = Signal(str)

    def __init__(
        self, broadcast: BroadcastController, parent: QObject | None = None, *, command: list[str] | None = None
    ) -> None:
        super().__init__(parent)
        self._broadcast = broadcast
        self._command = command or [sys.executable, "-m", "engine", "bench", "--recommend", "--json"]
        self._process: QProcess | None = None
        self.is_running = False

    def begin(self) -> None:
        """Pause the session and measure; `found` or `failed` follows."""
        if not self.is_running:
            self.is_running = True
            self._broadcast.pause(self._start)

    def stop(self) -> None:
        """End a measurement that nobody waits for any more."""
        process, self._process = self._process, None
        if process is not None:
            process.finished.disconnect(self._on_finished)
            process.kill()
            process.waitForFinished(1_000)

    def _start(self) -> None:
        process = QProcess(self)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._process = process
        process.start(self._command[0], self._command[1:])

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:  # no `finished` follows
            self._end(_FAILED, b"")

    def _on_finished(self, code: int, _status: QProcess.ExitStatus) -> None:
        assert self._process is not None
        told = bytes(self._process.readAllStandardError().data()).decode(errors="replace").strip()
        out = bytes(self._process.readAllStandardOutput().data())
        self._end("" if code == 0 else told.splitlines()[-1] if told else _FAILED, out)

    def _end(self, problem: str, out: bytes) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        self.is_running = False
        made = [] if problem else _read(out)
        if made:
            self.found.emit(made)
        else:
            logger.warning("measuring this computer failed: %s", problem)
            self.failed.emit(problem or _FAILED)
        self._broadcast.resume()


def _read(out: bytes) -> list:
    try:
        found = json.loads(out)
    except ValueError:
        return []
    return offers(found) if isinstance(found, dict) else []
