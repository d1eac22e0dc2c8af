"""What the pipeline asks of every generator, and nothing about which ones exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from engine.media import AudioChunk, ChunkSpec, Notice, Portrait
from engine.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorSpec:
    """Known once prepared: picture size in px, and what is wanted and given per chunk. `follows_canvas`: the size
    comes from the room on the canvas, so that another canvas needs another preparation. `economies`: cheaper ways of
    making a chunk, each cheaper than the one before, in a few words for people; a chunk asks for one by its number,
    from 1 on."""

    name: str
    width: int
    height: int
    chunk: ChunkSpec
    follows_canvas: bool = True
    economies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallerSize:
    """A smaller picture that a generator could make instead: its `name` for people, the share of a chunk's time that it
    takes, as far as that can be computed, and how it is asked for: with these `options`, or (for one whose size follows
    the canvas) with less `room`, a share of the canvas's sides."""

    name: str
    cost: float
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    room: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PortraitDescription:
    """What a generator makes of a portrait before it is used: whether it sees a face, where its handles are (by
    name, portrait px), and advice."""

    has_face: bool
    handles: dict[str, tuple[float, float]]
    advice: list[Notice]


class FrameWriter(Protocol):
    """Where a generator puts finished frames, in order; the memory belongs to the writer."""

    def next_image(self) -> np.ndarray:
        """A uint8 (height, width, 3) RGB buffer to fill, valid until `commit`; never blocks."""
        ...

    def commit(self, frame: int) -> None:
        """Hand over the buffer as frame number `frame`."""
        ...


class Generator(Protocol):
    """Makes frames of one portrait from sound. All calls come from one thread, except `close` after it has ended.

    Order: `check` if wanted, `prepare` once, then `generate` for chunk after chunk, `reset` at any point between two
    chunks, `close` exactly once at the end. State lives in the object alone, so that two can run side by side.
    """

    @property
    def spec(self) -> GeneratorSpec:
        """Size and chunking; valid after `prepare`, for a generator with a standby always."""
        ...

    def check(self) -> None:
        """Say within a second what would make `prepare` fail, as far as can be known. Raises what `prepare` raises.

        One that could also make do with less room than it would have alone may have a method `check_room`, too, which
        refuses that: it is asked before a second one is prepared beside one that runs."""
        ...

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Do everything slow. `size` (width, height) is the room on the canvas: a generator free in its size fills
        it (keeping the portrait's shape), one with fixed sizes ignores it. Raises `PortraitError`,
        `ModelFilesError`, `GeneratorError` or `Cancelled`; returns what the user should know about this portrait."""
        ...

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """Write `chunk.frames` frames, each committed as soon as it is finished. Raises `GeneratorError`."""
        ...

    def take_notices(self) -> list[Notice]:
        """What happened since the last call that a person should know though frames go on; asked after each chunk."""
        ...

    def reset(self) -> None:
        """Forget all sound heard so far; the next chunk begins a new stream, the same as after `prepare`."""
        ...

    def close(self) -> None:
        """Free what `prepare` took; safe to call twice."""
        ...
