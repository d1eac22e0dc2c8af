"""A thread that loads when that is due, and is none while nothing is to be loaded."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Loader:
    """Calls `load` in a thread of its own, which begins when a load is asked for and ends when none `is_wanted` any
    more, or `stopping` is set; then it calls `on_stopped` last. `news` is its owner's lock: it is held by whoever calls
    `ask` or looks at a property, and while `is_wanted` and `on_stopped` are called, but not during `load`."""

    def __init__(
        self,
        news: threading.Condition,
        stopping: threading.Event,
        *,
        is_wanted: Callable[[], bool],
        load: Callable[[], None],
        on_stopped: Callable[[], None],
    ) -> None:
        self._news, self._stopping = news, stopping
        self._is_wanted, self._load, self._on_stopped = is_wanted, load, on_stopped
        self._thread: threading.Thread | None = None
        self._due_s = math.inf

    @property
    def is_planned(self) -> bool:
        """Whether a load has been asked for that has not begun."""
        return self._due_s < math.inf

    @property
    def is_running(self) -> bool:
        """Whether there is a thread, loading or waiting."""
        return self._thread is not None

    def ask(self, wait_s: float) -> None:
        """Load in `wait_s`, whatever was asked for before."""
        self._due_s = time.monotonic() + wait_s
        self._news.notify_all()
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, after `stopping` was set."""
        with self._news:
            thread = self._thread
            self._news.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self) -> None:
        while self._is_due():
            self._load()

    def _is_due(self) -> bool:
        """Waits until it is; false once nothing is to be loaded, and this thread is no more then."""
        with self._news:
            while not self._stopping.is_set() and self._is_wanted() and self.is_planned:
                wait_s = self._due_s - time.monotonic()
                if wait_s <= 0:
                    self._due_s = math.inf
                    return True
                self._news.wait(wait_s)
            self._thread, self._due_s = None, math.inf
            if self._stopping.is_set():
                self._on_stopped()
            return False
