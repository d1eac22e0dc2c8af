"""The product as it is, but for its generators: the puppet writes a row of marks, and can be told to be slow.

`product.py live ...` is `standin live ...`, `product.py serve` the engine of a window. The puppet is one that writes
marks, and there is "slow", the same, which needs three times as long for a frame as it may while the file
$STANDIN_SOAK_SLOW exists; the puppet is its standby.
"""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import marks

from engine.generators import factory
from engine.generators.base import FrameWriter, GeneratorSpec
from engine.generators.puppet.generator import PuppetGenerator
from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES
from engine.media import AudioChunk, ChunkSpec

SLOW_FILE = "STANDIN_SOAK_SLOW"
_TOO_SLOW = 3.0


class MarkedPuppet(PuppetGenerator):
    """The puppet with a row of marks across its pictures."""

    NAME = "puppet"

    def __init__(self, *, seed: int = 0, fps: int = 25) -> None:
        super().__init__(seed=seed, fps=fps)
        self._frame_s = 1.0 / fps
        self._clicks = marks.ClickFinder()

    @property
    def spec(self) -> GeneratorSpec:
        """The puppet's, under another name."""
        if self._spec is None:  # asked of a generator that waits behind a standby
            chunk = ChunkSpec(fps=round(1 / self._frame_s), frames=1, lookahead_samples=LOOKAHEAD_SAMPLES)
            return GeneratorSpec(name=self.NAME, width=64, height=36, chunk=chunk)
        made = super().spec
        return GeneratorSpec(name=self.NAME, width=made.width, height=made.height, chunk=made.chunk)

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """As the puppet does."""
        super().generate(chunk, _Marker(self._clicks, chunk, frames))

    def reset(self) -> None:
        """Forget all sound."""
        super().reset()
        self._clicks = marks.ClickFinder()


class SlowPuppet(MarkedPuppet):
    """Too slow while the file is there."""

    NAME = "slow"

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """As the puppet does, but later."""
        if os.path.exists(os.environ.get(SLOW_FILE, "")):
            time.sleep(_TOO_SLOW * self._frame_s * chunk.frames)
        super().generate(chunk, frames)


class _Marker:
    """Marks each picture of a chunk on its way to `frames`."""

    def __init__(self, clicks: marks.ClickFinder, chunk: AudioChunk, frames: FrameWriter) -> None:
        self._clicks, self._chunk, self._frames = clicks, chunk, frames
        self._image = None

    def next_image(self):
        self._image = self._frames.next_image()
        return self._image

    def commit(self, frame: int) -> None:
        first = (frame - self._chunk.first_frame) * marks.SAMPLES
        click = self._clicks.find(self._chunk.samples[first : first + marks.SAMPLES])
        marks.write(self._image, frame, click)
        self._frames.commit(frame)


def add_generators() -> None:
    """Make both known to the product, in the place of its own puppet."""
    sys.modules["soak_generators"] = SimpleNamespace(MarkedPuppet=MarkedPuppet, SlowPuppet=SlowPuppet)
    factory._GENERATORS.update(puppet="soak_generators:MarkedPuppet", slow="soak_generators:SlowPuppet")
    factory._STANDBY.update(slow="puppet")


if __name__ == "__main__":
    add_generators()
    from engine.cli import main

    sys.exit(main())
