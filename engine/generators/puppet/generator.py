"""The puppet: a portrait warped on the CPU, its mouth led by the voice, its head and eyes by a seed."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np

from engine.errors import GeneratorError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.generators.puppet.analyse import analyse_portrait
from engine.generators.puppet.expression import Expression
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.motion import Motion
from engine.generators.puppet.mouth_shapes import write_mouth
from engine.generators.puppet.render import PuppetRenderer
from engine.generators.puppet.template import FaceHandles
from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES, VoiceAnalyser
from engine.media import AudioChunk, ChunkSpec, Notice, Portrait

_log = logging.getLogger(__name__)
_ANALYSE, _BUILD = "face", "puppet"


class PuppetGenerator:
    """One frame per chunk, 40 ms of look-ahead; implements `engine.generators.base.Generator`.

    `sensitivity` scales how far the mouth opens, `motion` how much head and brows move (0 keeps the head still;
    blinks and glances stay).
    """

    def __init__(self, *, seed: int = 0, fps: int = 25, sensitivity: float = 1.0, motion: float = 1.0) -> None:
        self._fps = fps
        self._voice = VoiceAnalyser(fps=fps, sensitivity=sensitivity)
        self._motion = Motion(seed=seed, fps=fps, amount=motion)
        self._expression = Expression()
        self._renderer: PuppetRenderer | None = None
        self._spec: GeneratorSpec | None = None
        self._is_mouth_open = False
        self._heard_until: int | None = None

    @property
    def spec(self) -> GeneratorSpec:
        """Size and chunking; raises `GeneratorError` before `prepare`."""
        if self._spec is None:
            raise GeneratorError("The puppet was asked for its size before it had a portrait.")
        return self._spec

    @property
    def expression(self) -> Expression:
        """What the last frame showed; overwritten by the next one."""
        return self._expression

    def check(self) -> None:
        """It needs nothing that could be missing."""

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Find the face and build the warps (about a second); see `Generator.prepare`."""
        progress.update(_ANALYSE, 0, 1)
        geometry, person_mask, notices = _analysis_of(portrait)
        progress.update(_ANALYSE, 1, 1)
        width, height = _fitted(portrait, size)
        progress.update(_BUILD, 0, 1)
        self._renderer = PuppetRenderer(portrait.image, geometry, size=(width, height), person_mask=person_mask)
        self._is_mouth_open = geometry.is_mouth_open
        chunk = ChunkSpec(fps=self._fps, frames=1, lookahead_samples=LOOKAHEAD_SAMPLES)
        self._spec = GeneratorSpec(name="puppet", width=width, height=height, chunk=chunk)
        self.reset()
        progress.update(_BUILD, 1, 1)
        return notices

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """Render the chunk's frames. Any number of frames per chunk is taken; the sound must reach the look-ahead."""
        if self._renderer is None:
            raise GeneratorError("The puppet was asked for frames before it had a portrait.")
        self._hear(chunk)
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            mouth = self._voice.take()
            if mouth is None:
                raise GeneratorError(f"The sound for frame {frame} ends too early.")
            write_mouth(mouth, self._expression, is_mouth_open=self._is_mouth_open)
            self._motion.advance(self._expression, mouth.loudness, mouth.is_speaking)
            self._renderer.render(self._expression, frames.next_image())
            frames.commit(frame)

    def take_notices(self) -> list[Notice]:
        """Nothing ever happens to it."""
        return []

    def reset(self) -> None:
        """Forget all sound and begin again with the first blink and the first sway."""
        self._heard_until = None
        self._voice.reset()
        self._motion.reset()
        self._expression.clear()

    def close(self) -> None:
        """Free the renderer; safe to call twice."""
        self._renderer = None

    def _hear(self, chunk: AudioChunk) -> None:
        """Give the analyser what it has not heard yet: chunks repeat the look-ahead of the one before."""
        expected = self._heard_until
        follows = expected is not None and not chunk.is_discontinuous
        first_new = expected if expected is not None and follows else chunk.first_sample
        skipped = first_new - chunk.first_sample
        if not follows or not 0 <= skipped <= len(chunk.samples):
            self._voice.restart(chunk.first_frame)
            skipped = 0
        self._voice.push(chunk.samples[skipped:])
        self._heard_until = chunk.first_sample + len(chunk.samples)


def _analysis_of(portrait: Portrait) -> tuple[FaceGeometry, np.ndarray | None, list[Notice]]:
    """Geometry, person mask (float32 0..1) and notices: what is stored with the portrait, else what is found.

    Stored is JSON with either "geometry" (complete) or "handles" (placed by hand, to be fitted).
    """
    stored = stored_face(portrait)
    mask = _mask_of(portrait)
    if "geometry" in stored and mask is not None:
        return FaceGeometry.from_dict(stored["geometry"]), mask, []
    handles = FaceHandles.from_dict(stored["handles"]) if "handles" in stored else None
    found = analyse_portrait(portrait.image, handles=handles)
    notices = [Notice(code=w.code, message=w.message, hint=w.hint) for w in found.warnings]
    if "geometry" in stored:
        return FaceGeometry.from_dict(stored["geometry"]), found.person_mask, []
    return found.geometry, found.person_mask if mask is None else mask, notices


def stored_face(portrait: Portrait) -> dict[str, Any]:
    """What is kept with the portrait: {"geometry": ...}, {"handles": ...} or nothing; a damaged one is ignored."""
    text = portrait.annotations.get("puppet", "")
    try:
        stored = json.loads(text) if text else {}
    except ValueError:
        _log.warning("the stored face of this portrait is damaged and is ignored")
        return {}
    return stored if isinstance(stored, dict) else {}


def _mask_of(portrait: Portrait) -> np.ndarray | None:
    """The person mask that the portrait brings, as its own file or as transparency."""
    mask = portrait.alpha if portrait.person_mask is None else portrait.person_mask
    return None if mask is None else mask.astype(np.float32) / 255.0


def _fitted(portrait: Portrait, room: tuple[int, int]) -> tuple[int, int]:
    """Largest even size of the portrait's shape within `room` (width, height)."""
    height, width = portrait.image.shape[:2]
    scale = min(room[0] / width, room[1] / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
