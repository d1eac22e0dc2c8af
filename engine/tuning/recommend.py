"""Measures this computer and names the best settings for each use."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2

from engine.errors import Cancelled, StandinError
from engine.generators.base import Progress
from engine.generators.factory import probe_of
from engine.gpus.listing import find_gpus
from engine.media import ChunkSpec, Portrait
from engine.settings import CANVAS_SIZES
from engine.stream.deadlines import needed_delay_s
from engine.stream.timeline import CAPTURE_S
from engine.tuning.estimates import USES, Estimate, choose
from engine.tuning.frame_costs import FPS, canvas_figures, filled_portrait, generator_figures

logger = logging.getLogger(__name__)

_FRAMES = 75
_PUPPET_SECONDS = 0.010
"""To a puppet's frame; it has no chunks to wait for."""
_MEASURE_FOR_S = 90.0
"""After this long no further setting is measured as it stands."""

Probe = Callable[[Progress], list[dict[str, Any]]]
"""As `engine.generators.flashtalk.probe.probe`, whose results it gives."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """`best` has an estimate for each use that something keeps up with; `computer` is what was measured."""

    computer: str
    best: dict[str, Estimate]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "computer": self.computer,
            "notes": list(self.notes),
            "best": {use: asdict(estimate) for use, estimate in self.best.items()},
        }


def recommend(portrait: Portrait, progress: Progress, *, probe: Probe | None = None) -> Recommendation:
    """Look at the GPUs and at the processor, at most two minutes. Raises `Cancelled` from `progress`.

    FlashTalk is offered where a GPU keeps up; the puppet is what remains. What is recommended is measured as it stands
    where time allows, because the rest is added up from parts.
    """
    started_s = time.monotonic()
    notes: list[str] = []
    results = _photographic(progress, notes, probe)
    if probe is None:
        _confirm(results, started_s, progress)
    photographic = [_of(result) for result in results]
    best = choose(photographic) or _puppets(portrait, progress, notes)
    if photographic and not choose(photographic):
        fastest = max(photographic, key=lambda estimate: estimate.frames_per_s)
        notes.append(f"At most {fastest.frames_per_s:.0f} frames a second would be reached here: {fastest.words}.")
    return Recommendation(computer=describe_computer(), best=best, notes=tuple(notes))


def _puppets(portrait: Portrait, progress: Progress, notes: list[str]) -> dict[str, Estimate]:
    """The puppet is for every computer: where nothing keeps up, the smallest does as well as it can."""
    estimates = puppet_estimates(portrait, progress)
    least = min(estimates, key=lambda estimate: estimate.load)
    best = choose(estimates)
    if not best:
        notes.append("This computer is slow for any moving picture: expect fewer frames than 25 a second.")
    return best or dict.fromkeys(USES, least)


def puppet_estimates(portrait: Portrait, progress: Progress) -> list[Estimate]:
    """The puppet on every canvas, with a picture that fills it: the most that it can cost."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [_puppet(portrait, canvas, progress) for canvas in CANVAS_SIZES]
    finally:
        cv2.setNumThreads(threads)


def _puppet(portrait: Portrait, canvas: tuple[int, int], progress: Progress) -> Estimate:
    width, height = canvas
    name = f"puppet {width}x{height}"
    filled = filled_portrait(portrait, canvas)
    figures = generator_figures("puppet", filled, canvas, _FRAMES, progress, name)
    figures |= canvas_figures(portrait, canvas, _FRAMES, progress)
    parts = (figures[name], figures[f"canvas {width}x{height}"], figures["hand-over to one sink"])
    # The processor's time, not the clock's: what else runs at this moment is not what will run in a call.
    frame_s = sum(part["cpu"] for part in parts) / 1000
    return Estimate(
        generator="puppet",
        canvas=canvas,
        fps=FPS,
        frames_per_s=1 / max(frame_s, 1e-6),
        delay_s=needed_delay_s(ChunkSpec(fps=FPS, frames=1), max(_PUPPET_SECONDS, frame_s), CAPTURE_S),
        load=frame_s * FPS / (os.cpu_count() or 1),
        quality=float(height),
        words=f"puppet, {width} x {height}",
    )


def _photographic(progress: Progress, notes: list[str], probe: Probe | None) -> list[dict[str, Any]]:
    """What the probe found; nothing, and a note, where FlashTalk cannot run."""
    if probe is None:
        gpus = find_gpus()
        if gpus.problem is not None:
            notes.append(f"{gpus.problem.message} FlashTalk is not offered.")
            return []
    try:
        return (probe or probe_of("flashtalk").probe)(progress)
    except Cancelled:
        raise
    except StandinError as error:
        notes.append(f"{error} FlashTalk is not offered.")
        return []


def _confirm(results: list[dict[str, Any]], started_s: float, progress: Progress) -> None:
    """Measure what would be chosen and put it in its guess's place, until all that is chosen is measured."""
    while time.monotonic() - started_s < _MEASURE_FOR_S:
        estimates = [_of(result) for result in results]
        guesses = [estimate for estimate in choose(estimates).values() if not estimate.is_measured]
        if not guesses:
            return
        index = estimates.index(guesses[0])
        try:
            results[index] = probe_of("flashtalk").measured(results[index], progress)
        except Cancelled:
            raise
        except StandinError as error:
            logger.warning("%s could not be measured: %s", guesses[0].words, error)
            del results[index]


def _of(result: dict[str, Any]) -> Estimate:
    width, height = 1280, 720
    return Estimate(
        generator="flashtalk",
        options=result["options"],
        canvas=(width, height),
        fps=FPS,
        frames_per_s=result["frames"] / result["chunk_s"],
        delay_s=needed_delay_s(ChunkSpec(fps=FPS, frames=result["frames"]), result["first_frame_s"], CAPTURE_S),
        memory_bytes=result["memory_bytes"],
        quality=result["quality"],
        words=f"FlashTalk, {result['words']}",
        is_measured=result["is_measured"],
    )


def describe_computer() -> str:
    """GPUs and processor in one line: what a recommendation is for."""
    names = [gpu.name for gpu in find_gpus().gpus]
    return ", ".join([*names, f"{os.cpu_count() or 1} cores"])
