"""Finished frames on their way from the generator to the pacer, in memory that is reused."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np


class FrameQueue:
    """Up to `slots` frames in order. The generator's thread writes (`FrameWriter`), the pacer takes.

    When it is full, the oldest frame that has not been taken is overwritten and counted in `dropped`. The picture
    that `take_due` returned stays the pacer's until its next call. `scene` is whatever the writer wants to travel
    with the frames that follow (the canvas they belong on), `last_frame` the newest one committed (and not discarded),
    -1 before. `is_emptied` says that nothing has been committed since all that waited was discarded.
    """

    def __init__(self, slots: int) -> None:
        assert slots >= 2, slots
        self._slots = slots
        self._lock = threading.Lock()
        self.scene: Any = None
        self._waiting: deque[tuple[int, np.ndarray, Any]] = deque()
        self._free: list[np.ndarray] = []
        self._writing: np.ndarray | None = None
        self._shown: tuple[int, np.ndarray, Any] | None = None
        self._shape = (0, 0, 3)
        self.last_frame = -1
        self.dropped = 0
        self._is_discarding = False
        self.is_emptied = False

    def set_size(self, width: int, height: int) -> None:
        """Frames written from now on have this size; waiting ones keep theirs. Called by the writer between frames."""
        if self._shape == (height, width, 3):
            return
        with self._lock:
            self._shape = (height, width, 3)
            # One is being written and one shown beside those that wait.
            self._free = [np.zeros(self._shape, np.uint8) for _ in range(self._slots + 2)]
            self._writing = None

    def next_image(self) -> np.ndarray:
        """See `FrameWriter`."""
        with self._lock:
            if self._writing is None:
                if not self._free and self._waiting:
                    self._recycle(self._waiting.popleft()[1])
                    self.dropped += 1
                self._writing = self._free.pop() if self._free else np.zeros(self._shape, np.uint8)
            return self._writing

    def commit(self, frame: int) -> None:
        """See `FrameWriter`."""
        with self._lock:
            assert self._writing is not None and (not self._waiting or self._waiting[-1][0] < frame)
            if self._is_discarding:
                self.dropped += 1  # the picture's memory is simply written again
                return
            if len(self._waiting) == self._slots:
                self._recycle(self._waiting.popleft()[1])
                self.dropped += 1
            self._waiting.append((frame, self._writing, self.scene))
            self._writing = None
            self.last_frame = frame
            self.is_emptied = False

    def take_due(self, frame: int) -> tuple[int, np.ndarray, Any, int] | None:
        """(number, picture, scene, skipped): the newest waiting frame whose number is at most `frame`, and how many
        older ones it replaced unseen; None if there is none."""
        with self._lock:
            skipped = -1
            while self._waiting and self._waiting[0][0] <= frame:
                if self._shown is not None:
                    self._recycle(self._shown[1])
                self._shown = self._waiting.popleft()
                skipped += 1
            if skipped < 0 or self._shown is None:
                return None
            return (*self._shown, skipped)

    def clear(self) -> None:
        """Forget what waits (not what is shown)."""
        with self._lock:
            while self._waiting:
                self._recycle(self._waiting.popleft()[1])

    def discard(self) -> None:
        """Forget what waits, and what is committed until `accept`; all of it counts as dropped. Any thread."""
        with self._lock:
            self.dropped += len(self._waiting)
            while self._waiting:
                self._recycle(self._waiting.popleft()[1])
            self.last_frame = self._shown[0] if self._shown is not None else -1
            self._is_discarding = self.is_emptied = True

    def accept(self) -> None:
        """What is committed from now on is shown again. Called by the writer, between frames."""
        with self._lock:
            self._is_discarding = False

    def newest(self) -> int | None:
        """Number of the newest waiting frame."""
        with self._lock:
            return self._waiting[-1][0] if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def _recycle(self, image: np.ndarray) -> None:
        if image.shape == self._shape:
            self._free.append(image)
