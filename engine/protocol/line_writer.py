"""Lines on their way to a reader that may stop reading: whoever tells something never waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import BinaryIO

_MOST_PASSING = 8
"""So many lines may wait before those that only say how things stand are left out: two seconds of statistics."""
_MOST = 1000


class LineWriter:
    """Writes from a thread of its own, in order. `write` may be called by any thread; a reader that is gone is no
    error."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_writing = False

    def write(self, line: bytes, *, is_passing: bool = False) -> None:
        """Send a line; one that `is_passing` is left out while the reader is behind."""
        with self._changed:
            if len(self._waiting) >= (_MOST_PASSING if is_passing else _MOST):
                return
            self._waiting.append(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all has been written; false if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_writing, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                line, self._is_writing = self._waiting.popleft(), True
            with contextlib.suppress(OSError, ValueError):  # whoever reads has gone: the end of input follows
                self._output.write(line)
                self._output.flush()
