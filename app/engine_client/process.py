"""The engine as a child process: start, lines in and out, how it ended, and stopping it for certain."""

from __future__ import annotations

import logging
import sys
from collections import deque
from dataclasses import dataclass

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

logger = logging.getLogger(__name__)

_TAIL_LINES = 60
_MAX_LINE_BYTES = 1 << 20
_STOP_WITHIN_MS = (2_500, 1_000, 1_000)
"""How long an engine may take to end of its own accord, when terminated, and when killed."""


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
    """One run after another of the engine; lives on the GUI thread and never waits, except in `finish`."""

    line_received = Signal(bytes)
    ended = Signal(object)
    stopped = Signal()

    def __init__(
        self, command: list[str] | None = None, parent: QObject | None = None, *,
        stop_within_ms: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parent)
        self._command = command or [sys.executable, "-m", "engine", "serve"]
        self._process: QProcess | None = None
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._tail_pending = b""
        self._pending = b""
        self._stop_within_ms = stop_within_ms or _STOP_WITHIN_MS
        self._rung = -1
        self._ladder = QTimer(self)
        self._ladder.setSingleShot(True)
        self._ladder.timeout.connect(self._climb)

    @property
    def pid(self) -> int:
        """0 while nothing runs."""
        return int(self._process.processId()) if self._process else 0

    def start(self) -> None:
        """Begin a run if none is; `ended` comes in every case, also when the program cannot be started."""
        if self._process is not None:
            return
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._on_output)
        process.readyReadStandardError.connect(self._on_error_text)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._tail.clear()
        self._pending = self._tail_pending = b""
        self._process = process
        process.start(self._command[0], self._command[1:])

    def write(self, line: bytes) -> bool:
        """Hand a line to the engine; False while none runs."""
        if self._process is None or self.is_stopping:
            return False
        return self._process.write(line) == len(line)

    def kill(self) -> None:
        """End a run that no longer answers; `ended` follows."""
        if self._process is not None:
            self._process.kill()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called and the run has not ended yet."""
        return self._rung >= 0

    def stop(self) -> None:
        """End a run for certain, without waiting for it: end of input, after a while terminate, after a while kill.
        `stopped` follows instead of `ended`, at once if nothing runs. Safe to call twice."""
        if self._process is None:
            self.stopped.emit()
        elif not self.is_stopping:
            self._climb()

    def finish(self) -> None:
        """`stop`, and wait for it (at most some seconds): for when no event loop will turn again."""
        self.stop()
        while self._process is not None:
            # Its end, if it comes, is told by `_on_finished`, out of this call.
            if not self._process.waitForFinished(self._stop_within_ms[self._rung]):
                self._climb()

    def _climb(self) -> None:
        process = self._process
        if process is None:
            return
        self._rung += 1
        steps = (process.closeWriteChannel, process.terminate, process.kill)
        if self._rung == len(steps):
            logger.error("the engine could not be ended")
            self._let_go()
            return
        steps[self._rung]()
        self._ladder.start(self._stop_within_ms[self._rung])

    def _let_go(self) -> None:
        process, self._process = self._process, None
        self._ladder.stop()
        self._rung = -1
        if process is not None:
            process.blockSignals(True)
            process.deleteLater()
        self.stopped.emit()

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
        self._tail_pending += bytes(self._process.readAllStandardError().data())
        *lines, self._tail_pending = self._tail_pending.split(b"\n")
        self._tail_pending = self._tail_pending[-_MAX_LINE_BYTES:]
        self._tail.extend(line.rstrip(b"\r") for line in lines)

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self.is_stopping:
            self._let_go()
        elif error == QProcess.ProcessError.FailedToStart:
            self._end(exit_code=-1, has_crashed=True, has_started=False)

    def _on_finished(self, exit_code: int, status: QProcess.ExitStatus) -> None:
        self._on_output()
        self._on_error_text()
        if self.is_stopping:
            self._let_go()
            return
        self._end(exit_code=exit_code, has_crashed=status == QProcess.ExitStatus.CrashExit, has_started=True)

    def _end(self, *, exit_code: int, has_crashed: bool, has_started: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.deleteLater()
        tail = b"\n".join((*self._tail, self._tail_pending)).strip().decode("utf-8", "replace")
        outcome = ProcessOutcome(
            exit_code=exit_code, has_crashed=has_crashed, has_started=has_started, stderr_tail=tail
        )
        logger.info("%s %s", outcome.sentence(), outcome.stderr_tail)
        self.ended.emit(outcome)
