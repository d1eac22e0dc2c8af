"""Whether the machine itself stood still: a virtual one's cores are taken away by its host at times.

    witness.py FILE    "time core late" for each sleep of 10 ms on a core that ended more than 20 ms late

Times are monotonic seconds. One thread for each core sleeps on it, before everything else that runs there. Late is only
what passed until the core woke it; what it waited then is not, since the core worked for others meanwhile (ordinary
programs get 50 ms of each second where real-time ones would take all of it). The first line is "real time N"; or it
says why that is not to be had, and then nothing more comes, since who is late without it proves nothing. Every ten
seconds each core adds a line, late or not, which shows that somebody is looking.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

STEP_S, LATE_S, SAY_EVERY_S = 0.010, 0.020, 10.0
REAL_TIME = "real time"
_STACK_BYTES = 256 * 1024
_ALL_MEMORY = 3
"""MCL_CURRENT | MCL_FUTURE."""


def main() -> None:
    """Until killed."""
    with Path(sys.argv[1]).open("w", buffering=1) as log:
        try:
            priority = _come_first()
            _Wait().total_s()
        except OSError as error:
            log.write(f"no real-time priority, or no account of it: {error}\n")
            return
        log.write(f"{REAL_TIME} {priority}\n")
        # What waits for the disk would look like a core that stands still.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mlockall(_ALL_MEMORY)
        threading.stack_size(_STACK_BYTES)
        threads = [threading.Thread(target=_look, args=(core, log)) for core in os.sched_getaffinity(0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _come_first() -> int:
    """Take the highest priority that is allowed, for the threads to come, too: PipeWire takes up to 88 for its own, and
    the product's must not be able to keep this one waiting."""
    highest = os.sched_get_priority_max(os.SCHED_FIFO)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(highest))
    except OSError:
        import resource  # no other system has it, and who judges reads this module there, too

        highest = min(highest, resource.getrlimit(resource.RLIMIT_RTPRIO)[0])
        if highest <= 0:
            raise
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(highest))
    return highest


class _Wait:
    """How long this thread has been ready without running, by the kernel's account."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def total_s(self) -> float:
        """So far; OSError where the kernel keeps no account."""
        _ran_ns, waited_ns, times = map(int, os.pread(self._file, 100, 0).split())
        if not times:
            raise OSError("this kernel keeps none")
        return waited_ns / 1e9


def _look(core: int, log: TextIO) -> None:
    os.sched_setaffinity(0, {core})  # 0: this thread
    wait = _Wait()
    said_s = 0.0
    while True:
        waited_s, start_s = wait.total_s(), time.monotonic()
        time.sleep(STEP_S)
        now_s = time.monotonic()
        late_s = now_s - start_s - STEP_S - (wait.total_s() - waited_s)
        if late_s > LATE_S or now_s - said_s > SAY_EVERY_S:
            log.write(f"{now_s:.4f} {core} {late_s:.4f}\n")
            said_s = now_s


if __name__ == "__main__":
    main()
