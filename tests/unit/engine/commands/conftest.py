"""Commands with the real live pipeline and a generator that costs nothing."""

from __future__ import annotations

import pytest
from PIL import Image

from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec
from engine.stream import scene


class GreyGenerator:
    """Grey pictures."""

    def __init__(self, name, *, seed, fps, options):
        self.name, self.seed, self.options = name, seed, options
        self.spec = GeneratorSpec(name=name, width=64, height=64, chunk=ChunkSpec(fps=fps, frames=1))

    def check(self):
        pass

    def prepare(self, portrait, size, progress):
        progress.update("prepare", 1, 1)
        return []

    def generate(self, chunk, frames):
        frames.next_image()[:] = 128
        frames.commit(chunk.first_frame)

    def take_notices(self):
        return []

    def reset(self):
        pass

    def close(self):
        pass


@pytest.fixture
def grey_generator():
    """In the place of `create_generator`."""
    return GreyGenerator


@pytest.fixture
def grey_portrait(tmp_path, monkeypatch):
    """Path of a picture; sessions made while this is in use are generated grey."""
    monkeypatch.setattr(scene, "create_generator", GreyGenerator)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "p.png")
    return tmp_path / "p.png"
