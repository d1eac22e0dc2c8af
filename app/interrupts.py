"""Ctrl-C in the terminal, and the system's wish to end the program, as a signal in Qt's loop."""

from __future__ import annotations

import signal
import socket

from PySide6.QtCore import QObject, QSocketNotifier, Signal


class Interrupts(QObject):
    """From construction to `close`, on the main thread. Python runs its handlers only between two of its own
    instructions, which Qt's loop may not reach for seconds, so a socket wakes it. A second Ctrl-C ends at once."""

    asked_to_end = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._reading, self._writing = socket.socketpair()
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._notifier = QSocketNotifier(self._reading.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._on_wake)
        self._before = {number: signal.signal(number, _pass) for number in (signal.SIGINT, signal.SIGTERM)}
        self._fd_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Give the signals back; safe to call twice."""
        if self._writing.fileno() < 0:
            return
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._notifier.setEnabled(False)
        self._reading.close()
        self._writing.close()

    def _on_wake(self) -> None:
        self._reading.recv(64)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.asked_to_end.emit()


def _pass(_number, _frame) -> None:
    """The socket does the work."""
