"""One thread and a few slots per sink, so that a slow or dead sink hurts only itself."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.errors import StandinError
from engine.media import CanvasFormat
from engine.protocol.messages import SinkStats
from engine.real_time import ask_for_real_time
from engine.sinks.base import PresentedFrame, VideoSink

logger = logging.getLogger(__name__)


class Mailbox:
    """Feeds `sink` from its own thread. `put` copies into one of `slots` preallocated pictures and never waits:
    when all are full the oldest unsent one is overwritten and counted as dropped.

    The sink is opened, fed and closed on that thread, which asks for real-time priority if the sink `is_real_time`. An
    error ends the sink: `error` is set, `on_error` is called once from the mailbox thread, and frames put later are
    ignored. `on_closed` is called last, from there, too.
    """

    def __init__(
        self,
        sink: VideoSink,
        canvas: CanvasFormat,
        *,
        slots: int = 1,
        on_error: Callable[[StandinError], None] | None = None,
        on_closed: Callable[[Mailbox], None] | None = None,
    ) -> None:
        assert slots >= 1, slots
        self.sink = sink
        self.error: StandinError | None = None
        self.has_opened = False
        self._canvas = canvas
        self._on_error, self._on_closed = on_error, on_closed
        # One more than can wait: the sink keeps reading its picture while others arrive.
        self._free = deque(np.zeros((canvas.height, canvas.width, 3), np.uint8) for _ in range(slots + 1))
        self._waiting: deque[PresentedFrame] = deque()
        self._slots = slots
        self._changed = threading.Condition()
        self._is_closing = False
        self._opened, self._closed = threading.Event(), threading.Event()
        self._sent = self._dropped = self._failed = 0
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    def wait_opened(self, timeout_s: float) -> None:
        """Wait until the sink is open; raises the sink's own error, or `StandinError` if it takes longer."""
        if not self._opened.wait(timeout_s):
            raise StandinError(
                f"The {self.sink.name} did not open within {timeout_s:g} seconds.",
                code=f"{self.sink.name}.timeout",
            )
        if self.error is not None:
            raise self.error

    def put(self, frame: PresentedFrame) -> None:
        """Hand over a copy of `frame`; called by the pacer, at most one memory copy, never waits for the sink."""
        if self.error is not None or self._is_closing:
            return
        with self._changed:
            if len(self._waiting) == self._slots:
                image = self._waiting.popleft().image
                self._dropped += 1
            else:
                image = self._free.popleft()
        np.copyto(image, frame.image)
        with self._changed:
            self._waiting.append(replace(frame, image=image))
            self._changed.notify()

    def stats(self) -> SinkStats:
        """Counters since the sink was opened. What a sink knows to have `lost` behind `send` has not been sent."""
        waiting_ms = 1000.0 * len(self._waiting) / self._canvas.fps
        lost = getattr(self.sink, "lost", 0)
        return SinkStats(sent=self._sent - lost, dropped=self._dropped + lost, failed=self._failed, queue_ms=waiting_ms)

    @property
    def is_closed(self) -> bool:
        """Whether the sink has been closed, for whatever reason."""
        return self._closed.is_set()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Send what waits, close the sink and end the thread; false if the sink hangs (its thread is left alone)."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("the sink %s did not close within %g s", self.sink.name, timeout_s)
            return False
        return True

    def _run(self) -> None:
        if getattr(self.sink, "is_real_time", False):
            ask_for_real_time()
        try:
            self.sink.open(self._canvas)
            self.has_opened = True
            self._opened.set()
            self._feed()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: all is reported, nothing lost
            self._fail(error)
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        self._opened.set()
        self._closed.set()
        if self._on_closed is not None:
            self._on_closed(self)

    def _feed(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                frame = self._waiting.popleft()
            try:
                self.sink.send(frame)
                self._sent += 1
            finally:
                with self._changed:
                    self._free.append(frame.image)

    def _fail(self, error: Exception) -> None:
        self._failed += 1
        if self.error is not None:
            logger.warning("the sink %s failed again while closing: %s", self.sink.name, error)
            return
        if not isinstance(error, StandinError):
            logger.error("the sink %s failed", self.sink.name, exc_info=error)
            message = f"The {self.sink.name} stopped because of an internal error: {error}."
            error = StandinError(message, code=f"{self.sink.name}.internal", detail=repr(error))
        self.error = error
        if self._on_error is not None:
            self._on_error(error)
