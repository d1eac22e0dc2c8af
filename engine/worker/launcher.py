"""The engine's side of starting ranks: on this machine through a supervisor, or by waiting for those of torchrun."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.errors import GeneratorError
from engine.worker.channel import KEY_VARIABLE, Channel, Doorway, check_door, key_from_environment
from engine.worker.messages import Fault, ToEngine, fault_of

logger = logging.getLogger(__name__)

_SUPERVISOR_ENDS_S = 8.0
_LONGEST_FOLDER = 80
"""Bytes, so that a socket in it has a path that the system takes."""


class Launch(Protocol):
    """Ranks that are being started, or run. One thread uses it."""

    def wait(self, timeout_s: float) -> Channel | None:
        """The line to rank 0, once it is there."""
        ...

    def fault(self) -> Fault | None:
        """What is known of why the ranks have ended, if they have."""
        ...

    def wait_fault(self, timeout_s: float) -> Fault | None:
        """The same, given a moment to find out."""
        ...

    def end(self) -> None:
        """Kill what runs and remove what is left; may take seconds. Safe to call twice."""
        ...


class LocalRanks:
    """`ranks` processes on this machine; `gpus` as in CUDA_VISIBLE_DEVICES, empty for all; the rest as in
    `GroupSettings`. They are gone when this process is, whatever way it ends."""

    def __init__(
        self, *, ranks: int, gpus: str, timeout_s: float, load_timeout_s: float, still_s: float, is_background: bool
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="standin-ranks-", dir=_short_folder()))
        self._fault: Fault | None = None
        self._is_over = threading.Event()
        self.pids: dict[int, int] = {}
        key = secrets.token_bytes(32)
        self._door = Doorway(_address(self._folder), key, ToEngine)
        config = {
            "folder": str(self._folder),
            "engine": self._door.address,
            "ranks": ranks,
            "gpus": gpus,
            "timeout_s": timeout_s,
            "load_timeout_s": load_timeout_s,
            "still_s": still_s,
            "is_background": is_background,
        }
        self._log = self._folder / "supervisor.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.worker.supervisor", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=os.environ | {KEY_VARIABLE: key.hex()},
                # An interrupt from the keyboard is the engine's alone: it ends the ranks in its own order.
                start_new_session=sys.platform != "win32",
            )
        self._listener = threading.Thread(target=self._listen, name="ranks-reports", daemon=True)
        self._listener.start()

    def wait(self, timeout_s: float) -> Channel | None:
        """See `Launch`."""
        return self._door.wait(timeout_s)

    def fault(self) -> Fault | None:
        """See `Launch`."""
        return self._fault if self._is_over.is_set() else None

    def wait_fault(self, timeout_s: float) -> Fault | None:
        """See `Launch`."""
        self._is_over.wait(timeout_s)
        return self.fault()

    def end(self) -> None:
        """See `Launch`."""
        self._door.close()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_SUPERVISOR_ENDS_S)
        except subprocess.TimeoutExpired:
            logger.warning("the supervisor of the ranks does not end; it is killed, and its ranks with it")
            process.kill()
            process.wait()
        self._listener.join(2.0)
        process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        is_done = False
        for line in self._process.stdout:
            try:
                is_done = self._take(json.loads(line)) or is_done
            except (ValueError, TypeError, AttributeError, RecursionError, msgspec.ValidationError):
                logger.warning("the supervisor of the ranks said %r", line[:200])
        if self._fault is None and not is_done:
            self._fault = self._own_end()
        self._is_over.set()

    def _take(self, message: dict[str, Any]) -> bool:
        """Whether the supervisor says that it has done what it was to do."""
        if "started" in message:
            self.pids = {int(rank): int(pid) for rank, pid in message["started"].items()}
        elif "fault" in message:
            self._fault = msgspec.convert(message["fault"], Fault)
            self._is_over.set()
        return "done" in message

    def _own_end(self) -> Fault:
        """The supervisor ended without a word."""
        with contextlib.suppress(OSError):
            logger.info("supervisor of the ranks: %s", self._log.read_text(errors="replace")[-4000:])
        error = GeneratorError("The process that watches the ranks ended unexpectedly.", code="worker.supervisor_died")
        return fault_of(error)


class AwaitedRanks:
    """Ranks that somebody else starts, with torchrun, and that come to `address`, a socket in a private folder.

    Raises `GeneratorError` where that cannot be.
    """

    def __init__(self, address: str) -> None:
        check_door(address)
        self._door = Doorway(address, key_from_environment(), ToEngine)

    def wait(self, timeout_s: float) -> Channel | None:
        """See `Launch`."""
        return self._door.wait(timeout_s)

    def fault(self) -> Fault | None:
        """Nothing: who started them knows."""
        return None

    def wait_fault(self, timeout_s: float) -> Fault | None:
        """Nothing, at once."""
        return None

    def end(self) -> None:
        """They end by themselves when their line does."""
        self._door.close()


def _short_folder() -> str | None:
    """The usual folder for temporary files unless its path is too long for a socket."""
    usual = tempfile.gettempdir()
    return "/tmp" if sys.platform != "win32" and len(os.fsencode(usual)) > _LONGEST_FOLDER - 24 else None


def _address(folder: Path) -> str:
    return rf"\\.\pipe\{folder.name}" if sys.platform == "win32" else str(folder / "engine")
