"""From settings to a prepared generator and its canvas: all that is slow, in any thread."""

from __future__ import annotations

import time

import numpy as np

from engine.canvas import CanvasComposer
from engine.generators.base import Generator, Progress
from engine.generators.factory import create_generator
from engine.media import AudioChunk, Notice, first_sample_of
from engine.portrait.load import load_portrait
from engine.settings import SessionSettings
from engine.stream.runner import Scene

_WARM_UP_CHUNKS = 3


def prepare_scene(settings: SessionSettings, progress: Progress) -> tuple[Scene, list[Notice]]:
    """Load the portrait, prepare its generator and warm it up. Raises what those raise; nothing is left open then."""
    portrait = load_portrait(settings.portrait)
    composer = CanvasComposer(settings.canvas)
    composer.set_backdrop(portrait.image)
    wanted = settings.generator
    generator = create_generator(wanted.name, seed=wanted.seed, fps=settings.fps, options=wanted.options)
    try:
        height, width = portrait.image.shape[:2]
        notices = generator.prepare(portrait, composer.room_for((width, height)), progress)
        generate_s = _warm_up(generator, progress)
    except BaseException:
        generator.close()
        raise
    return Scene(generator=generator, canvas=composer, generate_s=generate_s), [*portrait.notices, *notices]


def _warm_up(generator: Generator, progress: Progress) -> float:
    """Seconds that a chunk takes, the slowest but the first; the generator is as new afterwards."""
    spec = generator.spec
    writer = _Forgetful(spec.width, spec.height)
    samples = np.zeros(first_sample_of(spec.chunk.frames, spec.chunk.fps) + spec.chunk.lookahead_samples, np.float32)
    took_s = []
    for index in range(_WARM_UP_CHUNKS):
        progress.update("warm-up", index, _WARM_UP_CHUNKS, "chunks")
        frame = index * spec.chunk.frames
        chunk = AudioChunk(
            first_frame=frame,
            frames=spec.chunk.frames,
            first_sample=first_sample_of(frame, spec.chunk.fps),
            samples=samples,
            is_discontinuous=index == 0,
        )
        started_s = time.monotonic()
        generator.generate(chunk, writer)
        took_s.append(time.monotonic() - started_s)
    generator.reset()
    progress.update("warm-up", _WARM_UP_CHUNKS, _WARM_UP_CHUNKS, "chunks")
    return max(took_s[1:])


class _Forgetful:
    """A `FrameWriter` whose frames nobody sees."""

    def __init__(self, width: int, height: int) -> None:
        self._image = np.empty((height, width, 3), np.uint8)

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        pass
