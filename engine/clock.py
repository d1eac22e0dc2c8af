"""Time as the pipeline sees it: the real monotonic clock, and one that tests move by hand."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and a wait that an event can end early."""

    def now(self) -> float:
        """Monotonic time in seconds; only differences mean anything."""
        ...

    def wait_until(self, deadline_s: float, wake: threading.Event) -> bool:
        """Wait until `deadline_s` or until `wake` is set; true if it was set."""
        ...


class SystemClock:
    """The machine's monotonic clock, shared by every thread of the process (and by PortAudio on Linux and macOS)."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, deadline_s: float, wake: threading.Event) -> bool:
        return wake.wait(max(0.0, deadline_s - time.monotonic()))


class ManualClock:
    """A clock that stands still until it is moved; waiting moves it, so that minutes pass in milliseconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now_s += seconds

    def wait_until(self, deadline_s: float, wake: threading.Event) -> bool:
        if wake.is_set():
            return True
        self._now_s = max(self._now_s, deadline_s)
        return False
