"""What the computer around the small machine has to spare."""

from __future__ import annotations

from pathlib import Path


class HostTime:
    """What the computer around this machine had to spare since this was made. Where it had little, rates say nothing
    about the product."""

    def __init__(self) -> None:
        self._before = len(host_times())

    def was_free(self) -> bool:
        """Whether it had a tenth of its time to spare, all in all."""
        times = host_times()[max(0, self._before - 1) :]
        share = idle_share(times[0], times[-1]) if times else 1.0
        print(f"the computer around was idle for {share:.0%}")
        return share > 0.1

    def was_always_free(self) -> bool:
        """Whether it had that in every two seconds."""
        times = host_times()[max(0, self._before - 1) :]
        least = min((idle_share(*pair) for pair in zip(times, times[4:], strict=False)), default=1.0)
        print(f"the computer around was idle for {least:.0%} of its worst two seconds")
        return least > 0.1


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
