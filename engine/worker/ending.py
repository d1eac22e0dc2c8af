"""How a rank's process ends: with its last words said to all who can hear them, and never later than its owner."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from engine.worker import faults
from engine.worker.channel import LineClosed
from engine.worker.messages import Fault

if TYPE_CHECKING:
    from engine.worker.engine_line import EngineLine
    from engine.worker.lockstep import Lockstep

ENGINE_GONE = 3
"""Exit status of a rank that has nobody to work for any more."""
_OTHERS_SPEAK_S = 0.5


def leave(status: int) -> None:
    """At once: libraries that wait for other ranks when they are unloaded must not keep this one."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(status)


def end_with_parent(parent: int = 0) -> None:
    """The launcher must not leave ranks behind, not even when it is killed. `parent` is its process number: it may have
    ended before this was called; 0 if it is not known."""
    parent = parent or os.getppid()
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            leave(ENGINE_GONE)
    elif sys.platform != "win32":
        threading.Thread(target=_watch_parent, args=(parent,), name="parent-watch", daemon=True).start()


def report(fault: Fault, lockstep: Lockstep | None, line: EngineLine | None) -> None:
    """Tell everybody who can still listen; what another rank says counts more than that it is gone."""
    with contextlib.suppress(OSError):
        faults.record(fault)
    if lockstep is not None and lockstep.size > 1:
        if not fault.is_consequence:
            with contextlib.suppress(Exception):
                lockstep.note("fault", msgspec.json.encode(fault))
        elif line is not None:
            fault = _cause(fault, lockstep)
    if line is not None:
        with contextlib.suppress(LineClosed):
            line.send(fault)


def _cause(fault: Fault, lockstep: Lockstep) -> Fault:
    deadline_s = time.monotonic() + _OTHERS_SPEAK_S
    while time.monotonic() < deadline_s:
        said = lockstep.faults()
        if said:
            return said[0]
        time.sleep(0.05)
    return fault


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    leave(ENGINE_GONE)
