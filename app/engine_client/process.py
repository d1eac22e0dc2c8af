"""The engine as a child process: start, lines in and out, how it ended, and stopping it for certain."""

from __future__ import annotations

import logging
import sys
from collections import deque
from dataclasses import dataclass

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, Signal

logger = logging.getLogger(__name__)

_TAIL_LINES = 60
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ProcessOutcome:
    """How the engine ended. `stderr_tail` holds its last words, for the log and for a report."""

    exit_code: int
    has_crashed: bool
    has_started: bool
    stderr_tail: str

    def sentence(self) -> str:
        """For a person."""
        if not self.has_started:
            return "The engine could not be started."
        return "The engine ended unexpectedly." if self.has_crashed else f"The engine ended with code {self.exit_code}."


class EngineProcess(QObject):
    """One run after another of the engine; lives on the GUI thread and never waits, except in `stop`."""

    line_received = Signal(bytes)
    ended = Signal(object)

    def __init__(self, command: list[str] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._command = command or [sys.executable, "-m", "engine", "serve"]
        self._process: QProcess | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pending = b""

    @property
    def pid(self) -> int:
        """0 while nothing runs."""
        return int(self._process.processId()) if self._process else 0

    def start(self) -> None:
        """Begin a run; `ended` comes in every case, also when the program cannot be started."""
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._on_output)
        process.readyReadStandardError.connect(self._on_error_text)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._tail.clear()
        self._pending = b""
        self._process = process
        process.start(self._command[0], self._command[1:])

    def write(self, line: bytes) -> bool:
        """Hand a line to the engine; False while none runs."""
        if self._process is None:
            return False
        return self._process.write(line) == len(line)

    def kill(self) -> None:
        """End a run that no longer answers; `ended` follows."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """End of input, wait, terminate, wait, kill. No `ended` follows. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.blockSignals(True)
        process.closeWriteChannel()
        if not process.waitForFinished(2500):
            process.terminate()
            if not process.waitForFinished(1000):
                process.kill()
                process.waitForFinished(1000)
        process.deleteLater()

    def _on_output(self) -> None:
        if self._process is None:
            return
        self._pending += bytes(self._process.readAllStandardOutput().data())
        *lines, self._pending = self._pending.split(b"\n")
        if len(self._pending) > _MAX_LINE_BYTES:
            self._pending = b""
        for line in lines:
            if line.strip():
                self.line_received.emit(line)

    def _on_error_text(self) -> None:
        if self._process is None:
            return
        text = bytes(self._process.readAllStandardError().data()).decode("utf-8", "replace")
        self._tail.extend(text.splitlines())

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._end(exit_code=-1, has_crashed=True, has_started=False)

    def _on_finished(self, exit_code: int, status: QProcess.ExitStatus) -> None:
        self._on_output()
        self._on_error_text()
        self._end(exit_code=exit_code, has_crashed=status == QProcess.ExitStatus.CrashExit, has_started=True)

    def _end(self, *, exit_code: int, has_crashed: bool, has_started: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.deleteLater()
        outcome = ProcessOutcome(
            exit_code=exit_code, has_crashed=has_crashed, has_started=has_started, stderr_tail="\n".join(self._tail)
        )
        logger.info("%s %s", outcome.sentence(), outcome.stderr_tail)
        self.ended.emit(outcome)
