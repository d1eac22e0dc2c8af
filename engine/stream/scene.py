"""From settings to a prepared generator and its canvas: all that is slow, in any thread."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import msgspec
import numpy as np

from engine.canvas import CanvasComposer
from engine.errors import PortraitError, StandinError
from engine.generators.base import Generator, GeneratorSpec, Progress, SmallerSize
from engine.generators.factory import create_generator
from engine.media import AudioChunk, Notice, first_sample_of
from engine.portrait.load import load_portrait
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream.stage import Unless
from engine.stream.swap import Scene

logger = logging.getLogger(__name__)

_WARM_UP_CHUNKS, _WARM_UP_FRAMES = 3, 12
"""The second where a chunk is one frame: that is quickly done. What delays one of them for a moment is the computer,
not the generator, and all of the session would be later for it."""
_ROOM_WITHIN_S, _ROOM_POLL_S = 15.0, 0.5


def prepare_scene(
    settings: SessionSettings, progress: Progress, *, like: Scene | None = None, size: SmallerSize | None = None
) -> tuple[Scene, list[Notice]]:
    """Load the portrait, prepare its generator and warm it up. Raises what those raise; nothing is left open then.

    A generator of a fixed size is not warmed up again beside one that runs (`like`): it would take that one's device.
    With `size`, the generator makes smaller pictures, which the canvas enlarges.
    """
    portrait = load_portrait(settings.portrait)
    composer = CanvasComposer(settings.canvas)
    composer.set_backdrop(portrait.image)
    generator = new_generator(settings, size)
    try:
        height, width = portrait.image.shape[:2]
        notices = generator.prepare(portrait, _room(composer.room_for((width, height)), size), progress)
        if like is not None and like.generator.spec == generator.spec and not generator.spec.follows_canvas:
            generate_s, first_frame_s = like.generate_s, like.first_frame_s
        else:
            generate_s, first_frame_s = _warm_up(generator, progress)
    except BaseException:
        generator.close()
        raise
    scene = Scene(generator=generator, canvas=composer, generate_s=generate_s, first_frame_s=first_frame_s)
    return scene, [*portrait.notices, *notices]


def recomposed(scene: Scene, settings: SessionSettings) -> Scene:
    """The same generator on another canvas, for one whose size does not follow it."""
    composer = CanvasComposer(settings.canvas)
    composer.set_backdrop(load_portrait(settings.portrait).image)
    return replace(scene, canvas=composer)


def new_generator(settings: SessionSettings, size: SmallerSize | None = None) -> Generator:
    """The generator that the settings name, not prepared. Raises `UsageError`, or `GeneratorError` without its
    libraries."""
    wanted = settings.generator
    options = wanted.options if size is None else {**wanted.options, **size.options}
    return create_generator(wanted.name, seed=wanted.seed, fps=settings.fps, options=options)


def examined(settings: SessionSettings) -> GeneratorSpec:
    """What that generator will be, after it has been looked at without being loaded. Raises what `check` does, and
    `GeneratorError` for one that does not know it before it has a portrait."""
    wanted = new_generator(settings)
    try:
        wanted.check()
        return wanted.spec
    finally:
        wanted.close()


def check_room(settings: SessionSettings, size: SmallerSize | None, *, makes_do: bool = False) -> None:
    """Whether that generator could be prepared now, with all that others take of the computer: as it would be if it
    had that to itself, or, if it `makes_do`, at all. Raises what `check` does."""
    wanted = new_generator(settings, size)
    try:
        check = wanted.check if makes_do else getattr(wanted, "check_room", wanted.check)
        check()
    finally:
        wanted.close()


def wait_for_room(
    settings: SessionSettings, size: SmallerSize | None, progress: Unless, stopping: threading.Event
) -> None:
    """Until that generator could be prepared: a process that has ended gives its memory back some time later. Raises
    what makes it impossible for 15 s, and `Cancelled`."""
    give_up_s = time.monotonic() + _ROOM_WITHIN_S
    while True:
        progress.check()
        try:
            check_room(settings, size)
            return
        except StandinError:
            if time.monotonic() > give_up_s:
                # Somebody else has taken it for good: then what there is must do.
                check_room(settings, size, makes_do=True)
                return
        stopping.wait(_ROOM_POLL_S)


def standby_scene(name: str, settings: SessionSettings, progress: Progress) -> Scene | None:
    """The standby of that name, prepared. None where it can make nothing of the portrait: then nothing stands in."""
    settings = msgspec.structs.replace(settings, generator=GeneratorSettings(name=name))
    try:
        scene, _ = prepare_scene(settings, progress)
    except PortraitError as error:
        logger.info("nothing can stand in: %s", error)
        return None
    return scene


def measured_again(scene: Scene, progress: Progress, economy: int) -> Scene:
    """The same scene with what it takes now, in the n-th of its economies; its generator is as new afterwards."""
    generate_s, first_frame_s = _warm_up(scene.generator, progress, economy)
    return replace(scene, generate_s=generate_s, first_frame_s=first_frame_s)


def _room(size: tuple[int, int], smaller: SmallerSize | None) -> tuple[int, int]:
    """Even numbers."""
    width, height = (side * (smaller.room if smaller is not None else 1.0) for side in size)
    return max(2, round(width / 2) * 2), max(2, round(height / 2) * 2)


def _warm_up(generator: Generator, progress: Progress, economy: int = 0) -> tuple[float, float]:
    """Seconds that a chunk takes, and until its frames can be shown at their pace: the slowest but the first chunk (of
    single frames the slowest but one). The generator is as new afterwards."""
    spec = generator.spec
    count = _WARM_UP_FRAMES if spec.chunk.frames == 1 else _WARM_UP_CHUNKS
    writer = _Forgetful(spec.width, spec.height)
    first_frame_s: list[float] = []
    took_s: list[float] = []
    for index in range(count):
        progress.update("warm-up", index, count, "chunks")
        frame = index * spec.chunk.frames
        # At 30 frames a second, not every frame has as many samples.
        first, end = (first_sample_of(f, spec.chunk.fps) for f in (frame, frame + spec.chunk.frames))
        chunk = AudioChunk(
            first_frame=frame,
            frames=spec.chunk.frames,
            first_sample=first,
            samples=np.zeros(end - first + spec.chunk.lookahead_samples, np.float32),
            is_discontinuous=index == 0,
            economy=min(economy, len(spec.economies)),
        )
        started_s = time.monotonic()
        writer.committed_s.clear()
        generator.generate(chunk, writer)
        took_s.append(time.monotonic() - started_s)
        late_s = [at_s - started_s - index / spec.chunk.fps for index, at_s in enumerate(writer.committed_s)]
        first_frame_s.append(max(late_s, default=took_s[-1]))
    generator.take_notices()
    generator.reset()
    progress.update("warm-up", count, count, "chunks")
    return _usual(took_s), _usual(first_frame_s)


def _usual(measured_s: list[float]) -> float:
    slowest_s = sorted(measured_s[1:], reverse=True)
    return slowest_s[0 if len(measured_s) == _WARM_UP_CHUNKS else 1]


class _Forgetful:
    """A `FrameWriter` whose frames nobody sees; it knows when they came."""

    def __init__(self, width: int, height: int) -> None:
        self._image = np.empty((height, width, 3), np.uint8)
        self.committed_s: list[float] = []

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        self.committed_s.append(time.monotonic())
