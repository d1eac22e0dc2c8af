"""Memory and open files of the product's processes, every few seconds of a run."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stage import family_of

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`memory_mb` is what is resident. (The proportional size says more, but reading it stops the process.)"""

    at_s: float
    role: str
    pid: int
    memory_mb: float
    files: int


class Meter:
    """Samples in a thread of its own, between `start` and `stop`."""

    def __init__(self, pid: int, every_s: float) -> None:
        self.samples: list[Sample] = []
        self._pid, self._every_s = pid, every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; `samples` is complete then."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            for role, pid in family_of(self._pid).items():
                with contextlib.suppress(OSError, IndexError):
                    self.samples.append(_sample(role, pid))


def _sample(role: str, pid: int) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(at_s=time.monotonic(), role=role, pid=pid, memory_mb=pages * _PAGE_MB, files=files)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Of one process: how much it has at the end of the run, and how much more that is than after its start."""

    role: str
    minutes: float
    memory_mb: float
    memory_grown_mb: float
    files: int
    files_grown: int


def growths(samples: list[Sample]) -> list[Growth]:
    """Of each role the process that lived longest: medians of its last quarter against those of its second one. In the
    first quarter caches fill and every device is opened for the first time."""
    found = []
    for role in sorted({sample.role for sample in samples}):
        lives = [[s for s in samples if s.pid == pid] for pid in {s.pid for s in samples if s.role == role}]
        life = max(lives, key=len)
        if len(life) < 8:
            continue
        second, last = life[len(life) // 4 : len(life) // 2], life[-(len(life) // 4) :]
        memory, memory_before = (float(np.median([s.memory_mb for s in part])) for part in (last, second))
        files, files_before = (int(np.median([s.files for s in part])) for part in (last, second))
        found.append(
            Growth(
                role=role, minutes=(life[-1].at_s - life[0].at_s) / 60, memory_mb=memory,
                memory_grown_mb=memory - memory_before, files=files, files_grown=files - files_before,
            )
        )  # fmt: skip
    return found
