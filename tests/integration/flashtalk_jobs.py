"""A whole FlashTalk generator on one rank of several, and all that it makes."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.generators.flashtalk import feature_cache
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.media import AudioChunk, Portrait
from engine.parallel.launch import RankGroup
from tests.fixtures.weight_reads import WeightReads

_GROUPS = {}


class _Kept:
    """A `FrameWriter` that keeps everything, and a `Progress` that says nothing."""

    def __init__(self, height, width) -> None:
        self.image, self.frames = np.zeros((height, width, 3), np.uint8), []

    def next_image(self):
        return self.image

    def commit(self, frame) -> None:
        assert frame == len(self.frames)
        self.frames.append(self.image.copy())

    def update(self, stage, done, total, unit="") -> None:
        pass


def stream(world, options, folders, chunks=0, seed=0):
    """By rank its latents and last motion latents of each chunk, the frames (rank 0), the set-up weights that it read,
    and what was logged. `folders` are the ranks' caches; `world` is None for one rank without any group."""
    rank, group = (0, None) if world is None else (world.rank(), _group(world))
    draw = np.random.default_rng(seed)
    portrait = Portrait(image=draw.integers(0, 256, (60, 40, 3), dtype=np.uint8), name="", path="", digest=f"d{seed}")
    generator = FlashTalkGenerator(seed=3, group=group, device="cpu", **options)
    kept = _Kept(generator.spec.height, generator.spec.width)
    with _cache_in(Path(folders[rank])), _Log() as log, WeightReads() as reads:
        generator.prepare(portrait, (1, 1), kept)
    made = {"read": reads.of(generator.models.dit)[0], "log": log.lines, "latents": [], "motion": []}
    frames, samples = generator.spec.chunk.frames, generator.spec.chunk.frames * 640
    real = generator._stream.chunk_latents

    def latents_of(*arguments):
        made["latents"].append(real(*arguments).clone())
        return made["latents"][-1].clone()

    generator._stream.chunk_latents = latents_of
    for number in range(chunks):
        sound = (0.1 * draw.standard_normal(samples)).astype(np.float32)
        said = AudioChunk(first_frame=frames * number, frames=frames, first_sample=samples * number, samples=sound)
        generator.generate(said, kept)
        made["motion"].append(generator._stream.motion.clone())
    generator.close()
    return {**made, "frames": np.stack(kept.frames) if kept.frames else None}


def _group(world):
    """Once for each world: process groups are never given back."""
    return _GROUPS.setdefault(world.size(), RankGroup(world))


@contextmanager
def _cache_in(folder):
    before, feature_cache.cache_folder = feature_cache.cache_folder, lambda: folder
    try:
        yield
    finally:
        feature_cache.cache_folder = before


class _Log(logging.Handler):
    """The warnings of a start."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self):
        logging.getLogger("engine").addHandler(self)
        return self

    def __exit__(self, *error) -> None:
        logging.getLogger("engine").removeHandler(self)
