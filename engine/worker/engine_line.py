"""Rank 0's end of the line to the engine, and the `FrameWriter`s of all ranks."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

import numpy as np

from engine.errors import GeneratorError
from engine.worker.channel import Channel, LineClosed
from engine.worker.ending import ENGINE_GONE, leave
from engine.worker.memory import SlotMemory
from engine.worker.messages import Credit, FrameReady, Generate

logger = logging.getLogger(__name__)


class EngineLine:
    """A thread takes what comes: commands into a queue, credits into another; when the engine is gone it ends the
    process, whatever that is doing. Any thread may send."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.commands: queue.Queue[Any] = queue.Queue()
        self.credits: queue.Queue[int] = queue.Queue()
        self.asked_s = 0.0
        """When the last chunk was asked for, whatever this rank was doing then."""
        threading.Thread(target=self._listen, name="engine-line", daemon=True).start()

    def send(self, message: Any) -> None:
        """Raises `LineClosed`."""
        self._channel.send(message)

    def _listen(self) -> None:
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, Credit):
                    self.credits.put(message.slot)
                    continue
                if isinstance(message, Generate):
                    self.asked_s = time.monotonic()
                self.commands.put(message)
        except LineClosed:
            leave(ENGINE_GONE)
        except Exception:
            logger.exception("the engine said something that cannot be understood")
            leave(1)


class SlotWriter:
    """A `FrameWriter` over the slots that are rank 0's; each frame is announced at once."""

    def __init__(self, memory: SlotMemory, line: EngineLine, number: int, timeout_s: float) -> None:
        self._memory, self._line, self._number, self._timeout_s = memory, line, number, timeout_s
        self._slot: int | None = None

    def next_image(self) -> np.ndarray:
        """See `FrameWriter`. Raises `GeneratorError` if the engine gives no slot back."""
        if self._slot is None:
            try:
                self._slot = self._line.credits.get(timeout=self._timeout_s)
            except queue.Empty:
                raise GeneratorError("The engine does not take the frames.", code="worker.engine_hangs") from None
        return self._memory.picture(self._slot)

    def commit(self, frame: int) -> None:
        """See `FrameWriter`."""
        assert self._slot is not None
        slot, self._slot = self._slot, None
        self._line.send(FrameReady(number=self._number, slot=slot, frame=frame))


class NoFrames:
    """A `FrameWriter` for the ranks whose frames nobody needs."""

    def __init__(self, width: int, height: int) -> None:
        self._image = np.empty((height, width, 3), np.uint8)

    def next_image(self) -> np.ndarray:
        """The same memory for all of them."""
        return self._image

    def commit(self, frame: int) -> None:
        """Nothing."""
