"""What the computer around the small machine has to spare."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

ENOUGH, PLENTY = 0.1, 0.3
"""What must be idle of a time for the computer to have been free in it, all in all; and of each half second for it to
have been free always. This machine is last in line for a core: with less than that idle, it waits for one."""
LONGEST_WAIT_S = 3.0
"""For the times that are written after something has ended; who writes them is last in line, too."""


class HostTime:
    """What the computer around this machine had to spare since this was made. Where it had little, rates say nothing
    about the product."""

    def __init__(self) -> None:
        self._before = len(host_times())

    def was_free(self) -> bool:
        """Whether it had a tenth of its time to spare, all in all."""
        times = self._times()
        share = idle_share(times[0], times[-1]) if times else 1.0
        print(f"the computer around was idle for {share:.0%}")
        return share > ENOUGH

    def was_always_free(self) -> bool:
        """Whether it had plenty in every half second."""
        least = min((idle_share(*pair) for pair in itertools.pairwise(self._times())), default=1.0)
        print(f"the computer around was idle for {least:.0%} of its worst half second")
        return least > PLENTY

    def _times(self) -> list[tuple[float, float]]:
        """From the last ones before it was made to the first ones after now."""
        end_s, until_now = time.monotonic() + LONGEST_WAIT_S, len(host_times())
        while len(host_times()) == until_now and time.monotonic() < end_s:
            time.sleep(0.1)
        return host_times()[max(0, self._before - 1) :]


def idle_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    idle, total = (now - then for now, then in zip(after, before, strict=True))
    return idle / total if total else 1.0


def host_times() -> list[tuple[float, float]]:
    """(idle, all) seconds of the host's cores so far, twice a second, as run.py writes them."""
    try:
        lines = Path("/out/host_times").read_text().splitlines()
    except OSError:
        return []
    return [(float(idle), float(total)) for idle, total in (line.split() for line in lines)]
