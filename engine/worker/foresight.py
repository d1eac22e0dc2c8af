"""What rank 0 does alone for a further stream, in a thread beside the stream that runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import Cancelled
from engine.generators.base import Progress
from engine.worker import faults
from engine.worker.channel import LineClosed
from engine.worker.engine_line import EngineLine
from engine.worker.memory import portrait_of
from engine.worker.messages import Prepare, Refused
from engine.worker.progress_board import OwnBoard, ProgressBoard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """A portrait that has been looked at ahead, and the generator that did it and knows what it has seen."""

    command: Prepare
    pixels: np.ndarray
    generator: Any


class Foresight:
    """Portraits that are looked at ahead; one thread uses this, and each portrait has another one."""

    def __init__(self, line: EngineLine, timeout_s: float) -> None:
        self._line, self._timeout_s = line, timeout_s
        self._wanted: set[int] = set()

    def begin(self, generator: Any, command: Prepare, pixels: np.ndarray) -> None:
        """Let `generator` `foresee` the portrait. The command then comes again among the engine's, as a `Foreseen`; one
        that is refused does not, and the engine is told."""
        self._wanted.add(command.stream)
        threading.Thread(target=self._look, args=(generator, command, pixels), name="foresee", daemon=True).start()

    def forget(self, stream: int) -> bool:
        """Whether that stream was wanted until now; it is not any more."""
        was_wanted = stream in self._wanted
        self._wanted.discard(stream)
        return was_wanted

    def _look(self, generator: Any, command: Prepare, pixels: np.ndarray) -> None:
        try:
            with ProgressBoard(OwnBoard(), "foresee", self._line.send) as progress:
                wanted = _While(progress, lambda: command.stream in self._wanted)
                generator.foresee(portrait_of(command.portrait, pixels), wanted)
        except Cancelled:
            logger.info("a further stream is not wanted any more")
        except Exception as error:
            logger.exception("a further stream cannot be begun")
            fault = faults.fault_from(error, 0, self._timeout_s)
            with contextlib.suppress(LineClosed):
                self._line.send(Refused(number=command.number, fault=fault))
        else:
            self._line.commands.put(Foreseen(command=command, pixels=pixels, generator=generator))


class _While:
    """A `Progress` that hands on, and raises `Cancelled` once that is not wanted any more."""

    def __init__(self, progress: Progress, is_wanted: Callable[[], bool]) -> None:
        self._progress, self._is_wanted = progress, is_wanted

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`."""
        if not self._is_wanted():
            raise Cancelled("This portrait is not wanted any more.")
        self._progress.update(stage, done, total, unit)
