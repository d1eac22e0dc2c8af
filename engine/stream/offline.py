"""A clip from a portrait and a sound file, as fast as the machine can: same inputs and seed, same clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr  # pyright: ignore[reportMissingTypeStubs]

from engine.audio.audio_file import AudioFile, to_mono
from engine.canvas import CanvasComposer
from engine.errors import Cancelled
from engine.generators.base import GeneratorSpec, Progress
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
        maker.check()
        notices = [*portrait.notices, *maker.prepare(portrait, composer.room_for((width, height)), progress)]
        recorder.open(CanvasFormat(width=canvas.width, height=canvas.height, fps=fps))
        heard = _Heard(audio, recorder)
        writer = _CanvasWriter(maker.spec, composer, recorder, heard)
        total = round(audio.duration_s * fps) if audio.duration_s else 0
        is_complete = True
        try:
            for chunk in chunks_of(iter(heard), maker.spec.chunk):
                maker.generate(chunk, writer)
                notices += maker.take_notices()
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


class _Heard:
    """The file as the generator hears it, 16 kHz mono; the original goes to the recorder on the way. `total` is its
    length in samples, once it has ended."""

    def __init__(self, audio: AudioFile, recorder: Recorder) -> None:
        self._audio, self._recorder = audio, recorder
        self.total: int | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        position = heard = 0
        resampler = soxr.ResampleStream(self._audio.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        for block in self._audio.blocks():
            self._recorder.write_audio(block, position, self._audio.rate_hz)
            position += len(block)
            mono = resampler.resample_chunk(to_mono(block))
            heard += len(mono)
            yield mono
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self.total = heard + len(rest)
        yield rest


class _CanvasWriter:
    """A `FrameWriter` that puts each frame on the canvas and into the file, up to the end of the sound: a chunk may
    reach beyond it."""

    def __init__(self, spec: GeneratorSpec, composer: CanvasComposer, recorder: Recorder, heard: _Heard) -> None:
        self.frames = 0
        self._image = np.empty((spec.height, spec.width, 3), np.uint8)
        self._fps = spec.chunk.fps
        self._composer = composer
        self._recorder = recorder
        self._heard = heard

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        if self._heard.total is not None and first_sample_of(frame, self._fps) >= self._heard.total:
            return
        canvas = self._composer.compose(self._image)
        self._recorder.send(PresentedFrame(image=canvas, tick=frame, frame=frame, due_s=0.0))
        self.frames = frame + 1


class ProgressFunction:
    """Makes a plain function a `Progress`."""

    def __init__(self, function: Callable[[str, float, float, str], None]) -> None:
        self._function = function

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        self._function(stage, done, total, unit)
