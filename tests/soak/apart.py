"""A run on a computer that has other work to do: its programs come before everything, but when the run starves them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import psutil

_PRIORITY = 1
_EVERY_S = 0.5


class Apart:
    """Gives every thread below the processes that `pids` tells real-time priority, again and again for new ones, and
    takes it back between `share` and `part`. Those that have it by themselves keep it. Linux, and root, only."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids
        self._is_shared = False
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin. Raises `PermissionError` where that is not allowed."""
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        self._thread.start()

    def stop(self) -> None:
        """End, and leave everything as it is."""
        if self._thread.is_alive():
            self._ending.set()
            self._thread.join()

    def share(self) -> None:
        """Like everybody else from now on."""
        if self._thread.is_alive():
            self._is_shared = True
            self._give(os.SCHED_RR, os.SCHED_OTHER, 0)

    def part(self) -> None:
        """Before everybody else again."""
        self._is_shared = False

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_S):
            if not self._is_shared:
                self._give(os.SCHED_OTHER, os.SCHED_RR, _PRIORITY)

    def _give(self, before: int, now: int, priority: int) -> None:
        with self._lock:
            for pid in self._pids():
                with contextlib.suppress(psutil.Error, OSError):
                    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                        _give_threads(process.pid, before, now, priority)


def _give_threads(pid: int, before: int, now: int, priority: int) -> None:
    with contextlib.suppress(OSError):
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(thread) == before:
                    os.sched_setscheduler(thread, now, os.sched_param(priority))
