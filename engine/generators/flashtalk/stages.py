"""How long each stage of a chunk takes, measured where it runs; next to nothing while nobody wants to know."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import torch

AUDIO, DECODE, COLOUR, COPY, REENCODE = "audio", "decode", "colour", "copy out", "re-encode"


def step_stage(step: int) -> str:
    """The name of denoising step number `step`, from 0 on."""
    return f"step {step + 1}"


class Stages(Protocol):
    """Told by a stream and its generator where a stage ends; the time since the end before belongs to it."""

    def begin(self) -> None:
        """A chunk begins."""
        ...

    def mark(self, stage: str) -> None:
        """`stage` ends here, or a part of it."""
        ...

    def frame(self) -> None:
        """A frame has been handed over."""
        ...

    def end(self) -> None:
        """All of the chunk has been asked of the device."""
        ...


class NotMeasured:
    """Nobody wants to know."""

    def begin(self) -> None:
        """Nothing."""

    def mark(self, stage: str) -> None:
        """Nothing."""

    def frame(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


NOT_MEASURED = NotMeasured()


@dataclass(frozen=True, kw_only=True)
class ChunkTimes:
    """Of one chunk, in seconds.

    `stages_s` is what the device spent, by stage in the order of their ends, parts added up; the sum is the chunk as
    the device saw it. The others are the host's, from the call on: until the first and the last frame were handed over,
    and until everything was done, the latents that the next chunk continues from included. `late_s` is how long after
    the call the frames can be shown at the rate of `fps` without one being late: what a session's delay is made of.
    """

    stages_s: dict[str, float] = field(default_factory=dict)
    first_frame_s: float
    last_frame_s: float
    late_s: float
    total_s: float


class StageTimes:
    """Measures chunk after chunk: by events on a GPU, where the host runs ahead, by the clock elsewhere. One thread.

    On a GPU `end` waits for the device, so that a measured stream gives the host no head start over its next chunk.
    """

    def __init__(self, device: torch.device, fps: int) -> None:
        self._device, self._fps = device, fps
        self._marks: list[tuple[str, torch.cuda.Event | float]] = []
        self._began_s = 0.0
        self._frames_s: list[float] = []
        self.chunks: list[ChunkTimes] = []

    def begin(self) -> None:
        """See `Stages`."""
        self._began_s, self._frames_s = time.perf_counter(), []
        self._marks = [("", self._now())]

    def mark(self, stage: str) -> None:
        """See `Stages`."""
        self._marks.append((stage, self._now()))

    def frame(self) -> None:
        """See `Stages`."""
        self._frames_s.append(time.perf_counter() - self._began_s)

    def end(self) -> None:
        """Wait for the device and add the chunk to `chunks`."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        total_s = time.perf_counter() - self._began_s
        spent_s: dict[str, float] = {}
        for (_, before), (stage, after) in zip(self._marks, self._marks[1:], strict=False):
            spent_s[stage] = spent_s.get(stage, 0.0) + _between_s(before, after)
        at_s = self._frames_s or [total_s]
        self.chunks.append(
            ChunkTimes(
                stages_s=spent_s,
                first_frame_s=at_s[0],
                last_frame_s=at_s[-1],
                late_s=max(seconds - index / self._fps for index, seconds in enumerate(at_s)),
                total_s=total_s,
            )
        )

    def _now(self) -> torch.cuda.Event | float:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between_s(before: torch.cuda.Event | float, after: torch.cuda.Event | float) -> float:
    if isinstance(before, torch.cuda.Event) and isinstance(after, torch.cuda.Event):
        return before.elapsed_time(after) / 1000
    assert not isinstance(before, torch.cuda.Event) and not isinstance(after, torch.cuda.Event)
    return after - before
