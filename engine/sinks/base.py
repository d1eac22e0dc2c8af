"""What the pacer asks of every place that pictures or sound go to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.media import CanvasFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class PresentedFrame:
    """One picture on its way out: RGB uint8 (height, width, 3), read-only, shared by all sinks.

    `tick` counts output frames since the session went live (it never skips: a held picture is presented again under
    the next number), so `tick / fps` is its time in a recording. `frame` is the generator's frame number, the same as
    in the tick before when held. `due_s` is the monotonic time at which it should be seen.
    """

    image: np.ndarray
    tick: int
    frame: int
    due_s: float


class VideoSink(Protocol):
    """Takes presented frames. Every call comes from the sink's own mailbox thread, which may be slow or block:
    a slow sink misses frames (counted there) and nobody else notices. `open` and `close` are called exactly once."""

    name: str

    def open(self, canvas: CanvasFormat) -> None:
        """Get ready for frames of this size and rate. Raises `CameraError` or `OutputError` with the true cause."""
        ...

    def send(self, frame: PresentedFrame) -> None:
        """Show, store or hand on one frame; the image may be kept only until this returns."""
        ...

    def close(self) -> None:
        """Give the device or file back, complete."""
        ...


class AudioSink(Protocol):
    """Takes the session's sound beside the pictures (the recorder does). Called from the audio thread; must only
    queue. `samples` is float32 (n, channels) at `rate_hz`; `first_sample` counts from the session's start at that
    rate, so `first_sample / rate_hz` is its time on the same scale as `tick / fps`."""

    def write_audio(self, samples: np.ndarray, first_sample: int, rate_hz: int) -> None:
        """Queue one block of sound."""
        ...

    def silence(self) -> None:
        """What has been queued but belongs to pictures that are still to come is silence (mute)."""
        ...
