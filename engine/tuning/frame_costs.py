"""What a generator that runs on the processor costs per frame, and what is done with its frames, on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import soxr

from engine.assets import asset_path
from engine.audio.audio_file import AudioFile, to_mono
from engine.canvas import CanvasComposer
from engine.generators.base import Progress
from engine.generators.factory import create_generator
from engine.media import SAMPLE_RATE_HZ, AudioChunk, CanvasFormat, Portrait, first_sample_of
from engine.settings import CanvasSettings
from engine.sinks.base import PresentedFrame
from engine.sinks.mailbox import Mailbox
from engine.stream.offline import ProgressFunction

FPS = 25
_WARM_UP = 25
Figures = dict[str, dict[str, float]]
"""Stage -> "cpu", "wall" and "wall_p95", or "wall" alone, in ms."""


def filled_portrait(portrait: Portrait, canvas: tuple[int, int]) -> Portrait:
    """A picture of the canvas's shape, as one that fills it."""
    composer = CanvasComposer(CanvasSettings(width=canvas[0], height=canvas[1]))
    composer.set_backdrop(portrait.image)
    side = min(portrait.image.shape[:2])
    square = tuple(canvas[1] * length // side for length in portrait.image.shape[1::-1])
    picture = composer.compose(cv2.resize(portrait.image, square)).copy()
    return replace(portrait, image=picture, annotations={}, person_mask=None, alpha=None)


def generator_figures(
    name: str, portrait: Portrait, room: tuple[int, int], frames: int, progress: Progress, label: str = ""
) -> Figures:
    """Of generator `name` in `room` (width, height): per chunk, and "prepare"."""
    label = label or f"{name} {room[0]}x{room[1]}"
    generator = create_generator(name, seed=1, fps=FPS)
    started_s = time.perf_counter()
    generator.prepare(portrait, room, ProgressFunction(lambda *_: None))
    prepare_s = time.perf_counter() - started_s
    spec = generator.spec
    writer = _OneImage(np.empty((spec.height, spec.width, 3), np.uint8))
    speech = sample_speech()

    def step(index: int) -> None:
        first = first_sample_of(index * spec.chunk.frames, FPS)
        count = first_sample_of(spec.chunk.frames, FPS) + spec.chunk.lookahead_samples
        generator.generate(
            AudioChunk(
                first_frame=index * spec.chunk.frames,
                frames=spec.chunk.frames,
                first_sample=first,
                samples=np.take(speech, np.arange(first, first + count), mode="wrap"),
            ),
            writer,
        )

    times = _measured(step, frames, label, progress)
    generator.close()
    return {label: _summary(times), f"{label} prepare": {"wall": 1000 * prepare_s}}


def canvas_figures(portrait: Portrait, canvas: tuple[int, int], frames: int, progress: Progress) -> Figures:
    """Of putting a frame on the canvas and handing it to one output."""
    width, height = canvas
    composer = CanvasComposer(CanvasSettings(width=width, height=height))
    composer.set_backdrop(portrait.image)
    image = cv2.resize(portrait.image, composer.room_for((portrait.image.shape[1], portrait.image.shape[0])))
    box = Mailbox(_Nowhere(), CanvasFormat(width=width, height=height, fps=FPS))
    composed = composer.compose(image)

    def hand_over(index: int) -> None:
        box.put(PresentedFrame(image=composed, tick=index, frame=index, due_s=0.0))

    figures = {
        f"canvas {width}x{height}": _summary(
            _measured(lambda _: composer.compose(image), frames, f"canvas {width}x{height}", progress)
        ),
        "hand-over to one sink": _summary(_measured(hand_over, frames, "hand-over", progress)),
    }
    box.close()
    return figures


def sample_speech() -> np.ndarray:
    """The sample speech at 16 kHz."""
    file = AudioFile(asset_path("speech/welcome.flac"))
    return soxr.resample(to_mono(file.read_all()), file.rate_hz, SAMPLE_RATE_HZ).astype(np.float32)


def _measured(step: Callable[[int], object], frames: int, stage: str, progress: Progress) -> list[tuple[float, float]]:
    """(CPU ms of this thread, wall ms) of each step after the warm-up."""
    times = []
    for index in range(frames + _WARM_UP):
        cpu, wall = time.thread_time(), time.perf_counter()
        step(index)
        if index >= _WARM_UP:
            times.append((1000 * (time.thread_time() - cpu), 1000 * (time.perf_counter() - wall)))
            progress.update(stage, len(times), frames, "frames")
    return times


def _summary(times: list[tuple[float, float]]) -> dict[str, float]:
    cpu = [t[0] for t in times]
    wall = sorted(t[1] for t in times)
    return {
        "cpu": round(statistics.median(cpu), 3),
        "wall": round(statistics.median(wall), 3),
        "wall_p95": round(wall[int(0.95 * len(wall))], 3),
    }


class _OneImage:
    """A `FrameWriter` that forgets."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        pass


class _Nowhere:
    """A sink that takes everything."""

    name = "nowhere"

    def open(self, canvas: CanvasFormat) -> None:
        pass

    def send(self, frame: PresentedFrame) -> None:
        pass

    def close(self) -> None:
        pass
