"""What can be set on this computer, what each costs, and which is best for which use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

USES = ("conversation", "balanced", "presentation")
"""From the least delay to the best picture."""

_SPARE = 1.1
"""Frames a second that a setting must reach, over those it shows: what else runs takes its part."""
_LOADS = {"conversation": 0.15, "balanced": 0.3, "presentation": 0.6}
"""Of all cores, at most: the call itself needs some, and a conversation is long."""
_ALIKE = 0.1
"""Delays that differ by less are the same to a person."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One way of setting Standin up.

    `generator` and `options` go into a session's settings, `canvas` (px) and `fps` as well. `frames_per_s` is what the
    generator can make, `delay_s` from the microphone to the camera, `memory_bytes` on the GPU (None: none is used),
    `load` the part of all cores that is taken. `quality` orders pictures, higher is better, and means nothing else.
    `is_measured`: as it stands, and not added up from parts.
    """

    generator: str
    options: dict[str, Any] = field(default_factory=dict)
    canvas: tuple[int, int] = (1280, 720)
    fps: int = 25
    frames_per_s: float
    delay_s: float
    memory_bytes: int | None = None
    load: float = 0.0
    quality: float = 0.0
    words: str = ""
    is_measured: bool = True

    @property
    def is_real_time(self) -> bool:
        """Whether it keeps up, with something to spare."""
        return self.frames_per_s >= _SPARE * self.fps


def choose(estimates: Sequence[Estimate]) -> dict[str, Estimate]:
    """Use -> the best of `estimates` that keep up; empty where none does.

    Conversation takes the least delay, presentation the best picture, balanced the best picture whose delay is not
    above the middle of theirs. Each keeps within its part of the processor where any setting does.
    """
    able = [estimate for estimate in estimates if estimate.is_real_time]
    if not able:
        return {}
    quick = _quickest(_within(able, "conversation"))
    best = _best(_within(able, "presentation"))
    middle_s = (quick.delay_s + best.delay_s) / 2
    soon = [estimate for estimate in _within(able, "balanced") if estimate.delay_s <= middle_s * (1 + _ALIKE)]
    return {"conversation": quick, "balanced": _best(soon or [quick]), "presentation": best}


def _within(estimates: Sequence[Estimate], use: str) -> list[Estimate]:
    light = [estimate for estimate in estimates if estimate.load <= _LOADS[use]]
    return light or [min(estimates, key=lambda estimate: estimate.load)]


def _quickest(estimates: Sequence[Estimate]) -> Estimate:
    least_s = min(estimate.delay_s for estimate in estimates)
    return _best([estimate for estimate in estimates if estimate.delay_s <= least_s * (1 + _ALIKE)])


def _best(estimates: Sequence[Estimate]) -> Estimate:
    return max(estimates, key=lambda estimate: (estimate.quality, -estimate.delay_s))
