"""What has become of a group of ranks: whether it can be used, and the best explanation of why it cannot."""

from __future__ import annotations

import threading
import time

from engine.errors import GeneratorError, StandinError
from engine.worker import faults
from engine.worker.launcher import Launch
from engine.worker.messages import Fault

_REASON_S = 1.0
"""How long to wait for a true reason once it is known that something has happened."""
_LAST_FRAMES_S = 0.1
"""How long to wait for frames that were sent before the end; what has not come then, somebody else makes."""


class Fate:
    """Shared by all who wait for the ranks; any thread. `launch` is set when they are being started, `fault` is what
    rank 0 said last, `is_lost` is set once nothing more comes from it."""

    def __init__(self) -> None:
        self.is_usable = True
        self.launch: Launch | None = None
        self.fault: Fault | None = None
        self.has_line = False
        self.is_lost = threading.Event()

    def check_usable(self) -> None:
        """Raises `GeneratorError` once the group has been ended."""
        if not self.is_usable:
            raise GeneratorError("The ranks have been stopped.", code="worker.stopped")

    def check(self, deadline_s: float, limit_s: float) -> None:
        """Raises if there is nothing to wait for any more; `limit_s` is what to call the wait until `deadline_s`."""
        self.check_usable()
        if self.is_lost.is_set():
            raise self.explained()
        fault = self.launch.fault() if self.launch is not None else None
        if fault is not None:
            if self.has_line:
                self.is_lost.wait(_LAST_FRAMES_S)  # until all has been read that came before the end
            raise fault.as_error()
        if time.monotonic() > deadline_s:
            raise faults.hangs(limit_s)

    def explained(self, fault: Fault | None = None) -> StandinError:
        """The best explanation: a rank's own words, what its process ended with, or only that it is gone."""
        self.check_usable()
        assert self.launch is not None
        fault = fault or self.fault
        known = [fault] if fault is not None else []
        if fault is None or fault.is_consequence:
            told = self.launch.wait_fault(_REASON_S)
            known = [told, *known] if told is not None else known
        cause = faults.cause_of(known)
        if cause is None:
            return GeneratorError("The connection to the ranks was lost.", code="worker.rank_lost")
        return cause.as_error()
