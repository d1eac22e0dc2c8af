"""Memory and open files of the product's processes, every few seconds of a run."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stage import family_of

_FEWEST, _SOME = 8, 3
_PAGE_MB = mmap.PAGESIZE / (1 << 20)


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
    """Of the process of a role that lived longest. `quiet_mb` is what it has grown by in the times between the faults,
    all together; `later_mb` by how much it has at the end more than after the first round of faults, or, if there was
    only one, than at the start."""

    role: str
    minutes: float
    memory_mb: float
    quiet_mb: float
    later_mb: float
    files: int
    files_later: int


def growths(samples: list[Sample], busy: list[tuple[float, float]], round_end_s: float) -> list[Growth]:
    """`busy` are the times of the faults, with the time that they have an effect."""
    found = []
    for role in sorted({sample.role for sample in samples}):
        lives = [[s for s in samples if s.pid == pid] for pid in {s.pid for s in samples if s.role == role}]
        life = max(lives, key=len)
        if len(life) >= _FEWEST:
            found.append(_growth(role, life, busy, round_end_s))
    return found


def _growth(role: str, life: list[Sample], busy: list[tuple[float, float]], round_end_s: float) -> Growth:
    borders = [life[0].at_s, *(at_s for span in busy for at_s in span), life[-1].at_s + 1.0]
    spans = zip(borders[::2], borders[1::2], strict=True)
    quiet = [[s.memory_mb for s in life if start <= s.at_s < end] for start, end in spans]
    before = [s for s in life if s.at_s >= round_end_s][:_SOME] or life[:_SOME]
    last = life[-_SOME:]
    return Growth(
        role=role,
        minutes=(life[-1].at_s - life[0].at_s) / 60,
        memory_mb=float(np.median([s.memory_mb for s in last])),
        quiet_mb=sum(part[-1] - part[0] for part in quiet if part),
        later_mb=float(np.median([s.memory_mb for s in last]) - np.median([s.memory_mb for s in before])),
        files=int(np.median([s.files for s in last])),
        files_later=int(np.median([s.files for s in last]) - np.median([s.files for s in before])),
    )
