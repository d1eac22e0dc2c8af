"""What happens to the product during a run, one thing after another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stage import Stage, family_of, favour


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`seconds` is how long it lasts. `is_gone` says that there is no camera, or nobody who watches, meanwhile and
    until the next picture. `shifts_sound` says that sound and picture have to find each other anew after it."""

    name: str
    seconds: float
    act: Callable[[], Callable[[], None]]
    is_gone: bool = False
    shifts_sound: bool = False

    def __reduce__(self):
        """What is kept of it says what happened, and not how."""
        return _kept_fault, (self.name, self.seconds, self.is_gone, self.shifts_sound)


def _kept_fault(name: str, seconds: float, is_gone: bool, shifts_sound: bool) -> Fault:
    return Fault(name=name, seconds=seconds, act=lambda: lambda: None, is_gone=is_gone, shifts_sound=shifts_sound)


class Faults:
    """All faults of a session; `pid` is the product's."""

    def __init__(self, stage: Stage, pid: int, watcher_pid_file: Path, disk: Path | None) -> None:
        self._stage, self._pid, self._watcher, self._disk = stage, pid, watcher_pid_file, disk

    def of_live(self, *, is_short: bool, is_last_round: bool) -> list[Fault]:
        """Those that `standin live` is put to."""
        scale = 0.4 if is_short else 1.0
        made = [
            Fault(name="CPU starved", seconds=20 * scale, act=self._starve),
            Fault(name="camera reader stuck", seconds=10 * scale, act=self._stop_watcher, is_gone=True),
            Fault(name="sound server restarted", seconds=4, act=self._restart_sound, shifts_sound=True),
            Fault(name="generator 3x too slow", seconds=20 * scale, act=self._slow_down, shifts_sound=True),
            Fault(name="suspended", seconds=30 * scale, act=self._suspend, is_gone=True, shifts_sound=True),
        ]
        if self._stage.has_clock:
            made.insert(2, Fault(name="wall clock stepped", seconds=10 * scale, act=self._step_clock))
        if is_last_round and self._disk is not None:
            made.append(Fault(name="disk full", seconds=5, act=self._fill_disk))
        return made

    def _starve(self) -> Callable[[], None]:
        """A job of somebody else's with two busy processes for each core."""
        one = f"{sys.executable} -c 'while True: pass' & "
        job = subprocess.Popen(["sh", "-c", one * 2 * (os.cpu_count() or 1) + "wait"], start_new_session=True)
        favour(job.pid)

        def end() -> None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()

        return end

    def _stop_watcher(self) -> Callable[[], None]:
        pid = int(self._watcher.read_text())
        os.kill(pid, signal.SIGSTOP)
        return lambda: _continue(pid)

    def _step_clock(self) -> Callable[[], None]:
        self._stage.step_clock(3600)
        time.sleep(2)
        self._stage.step_clock(-5400)
        return lambda: self._stage.step_clock(0)

    def _restart_sound(self) -> Callable[[], None]:
        self._stage.stop_sound()
        return self._stage.start_sound

    def _slow_down(self) -> Callable[[], None]:
        self._stage.slow_file.touch()
        return lambda: self._stage.slow_file.unlink(missing_ok=True)

    def _suspend(self) -> Callable[[], None]:
        """Every process of the product; the servers go on, as they do for a program that is stopped. Who watches keeps
        the camera."""
        self._watcher.with_suffix(".patience").touch()
        pids = list(family_of(self._pid).values())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

        def end() -> None:
            for pid in pids:
                _continue(pid)
            self._watcher.with_suffix(".patience").unlink()

        return end

    def _fill_disk(self) -> Callable[[], None]:
        assert self._disk is not None
        filler = self._disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        return lambda: filler.unlink()


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
