"""The nouns that audio, generators, pacing and sinks share.

Position is an integer with a rate: a sample number at 16 kHz, a frame number at the session's frame rate. Seconds as
floats are for deadlines and display only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SAMPLE_RATE_HZ = 16_000
"""The timeline's rate; every generator hears mono float32 at this rate."""


def first_sample_of(frame: int, fps: int) -> int:
    """Timeline sample at which frame number `frame` begins, exact for every integer rate."""
    return frame * SAMPLE_RATE_HZ // fps


def frame_at(sample: int, fps: int) -> int:
    """Number of the frame that contains timeline sample `sample`."""
    frame = sample * fps // SAMPLE_RATE_HZ
    return frame + 1 if first_sample_of(frame + 1, fps) <= sample else frame


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioBlock:
    """Sound as a source delivered it: `samples` float32 (n, channels) at `rate_hz`.

    `first_sample` counts from the start of the session at `rate_hz`; `captured_at_s` is the monotonic time at which
    the first sample was in the air (or would have been, for a file).
    """

    first_sample: int
    samples: np.ndarray
    rate_hz: int
    captured_at_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkSpec:
    """What a generator wants at once: `frames` new frames, heard up to `lookahead_samples` beyond their end."""

    fps: int
    frames: int
    lookahead_samples: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioChunk:
    """Sound for frames `first_frame` .. `first_frame + frames - 1`.

    `samples` is mono float32 at 16 kHz; it begins at timeline sample `first_sample` (the first frame's) and holds the
    frames' own sound followed by the look-ahead. The next chunk therefore repeats the look-ahead. After a
    discontinuity the chunk does not follow the one before, and a generator must not continue across it. `economy`
    asks for the n-th of the generator's cheaper ways for this chunk (`GeneratorSpec.economies`), 0 for its full work.
    """

    first_frame: int
    frames: int
    first_sample: int
    samples: np.ndarray
    is_discontinuous: bool = False
    economy: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something a person should know though nothing failed: `code` for programs, sentences for people."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanvasFormat:
    """Size and rate of what the camera shows."""

    width: int
    height: int
    fps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Portrait:
    """A decoded picture, upright, RGB uint8 (height, width, 3), with what is stored beside it.

    `digest` is the SHA-256 of the file's bytes. `alpha` is uint8 (height, width) where the file had transparency.
    `annotations` maps a generator's name to text that it stored with this portrait (the puppet's face geometry or
    handles as JSON). `person_mask` is uint8 (height, width) when the portrait brings one.
    """

    image: np.ndarray
    name: str
    path: str
    digest: str
    alpha: np.ndarray | None = None
    person_mask: np.ndarray | None = None
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    notices: tuple[Notice, ...] = ()
