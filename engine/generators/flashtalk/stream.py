"""One endless stream of chunks: all of its state, from the portrait it begins with to the latents it continues from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.generators.flashtalk.color import ColorMatch
from engine.generators.flashtalk.config import MASK_CHANNELS, StreamShape, latent_frames
from engine.generators.flashtalk.graphs import Recorder, Stepper
from engine.generators.flashtalk.kernels.color_match import COLOR_MATCH, TO_BYTES
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels
from engine.generators.flashtalk.sampler import Noise, Schedules, Velocity, denoise
from engine.generators.flashtalk.small_decoder import SmallDecoder
from engine.generators.flashtalk.stages import COLOUR, COPY, DECODE, NOT_MEASURED, REENCODE, Stages, step_stage
from engine.generators.flashtalk.transformer import ChunkConditions, DiT, StreamConditions
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_graphs import RecordedDecoder, record_decoder
from engine.generators.pieces import Piece, Pieces, made_at_once
from engine.parallel.group import Attention, SequenceGroup
from engine.parallel.tiles import RowBands

to_bytes = TO_BYTES.eager
"""Frames [1, 3, n, H, W] in [-1, 1] -> uint8 [n, H, W, 3]."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What a stream is made from, on the device: the cropped portrait [1, 3, 1, H, W] in [-1, 1], the conditioning
    latent `y` [20, frames, h, w], and the motion latent [16, 1, h, w] of the first chunk."""

    portrait: Tensor
    y: Tensor
    motion: Tensor


def make_anchor(portrait: Tensor, vae: Vae, shape: StreamShape, bands: RowBands | None = None) -> Anchor:
    """Encode the portrait followed by mid-grey frames. `portrait` [1, 3, 1, H, W] in [-1, 1], whole on every rank.

    The VAE is causal, so the first latent frame is the portrait's own and no second encoding is needed for it.
    """
    return made_at_once(anchor_in_pieces(portrait, vae, shape, bands))


def anchor_in_pieces(
    portrait: Tensor, vae: Vae, shape: StreamShape, bands: RowBands | None = None, *, is_roomy: bool = True
) -> Pieces[Anchor]:
    """`make_anchor`, of which each latent frame is a piece; ranks meet in every one. All are one piece unless there is
    room to keep what the encoder remembers between two of them."""
    parts: list[Tensor] = []
    groups = vae.encode_groups(F.pad(portrait, (0, 0, 0, 0, 0, shape.frames - 1)), tiles=bands)
    for index in range(shape.latent[1]):
        if index == 0 or is_roomy:
            yield Piece(name="portrait")
        parts.append(next(groups))
    latents = torch.cat(parts, dim=1)
    latents = latents if bands is None else bands.agree(latents)
    mask = torch.zeros_like(latents[:MASK_CHANNELS])
    mask[:, 0] = 1.0
    return Anchor(portrait=portrait, y=torch.cat((mask, latents)), motion=latents[:, :1])


class FlashTalkStream:
    """Chunk after chunk of one portrait. Several can share the models, which keep no state.

    On several ranks each runs one of these in step with the others: `group` spreads the tokens, `bands` the pictures.
    Calls, in this order, from one thread: `chunk_latents`, then all of `frames`, for every chunk.
    """

    def __init__(
        self,
        *,
        dit: DiT,
        vae: Vae,
        conditions: StreamConditions,
        anchor: Anchor,
        shape: StreamShape,
        schedules: Schedules,
        noise: Noise,
        group: SequenceGroup,
        attention: Attention,
        color_strength: float = 1.0,
        kernels: Kernels = EAGER,
        bands: RowBands | None = None,
        small_decoder: SmallDecoder | None = None,
        motion_context: int = 0,
    ) -> None:
        """With a `small_decoder` frames come from it, and the VAE decodes only what the next chunk continues from: of
        the last `motion_context` latent frames, or exactly, of all (0)."""
        self._small, self._context = small_decoder, motion_context
        self._dit, self._vae = dit, vae
        self._anchor, self._shape = anchor, shape
        self._schedules, self._noise = schedules, noise
        self._stepper = Stepper(dit, conditions, group, attention)
        self._color, self._strength = ColorMatch(anchor.portrait, kernels[COLOR_MATCH]), color_strength
        self._bands = bands
        self._recorded: RecordedDecoder | None = None
        self._motion = anchor.motion
        self.stages: Stages = NOT_MEASURED

    @property
    def motion(self) -> Tensor:
        """The latents that the next chunk continues from: [16, 1, h, w] at the beginning, then [16, 2, h, w]."""
        return self._motion

    def reset(self) -> None:
        """Continue from the portrait, as at the beginning."""
        self._motion = self._anchor.motion

    def chunk_latents(self, chunk: ChunkConditions, steps: int = 0) -> Tensor:
        """Denoise one chunk in so many of the steps that there are schedules for, 0 for the first: [16, frames, h, w].

        What the stream keeps is the same for all of them, so that any chunk may follow any other. Noise is drawn by
        the step's number: a chunk in fewer steps begins with the same noise and leaves out the last draws.
        """
        schedule = self._schedules[steps] if steps else self._schedules.first
        velocity = self._velocity(chunk, schedule.rows, self._motion.shape[1])
        return denoise(velocity, self._noise, self._motion, schedule.timesteps)

    def _velocity(self, chunk: ChunkConditions, rows: Sequence[int], motion: int) -> Velocity:
        step_at = self._stepper.velocity(chunk, motion)

        def velocity(latents: Tensor, step: int) -> Tensor:
            out = step_at(latents, rows[step])
            self.stages.mark(step_stage(step))
            return out

        return velocity

    def record(self, recorder: Recorder) -> str:
        """Run from graphs the steps of all chunks but the first, and decoding where it is of whole pictures by the VAE.

        What will not although it should, and why; usually nothing. Takes the time of a few steps and of some latent
        frames; every rank calls it at the same point.
        """
        refused = {"the denoising steps": self._record_steps(recorder)}
        # Ranks pass rows on in between; and the end of a video alone has another shape at every latent frame.
        if self._bands is None and self._small is None:
            self._recorded, refused["decoding"] = record_decoder(self._vae, self._anchor.motion, recorder)
        return "; ".join(f"{what} ({why})" for what, why in refused.items() if why)

    def _record_steps(self, recorder: Recorder) -> str:
        config, latents = self._dit.config, torch.randn(self._shape.latent, device=self._anchor.y.device)
        form = (config.audio_blocks, config.audio_channels)
        first = latents.new_zeros(1, config.audio_window, *form).normal_()
        later = latents.new_zeros(latents.shape[1] - 1, config.slots_per_latent, *form).normal_()
        chunk = self._dit.chunk_conditions(first, later)
        self._stepper.record(chunk, latents, latent_frames(self._shape.motion_frames), recorder)
        return self._stepper.refused

    def frames(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Decode a chunk, group by group as it leaves the decoder: pairs of (frames before colour matching, frames
        after), both [1, 3, n, H, W] in [-1, 1] and without the repeated ones; with bands, this rank's rows of them.
        The last ones become the next chunk's motion once the iterator is used up."""
        yield from self._from_vae(latents) if self._small is None else self._from_small(self._small, latents)

    def _from_vae(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        stages = self.stages
        skip = keep = self._shape.motion_frames
        unused = min(skip, self._shape.frames - keep)  # neither shown nor kept, so nobody need see their colours
        tail: list[Tensor] = []
        for raw in self._decoded(latents):
            stages.mark(DECODE)
            left_out = min(unused, raw.shape[2])
            raw, unused, skip = raw[:, :, left_out:], unused - left_out, skip - left_out
            if raw.shape[2] == 0:
                continue
            matched = self._matched(raw)
            tail = _last(tail, matched, keep)
            skipped = min(skip, raw.shape[2])
            skip -= skipped
            if skipped < raw.shape[2]:
                yield raw[:, :, skipped:], matched[:, :, skipped:]
                stages.mark(COPY)
        self._continue_from(torch.cat(tail, dim=2))

    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        if self._recorded is not None:
            return self._recorded.decode(latents)
        return self._vae.decode(latents, tiles=None if self._bands is None else self._bands.for_decoding)

    def _from_small(self, decoder: SmallDecoder, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """All frames leave before the VAE begins with the end of the chunk."""
        bands, stages = self._bands, self.stages
        skip = keep = self._shape.motion_frames
        for raw in decoder.decode(latents):
            stages.mark(DECODE)
            skipped = min(skip, raw.shape[2])
            skip -= skipped
            if skipped < raw.shape[2]:
                raw = raw[:, :, skipped:] if bands is None else bands.crop(raw[:, :, skipped:])
                yield raw, self._matched(raw)
                stages.mark(COPY)
        tiles = None if bands is None else bands.for_decoding
        tail = self._vae.decode_tail(latents, keep, context=self._context, tiles=tiles)
        stages.mark(DECODE)
        self._continue_from(self._matched(tail))

    def _matched(self, raw: Tensor) -> Tensor:
        matched = self._color.apply(raw, self._strength, None if self._bands is None else self._bands.average)
        self.stages.mark(COLOUR)
        return matched

    def _continue_from(self, frames: Tensor) -> None:
        bands = self._bands
        motion = self._vae.encode(frames, tiles=None if bands is None else bands.for_encoding)
        self._motion = motion if bands is None else bands.agree(motion)
        self.stages.mark(REENCODE)


def _last(tail: list[Tensor], fresh: Tensor, count: int) -> list[Tensor]:
    """The tensors that hold the last `count` frames of `tail` and `fresh`."""
    kept = [*tail, fresh]
    surplus = sum(part.shape[2] for part in kept) - count
    while kept and surplus >= kept[0].shape[2]:
        surplus -= kept.pop(0).shape[2]
    if surplus > 0:
        kept[0] = kept[0][:, :, surplus:]
    return kept
