"""Plain neighbours for the parts of a stream: a generator, a canvas and a microphone that do exactly as told."""

from __future__ import annotations

import numpy as np
import pytest

from engine.generators.base import GeneratorSpec
from engine.media import AudioBlock, ChunkSpec
from engine.stream.swap import Scene


class PlainGenerator:
    """Keeps the chunks it gets and writes each frame's number into its picture; `during` runs inside `generate`."""

    def __init__(self, *, fps=25, frames=1, lookahead_samples=0, size=(8, 4), name="plain"):
        chunk = ChunkSpec(fps=fps, frames=frames, lookahead_samples=lookahead_samples)
        self.spec = GeneratorSpec(name=name, width=size[0], height=size[1], chunk=chunk)
        self.chunks, self.closed, self.during, self.notices = [], 0, lambda: None, []

    def check(self):
        pass

    def prepare(self, portrait, size, progress):
        progress.update("prepare", 0, 1)
        self.portrait = portrait
        return []

    def generate(self, chunk, frames):
        self.chunks.append(chunk)
        self.during()
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            frames.next_image()[:] = frame % 251
            frames.commit(frame)

    def take_notices(self):
        taken, self.notices = self.notices, []
        return taken

    def reset(self):
        pass

    def close(self):
        self.closed += 1


class PlainCanvas:
    """Shows the picture as it is."""

    @staticmethod
    def compose(image):
        return image


class PlainSource:
    """A microphone that delivers the blocks it is given, one for each `read`."""

    channels, label, has_ended, overflows = 1, "plain", False, 0

    def __init__(self, rate_hz=16_000):
        self.rate_hz = rate_hz
        self.blocks, self.stopped, self._position = [], 0, 0

    def say(self, samples, captured_at_s):
        """Queue float32 (n,) or (n, channels), captured then."""
        samples = np.asarray(samples, np.float32)
        samples = samples[:, None] if samples.ndim == 1 else samples
        self.blocks.append(
            AudioBlock(first_sample=self._position, samples=samples, rate_hz=self.rate_hz, captured_at_s=captured_at_s)
        )
        self._position += len(samples)

    def start(self, clock):
        pass

    def read(self):
        return self.blocks.pop(0) if self.blocks else None

    def stop(self):
        self.stopped += 1


@pytest.fixture
def plain_generator():
    """The class, so that a test can make several."""
    return PlainGenerator


@pytest.fixture
def plain_source():
    """The class of a microphone."""
    return PlainSource


@pytest.fixture
def scene_of():
    """Makes a scene of a generator."""

    def make(generator, generate_s=0.008, canvas=PlainCanvas):
        return Scene(generator=generator, canvas=canvas, generate_s=generate_s, first_frame_s=generate_s)

    return make
