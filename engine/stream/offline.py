"""A clip from a portrait and a sound file, as fast as the machine can: same inputs and seed, same clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from engine.audio.audio_file import AudioFile, to_mono
from engine.canvas import CanvasComposer
from engine.errors import Cancelled
from engine.generators.base import Progress
from engine.generators.factory import create_generator
from engine.media import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    CanvasFormat,
    ChunkSpec,
    Notice,
    Portrait,
    first_sample_of,
)
from engine.settings import CanvasSettings, GeneratorSettings
from engine.sinks.base import PresentedFrame
from engine.sinks.recorder import Recorder


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What was made: frames and seconds of picture, and what the user should know."""

    path: Path
    frames: int
    duration_s: float
    notices: list[Notice]
    is_complete: bool


def render_clip(
    portrait: Portrait,
    audio: AudioFile,
    recorder: Recorder,
    *,
    canvas: CanvasSettings,
    generator: GeneratorSettings,
    fps: int,
    progress: Progress,
) -> Clip:
    """Animate the whole of `audio` into `recorder`'s file. `progress` raising `Cancelled` while frames are made ends
    the clip there, complete up to that frame; everything else is raised as it is."""
    composer = CanvasComposer(canvas)
    composer.set_backdrop(portrait.image)
    height, width = portrait.image.shape[:2]
    maker = create_generator(generator.name, seed=generator.seed, fps=fps, options=generator.options)
    try:
        notices = [*portrait.notices, *maker.prepare(portrait, composer.room_for((width, height)), progress)]
        recorder.open(CanvasFormat(width=canvas.width, height=canvas.height, fps=fps))
        writer = _CanvasWriter(maker.spec.width, maker.spec.height, composer, recorder)
        total = round(audio.duration_s * fps) if audio.duration_s else 0
        is_complete = True
        try:
            for chunk in chunks_of(_heard(audio, recorder), maker.spec.chunk):
                maker.generate(chunk, writer)
                progress.update("frames", writer.frames, max(total, writer.frames), "frames")
        except (Cancelled, KeyboardInterrupt):
            is_complete = False
        finally:
            recorder.close()
    finally:
        maker.close()
    return Clip(
        path=recorder.path,
        frames=writer.frames,
        duration_s=writer.frames / fps,
        notices=[*notices, *audio.notices()],
        is_complete=is_complete,
    )


def chunks_of(sound: Iterator[np.ndarray], spec: ChunkSpec) -> Iterator[AudioChunk]:
    """Cut 16 kHz mono blocks into chunks; the last ones are completed with silence, none is left out."""
    kept = np.zeros(0, np.float32)
    start = frame = 0
    total: int | None = None
    while total is None or first_sample_of(frame, spec.fps) < total:
        first = first_sample_of(frame, spec.fps)
        end = first_sample_of(frame + spec.frames, spec.fps) + spec.lookahead_samples
        kept, start = kept[first - start :], first
        while total is None and start + len(kept) < end:
            block = next(sound, None)
            if block is None:
                total = start + len(kept)
            else:
                kept = np.concatenate([kept, block])
        if total is not None and first >= total:
            return
        missing = max(0, end - start - len(kept))
        samples = np.concatenate([kept[: end - start], np.zeros(missing, np.float32)])
        yield AudioChunk(first_frame=frame, frames=spec.frames, first_sample=first, samples=samples)
        frame += spec.frames


def _heard(audio: AudioFile, recorder: Recorder) -> Iterator[np.ndarray]:
    """The file as the generator hears it; the original goes to the recorder on the way."""
    position = 0
    resampler = soxr.ResampleStream(audio.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in audio.blocks():
        recorder.write_audio(block, position, audio.rate_hz)
        position += len(block)
        yield resampler.resample_chunk(to_mono(block))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


class _CanvasWriter:
    """A `FrameWriter` that puts each frame on the canvas and into the file."""

    def __init__(self, width: int, height: int, composer: CanvasComposer, recorder: Recorder) -> None:
        self.frames = 0
        self._image = np.empty((height, width, 3), np.uint8)
        self._composer = composer
        self._recorder = recorder

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        canvas = self._composer.compose(self._image)
        self._recorder.send(PresentedFrame(image=canvas, tick=frame, frame=frame, due_s=0.0))
        self.frames = frame + 1


class ProgressFunction:
    """Makes a plain function a `Progress`."""

    def __init__(self, function: Callable[[str, float, float, str], None]) -> None:
        self._function = function

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        self._function(stage, done, total, unit)
