"""What the published files say about the model, and the arithmetic of one stream's shapes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.errors import ModelFilesError, UsageError
from engine.media import SAMPLE_RATE_HZ

TEMPORAL_STRIDE = 4
"""Frames to a latent frame: the first frame has one of its own, then four share one."""
SPATIAL_STRIDE = 8
"""Pixels to a latent, along both sides."""
PATCH = 2
"""Latents to a token, along both sides; 1 in time."""
LATENT_CHANNELS = 16
MASK_CHANNELS = 4
AUDIO_WINDOW_EDGE = 3
"""Audio frames that the first and the last video frame of a latent frame contribute, of a window of five."""


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of the denoising transformer; the defaults are those of the published 14B model (config.json).

    The three last ones are fixed in the published model; small test models make them narrower.
    """

    dim: int = 5120
    ffn_dim: int = 13824
    freq_dim: int = 256
    num_heads: int = 40
    num_layers: int = 40
    in_dim: int = 2 * LATENT_CHANNELS + MASK_CHANNELS
    out_dim: int = LATENT_CHANNELS
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6
    audio_window: int = 5
    vae_scale: int = TEMPORAL_STRIDE
    intermediate_dim: int = 512
    output_dim: int = 768
    context_tokens: int = 32
    img_emb_in_dim: int = 1280
    audio_blocks: int = 12
    audio_channels: int = 768

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, float if field.name == "eps" else int) or not value > 0:
                raise ValueError(f"{field.name} cannot be {value!r}")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"width {self.dim} does not make {self.num_heads} heads of an even width")
        if self.in_dim != 2 * self.out_dim + MASK_CHANNELS:
            raise ValueError(f"{self.in_dim} input channels are not twice {self.out_dim} and the mask's four")
        if self.audio_window != 5 or self.vae_scale != TEMPORAL_STRIDE:
            raise ValueError("the audio windows are made for 5 positions and 4 frames to a latent")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads

    @property
    def slots_per_latent(self) -> int:
        """Audio frames that a latent frame after the first sees: three, one for each middle frame, three."""
        return 2 * AUDIO_WINDOW_EDGE + self.vae_scale - 2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiTConfig:
        """From the content of config.json; keys that say nothing about sizes are ignored.

        Raises `ModelFilesError` for another kind of model or sizes that do not fit together.
        """
        kind = values.get("model_type", "i2v")
        if kind != "i2v":
            raise ModelFilesError(
                f'This is a checkpoint of model type "{kind}", not the image-to-video model that FlashTalk is.',
                code="model_files.wrong_type",
                hint="Choose the folder of SoulX-FlashTalk-14B.",
            )
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in values.items() if name in known})
        except (TypeError, ValueError) as error:
            raise ModelFilesError(
                f"The model's config.json describes something that cannot be built: {error}.",
                code="model_files.config",
                hint="Download the model again, or choose another folder.",
            ) from error

    @classmethod
    def from_file(cls, path: Path) -> DiTConfig:
        """From a config.json. Raises `ModelFilesError`."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFilesError(
                f"The model's configuration {path} cannot be read.",
                code="model_files.config",
                hint="Download the model again, or choose another folder.",
                detail=str(error),
            ) from error
        if not isinstance(values, dict):
            raise ModelFilesError(f"The model's configuration {path} is not a JSON object.", code="model_files.config")
        return cls.from_dict(values)


@dataclass(frozen=True, kw_only=True)
class StreamShape:
    """Picture size (px), frames per chunk, and all that follows from them.

    A chunk decodes `frames` frames, of which the first `motion_frames` continue the chunk before and are not shown.
    """

    height: int = 768
    width: int = 448
    frames: int = 33
    motion_frames: int = 5
    fps: int = 25
    audio_history_s: int = 8

    def __post_init__(self) -> None:
        multiple = SPATIAL_STRIDE * PATCH
        if self.height % multiple or self.width % multiple or min(self.height, self.width) < multiple:
            raise UsageError(
                f"FlashTalk cannot make pictures of {self.width}x{self.height}.",
                code="flashtalk.size",
                hint=f"Both sides must be multiples of {multiple}.",
            )
        for name, count in (("frames", self.frames), ("motion frames", self.motion_frames)):
            if count % TEMPORAL_STRIDE != 1:
                raise UsageError(f"A chunk cannot have {count} {name}.", hint="The count must be 4k+1.")
        if not 0 < self.motion_frames < self.frames or self.frames > self.history_frames:
            raise UsageError(f"Chunks of {self.frames} frames with {self.motion_frames} repeated are not possible.")

    @property
    def new_frames(self) -> int:
        """Frames that a chunk adds to the stream."""
        return self.frames - self.motion_frames

    @property
    def chunk_samples(self) -> int:
        """Samples of sound to a chunk's new frames, at 16 kHz."""
        return self.new_frames * SAMPLE_RATE_HZ // self.fps

    @property
    def history_samples(self) -> int:
        """Samples that the speech encoder hears each time."""
        return self.audio_history_s * SAMPLE_RATE_HZ

    @property
    def history_frames(self) -> int:
        """Video frames in that history."""
        return self.audio_history_s * self.fps

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """(channels, latent frames, rows, columns)."""
        return (
            LATENT_CHANNELS,
            latent_frames(self.frames),
            self.height // SPATIAL_STRIDE,
            self.width // SPATIAL_STRIDE,
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along (time, rows, columns)."""
        _, frames, rows, columns = self.latent
        return frames, rows // PATCH, columns // PATCH

    @property
    def tokens(self) -> int:
        """Tokens of the transformer."""
        return math.prod(self.grid)


def latent_frames(frames: int) -> int:
    """Latent frames that `frames` (4k+1) video frames make."""
    return (frames - 1) // TEMPORAL_STRIDE + 1
