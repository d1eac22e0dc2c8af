"""Progress of long work on files, in bytes, over several of them."""

from __future__ import annotations

import time

from engine.progress import Progress

_TICK_S = 0.1


class Meter:
    """Counts bytes of one stage and passes them on; every call may raise `Cancelled`. Not for several threads."""

    def __init__(self, progress: Progress, stage: str, total_bytes: int) -> None:
        self._progress = progress
        self._stage = stage
        self._total_bytes = total_bytes
        self.done_bytes = 0

    def add(self, count_bytes: int) -> None:
        """`count_bytes` more are done; fewer than 0 if something has to be done again."""
        self.done_bytes += count_bytes
        self.tick()

    def tick(self) -> None:
        """Nothing new: a chance to cancel."""
        self._progress.update(self._stage, self.done_bytes, self._total_bytes, "B")

    def wait(self, duration_s: float) -> None:
        """Sleep, ready to be cancelled."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self.tick()
            time.sleep(min(_TICK_S, left_s))


def size_text(size_bytes: float) -> str:
    """For a person: 54.4 GB, 380.3 MB, 2 kB, 160 bytes."""
    for unit, scale, form in (("GB", 1e9, ".1f"), ("MB", 1e6, ".1f"), ("kB", 1e3, ".0f")):
        if size_bytes >= scale:
            return f"{size_bytes / scale:{form}} {unit}"
    return f"{size_bytes:.0f} bytes"
