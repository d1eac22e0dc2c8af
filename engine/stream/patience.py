"""How long to wait before a generator that failed is started again."""

from __future__ import annotations

_WAIT_S = (0.5, 2.0, 5.0, 15.0, 60.0)
_GOOD_RUN_S = 60.0


class Patience:
    """Waits grow from failure to failure (the last one stays) and begin anew after a minute of frames: a generator
    that stumbles once an hour is helped at once, one that cannot run at all is tried ever more rarely.

    `frame` is a count of presented frames. Not thread-safe: called by whoever handles failures, one at a time.
    """

    def __init__(self, fps: int) -> None:
        self._good_frames = round(_GOOD_RUN_S * fps)
        self._failures = 0
        self._running_since: int | None = 0

    def failed(self, frame: int) -> float:
        """The generator failed, or could not be started again; returns the seconds to wait before the next try."""
        if self._running_since is not None and frame - self._running_since >= self._good_frames:
            self._failures = 0
        self._running_since = None
        wait_s = _WAIT_S[min(self._failures, len(_WAIT_S) - 1)]
        self._failures += 1
        return wait_s

    def recovered(self, frame: int) -> None:
        """It runs again."""
        self._running_since = frame
