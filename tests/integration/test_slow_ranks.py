"""Ranks that take long: a GPU that is only slow is not given up, and one that ends slowly is waited for by the next."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.generators.base import GeneratorSpec
from engine.media import AudioChunk, ChunkSpec, Portrait
from engine.worker import generator as generator_module
from engine.worker import group as group_module
from engine.worker.generator import RankedGenerator
from engine.worker.group_settings import GroupSettings

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, FRAMES = 16, 8, 4
SLOW = f"""
import time
from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec

class Slow:
    spec = GeneratorSpec(name="slow", width={WIDTH}, height={HEIGHT}, chunk=ChunkSpec(fps=25, frames={FRAMES}))
    def __init__(self, *, seed, fps, takes_s):
        self.takes_s = [float(word) for word in takes_s.split()]
    def prepare(self, portrait, size, progress):
        return []
    def generate(self, chunk, frames):
        time.sleep(self.takes_s.pop(0))
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            frames.next_image()[:] = frame
            frames.commit(frame)
    def take_notices(self):
        return []
    def reset(self):
        pass
    def close(self):
        pass
"""
PORTRAIT = Portrait(image=np.zeros((6, 5, 3), np.uint8), name="p", path="p.png", digest="d")

pytestmark = pytest.mark.timeout(400)


class Frames:
    """A `FrameWriter` that counts."""

    def __init__(self) -> None:
        self.committed: list[int] = []

    def next_image(self) -> np.ndarray:
        return np.empty((HEIGHT, WIDTH, 3), np.uint8)

    def commit(self, frame: int) -> None:
        self.committed.append(frame)


class Quiet:
    """A `Progress` that tells nobody."""

    def update(self, stage, done, total, unit) -> None:
        pass


def _chunk(index: int) -> AudioChunk:
    samples = np.zeros(640 * FRAMES, np.float32)
    return AudioChunk(
        first_frame=index * FRAMES, frames=FRAMES, first_sample=index * 640 * FRAMES, samples=samples
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Makes settings for one rank whose chunks take so many seconds each."""
    (tmp_path / "slow_generator.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    spec = GeneratorSpec(
        name="slow", width=WIDTH, height=HEIGHT, chunk=ChunkSpec(fps=25, frames=FRAMES), follows_canvas=False
    )

    def make(takes_s: str, **changes) -> GroupSettings:
        made = GroupSettings(
            generator="slow_generator:Slow", seed=1, fps=25, options=(("takes_s", takes_s),), spec=spec, ranks=1
        )
        return dataclasses.replace(made, **changes)

    return make


@pytest.mark.parametrize("timeout_s", [0.2, 20.0])
def test_a_gpu_that_is_only_slow_is_not_given_up(settings, monkeypatch, timeout_s):
    """Longer than the least patience from the first chunk on, and here longer than `timeout_s`, too."""
    monkeypatch.setattr(group_module, "_LEAST_PATIENCE_S", 0.1)
    generator = RankedGenerator(settings("0.7 0.7 0.7 0.8 0.3", timeout_s=timeout_s))
    frames = Frames()
    try:
        generator.prepare(PORTRAIT, (640, 360), Quiet())
        for index in range(5):
            generator.generate(_chunk(index), frames)
    finally:
        generator.close()
    assert frames.committed == list(range(5 * FRAMES))


def test_the_next_group_is_decided_on_when_the_last_one_has_ended(settings, monkeypatch):
    """Its memory on the GPUs counts as taken until then."""
    wanted = settings("0")
    first = RankedGenerator(wanted)
    first.prepare(PORTRAIT, (640, 360), Quiet())
    group, may_end, told = first._group, threading.Event(), []
    close = group.close
    monkeypatch.setattr(group, "close", lambda: (may_end.wait(60), close(), told.append("ended")))
    closing = threading.Thread(target=first.close)
    closing.start()
    _wait(lambda: generator_module._POOL.find(wanted) is None)
    # Of other settings: it takes the same GPUs.
    second = RankedGenerator(settings("0 0"))
    monkeypatch.setattr(second, "_decided", lambda: (told.append("decided"), second._settings)[1])
    preparing = threading.Thread(target=second.prepare, args=(PORTRAIT, (640, 360), Quiet()))
    preparing.start()
    preparing.join(0.5)
    assert told == []
    may_end.set()
    for thread in (closing, preparing):
        thread.join(60)
    second.close()
    assert told == ["ended", "decided"]


def _wait(condition) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)
