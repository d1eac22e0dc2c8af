"""What others see, for the window: the newest frame in shared memory."""

from __future__ import annotations

from engine.media import CanvasFormat
from engine.protocol.shared_memory import FrameWriterMemory
from engine.sinks.base import PresentedFrame


class PreviewSink:
    """A `VideoSink`. `memory_name` is valid once it is open."""

    name = "preview"

    def __init__(self) -> None:
        self._memory: FrameWriterMemory | None = None
        self.memory_name = ""

    def open(self, canvas: CanvasFormat) -> None:
        self._memory = FrameWriterMemory(canvas.width, canvas.height)
        self.memory_name = self._memory.name

    def send(self, frame: PresentedFrame) -> None:
        assert self._memory is not None
        self._memory.write(frame.image, extra=frame.tick)

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
