"""The denoising transformer: from a noisy latent, the portrait, the prompt and the voice to a velocity.

What does not change within a stream is computed once (`StreamConditions`), what does not change within a chunk once
per chunk (`ChunkConditions`); `DiT.forward` is what is left for every denoising step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.generators.flashtalk.audio_adapter import AudioAdapter
from engine.generators.flashtalk.config import PATCH, DiTConfig
from engine.generators.flashtalk.kernels.layer_norm import ADD_GATED_NORM, ADD_NORM, ADD_NORM_MODULATE, NORM_MODULATE
from engine.generators.flashtalk.kernels.registry import EAGER, Kernels
from engine.generators.flashtalk.kernels.residual import ADD_GATED
from engine.generators.flashtalk.layers import (
    AudioCrossAttention,
    CrossAttention,
    FeedForward,
    FrameRun,
    KeyValue,
    SelfAttention,
    linear_at,
    wide,
)
from engine.generators.flashtalk.quantization.linear import tokens_for
from engine.generators.flashtalk.rope import rotary_table, sinusoid
from engine.generators.pieces import Piece, Pieces, made_at_once
from engine.parallel.group import Attention, SequenceGroup

SET_UP_ONLY = ("text_embedding.", "img_emb.", "time_embedding.", "time_projection.")
"""Modules that no denoising step uses."""
SET_UP_ONLY_IN_BLOCKS = tuple(f".cross_attn.{name}." for name in ("k", "v", "k_img", "v_img", "norm_k", "norm_k_img"))
"""The same inside a block: 4.2 of 18.9 billion parameters make keys and values that are kept instead."""

_KEYS_MULTIPLE = 8
"""Fused kernels want the rows of a bias aligned to 16 bytes."""


@dataclass(frozen=True, kw_only=True)
class StreamConditions:
    """Constant while portrait, prompt, size and schedule are: tensors on the device, of this rank.

    `modulation` [steps, layers, 6, dim], `head_modulation` [steps, 2, dim], `patches` [its tokens, dim] (what the
    mask, the portrait's latent and the bias add to the patch embedding), `table` the rotary rows of its tokens.
    """

    text: list[KeyValue]
    image: list[KeyValue]
    modulation: Tensor
    head_modulation: Tensor
    patches: Tensor
    table: Tensor
    grid: tuple[int, int, int]
    runs: tuple[FrameRun, ...]


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What the set-up weights make, and nothing else needs them: with it a stream begins without reading any.

    `text`, `image`: each layer's keys and values. `times`: [steps, 6, dim] and [steps, dim] in float32 or wider, what
    the timesteps add to the modulation of blocks and head.
    """

    text: list[KeyValue]
    image: list[KeyValue]
    times: tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ChunkConditions:
    """Constant over the steps of a chunk: each layer's keys and values of the voice."""

    audio: list[KeyValue]


class Block(nn.Module):
    """Self-attention, text and image, voice, feed-forward; the first and last with a modulated norm and a gate."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(dim, eps=eps)
        self.cross_attn = CrossAttention(config)
        self.norm_x = nn.LayerNorm(dim, eps=eps)
        self.audio_cross_attn = AudioCrossAttention(config)
        self.ffn = FeedForward(config)
        self.kernels = EAGER
        self._eps = eps

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: KeyValue,
        image: KeyValue,
        audio: KeyValue,
        conditions: StreamConditions,
        group: SequenceGroup,
        attention: Attention,
        first: int = 0,
    ) -> Tensor:
        """`x` [its tokens, dim], `modulation` [6, dim] -> [its tokens after `first`, dim]; see `SelfAttention`."""
        kernels, eps = self.kernels, self._eps
        shift, scale, gate, shift_ff, scale_ff, gate_ff = modulation.unbind(0)
        (normed,) = tokens_for(self.self_attn.readers, kernels, NORM_MODULATE, x, shift, scale, eps)
        attended = self.self_attn(normed, conditions.table, group, attention, first)
        affine = (self.norm3.weight, self.norm3.bias, eps)
        reader = (self.cross_attn.q,)
        x, normed = tokens_for(reader, kernels, ADD_GATED_NORM, x[first:], attended, gate, *affine)
        seen = self.cross_attn(normed, text, image)
        affine = (self.norm_x.weight, self.norm_x.bias, eps)
        x, normed = tokens_for((self.audio_cross_attn.q_linear,), kernels, ADD_NORM, x, seen, *affine)
        heard = self.audio_cross_attn(normed, audio, runs_after(conditions.runs, first))
        x, normed = tokens_for((self.ffn[0],), kernels, ADD_NORM_MODULATE, x, heard, shift_ff, scale_ff, eps)
        return kernels[ADD_GATED](x, self.ffn(normed), gate_ff)


class Head(nn.Module):
    """From tokens to the latents of their patches, in float32."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.dim, config.out_dim * PATCH * PATCH)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self._plain_norm = ((config.dim,), None, None, config.eps)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """`x` [tokens, dim], `modulation` [2, dim] -> [tokens, 4 * channels], channel fastest."""
        shift, scale = modulation.unbind(0)
        normed = F.layer_norm(x, *self._plain_norm).to(scale.dtype)
        return linear_at(self.head, torch.addcmul(shift, normed, 1 + scale))


class ImageEmbedding(nn.Module):
    """From the image encoder's width to the transformer's."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.img_emb_in_dim
        self.proj = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, config.dim),
            nn.LayerNorm(config.dim),
        )


class DiT(nn.Module):
    """The transformer under the published parameter names. It keeps no state of a stream."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=(1, PATCH, PATCH), stride=(1, PATCH, PATCH))
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = ImageEmbedding(config)
        self.audio_proj = AudioAdapter(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self._absent: dict[str, Callable[[], Tensor]] = {}
        self._bringing = threading.Lock()

    def forward(
        self,
        latents: Tensor,
        step: int,
        stream: StreamConditions,
        chunk: ChunkConditions,
        group: SequenceGroup,
        attention: Attention,
        motion: int = 0,
    ) -> Tensor:
        """Velocity [channels, frames, rows, columns] in float32 for noisy `latents` of that shape at step `step`.

        The first `motion` latent frames of it are not needed, and may be zeros. What only they need of the last block
        and the head is then left out, by a group of one: where several ranks share the tokens, the step takes as long
        as with the ranks that have none of these.
        """
        frames, rows, columns = stream.grid
        skipped = motion if group.size == 1 else 0
        x = self.embed_patches(latents, stream, group)
        for index, block in enumerate(self.blocks):
            x = block(
                x,
                stream.modulation[step, index],
                stream.text[index],
                stream.image[index],
                chunk.audio[index],
                stream,
                group,
                attention,
                skipped * rows * columns if index == len(self.blocks) - 1 else 0,
            )
        out = self.head(x, stream.head_modulation[step])
        grid = (frames - skipped, rows, columns)
        velocity = from_patches(group.gather(out, math.prod(grid)), grid)
        return F.pad(velocity, (0, 0, 0, 0, skipped, 0)) if skipped else velocity

    def leave_absent(self, weights: Mapping[str, Callable[[], Tensor]]) -> None:
        """These set-up weights, on the meta device so far, are fetched by calling when they are first needed."""
        self._absent = dict(weights)

    def bring(self, *beginnings: str) -> None:
        """Fetch the absent weights whose names begin so, all by default. Raises what fetching raises. From any thread,
        because streams share the model."""
        with self._bringing:
            for name in [name for name in self._absent if name.startswith(beginnings or "")]:
                module, _, parameter = name.rpartition(".")
                fetched = nn.Parameter(self._absent[name](), requires_grad=False)
                setattr(self.get_submodule(module), parameter, fetched)
                del self._absent[name]

    def use_kernels(self, kernels: Kernels) -> None:
        """These fused kernels from now on."""
        for module in self.modules():
            if hasattr(module, "kernels"):
                module.kernels = kernels

    def pack_projections(self) -> None:
        """One matrix product for queries, keys and values in every block; the last thing to do to the weights.

        Takes the memory of one block's three weights for a moment. Layers of another kind stay as they are.
        """
        for block in self.blocks:
            block.self_attn.pack()
            if self.device.type == "cuda":
                # The three freed pieces do not join to one for the next block.
                torch.cuda.empty_cache()

    def embed_patches(self, latents: Tensor, stream: StreamConditions, group: SequenceGroup) -> Tensor:
        """This rank's tokens [its tokens, dim] of the noisy `latents`.

        Only their 16 channels are new: the rest of the 36 is in `stream.patches`, both kept wide until the sum.
        """
        noisy = group.shard(to_patches(latents.to(self.dtype))).to(stream.patches.dtype)
        weight = self._patch_weight(slice(0, self.config.out_dim)).to(noisy)
        return torch.addmm(stream.patches, noisy, weight.t()).to(self.dtype)

    # ---------------------------------------------------------------------------------- once per chunk, once per stream

    def chunk_conditions(self, first: Tensor, later: Tensor) -> ChunkConditions:
        """From the chunk's audio slices: [1, 5, layers, channels] and [frames - 1, 8, layers, channels]."""
        tokens = self.audio_proj(first, later)
        return ChunkConditions(audio=[block.audio_cross_attn.audio_keys(tokens) for block in self.blocks])

    def stream_conditions(
        self, context: Tensor, image: Tensor, y: Tensor, timesteps: Tensor, group: SequenceGroup
    ) -> StreamConditions:
        """From text features [n, text_dim], image features [257, width], the conditioning latent `y`
        [20, frames, rows, columns] and the timesteps (0 to 1000) of the steps."""
        set_up = SetUp(
            text=self.text_keys(context, group),
            image=self.image_keys(image, group),
            times=self.time_vectors(timesteps),
        )
        return self.conditions_from(set_up, y, group)

    def conditions_from(self, set_up: SetUp, y: Tensor, group: SequenceGroup) -> StreamConditions:
        """`stream_conditions` with what set-up weights make at hand, on this device."""
        modulation, head_modulation = self._modulation(*set_up.times)
        _, frames, rows, columns = y.shape
        grid = (frames, rows // PATCH, columns // PATCH)
        start, stop = group.token_range(math.prod(grid))
        table = rotary_table(grid, self.config.head_dim, wide(y).dtype).to(y.device)
        return StreamConditions(
            text=set_up.text,
            image=set_up.image,
            modulation=modulation,
            head_modulation=head_modulation,
            patches=group.shard(self._constant_patches(y)),
            table=torch.stack([group.shard(part) for part in table]),
            grid=grid,
            runs=frame_runs(start, stop, grid[1] * grid[2], frames),
        )

    def text_keys(self, context: Tensor, group: SequenceGroup) -> list[KeyValue]:
        """Each layer's keys and values of text features [n, text_dim]."""
        return made_at_once(self.text_keys_in_pieces(context, group))

    def text_keys_in_pieces(self, context: Tensor, group: SequenceGroup) -> Pieces[list[KeyValue]]:
        """`text_keys`, of which a layer for each rank is a piece."""
        yield Piece(name="prompt", is_alone=True)
        text, bias = self.embed_text(context.to(self.dtype))
        weights = ("k.", "v.", "norm_k.")
        return (yield from self._shared_keys(text, group, weights, lambda attention: attention.text_keys(text), bias))

    def image_keys(self, features: Tensor, group: SequenceGroup) -> list[KeyValue]:
        """Each layer's keys and values of image features [n, width]."""
        return made_at_once(self.image_keys_in_pieces(features, group))

    def image_keys_in_pieces(self, features: Tensor, group: SequenceGroup) -> Pieces[list[KeyValue]]:
        """`image_keys`, of which a layer for each rank is a piece."""
        yield Piece(name="picture", is_alone=True)
        pictured = self.embed_image(features.to(self.dtype))
        weights = ("k_img.", "v_img.", "norm_k_img.")
        return (yield from self._shared_keys(pictured, group, weights, lambda part: part.image_keys(pictured)))

    def _shared_keys(
        self,
        tokens: Tensor,
        group: SequenceGroup,
        weights: tuple[str, ...],
        make: Callable[[CrossAttention], KeyValue],
        bias: Tensor | None = None,
    ) -> Pieces[list[KeyValue]]:
        """Each layer's keys and values, made by one rank each: their weights alone are 8 GB to read. Every rank makes
        one, or room for another's, and then they are exchanged."""
        form = (len(tokens), self.config.num_heads, self.config.head_dim)
        keys: list[KeyValue] = []
        for first in range(0, len(self.blocks), group.size):
            yield Piece(name="keys", is_alone=True)
            pairs: list[tuple[Tensor, ...]] = []
            for owner, block in enumerate(self.blocks[first : first + group.size]):
                if owner == group.rank:
                    self.bring(*(f"blocks.{first + owner}.cross_attn.{name}" for name in weights))
                    made = make(block.cross_attn)
                    pairs.append((made.k.contiguous(), made.v.contiguous()))
                else:
                    pairs.append((tokens.new_empty(form), tokens.new_empty(form)))
            if group.size > 1:
                yield Piece(name="exchange")
            for owner, pair in enumerate(pairs):
                k, v = group.share(owner, lambda pair=pair: pair, pair)
                keys.append(KeyValue(k=k, v=v, bias=bias))
        return keys

    def embed_text(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens [keys, dim] and the bias [keys] on their logits.

        The reference fills up to `text_len` rows with zeros and attends to what its MLP makes of them. These rows are
        all alike, so one of them with the logarithm of their number on its logit is the same in exact arithmetic.
        """
        rows = len(context)
        padding = self.config.text_len - rows
        if padding:
            context = F.pad(context, (0, 0, 0, 1))
        self.bring("text_embedding.")
        first, act, last = self.text_embedding
        text = linear_at(last, act(linear_at(first, context)))
        bias = torch.zeros(len(text), dtype=wide(text).dtype, device=text.device)
        if padding:
            bias[rows] = math.log(padding)
        unused = -len(text) % _KEYS_MULTIPLE
        return F.pad(text, (0, 0, 0, unused)), F.pad(bias, (0, unused), value=-math.inf)

    def embed_image(self, features: Tensor) -> Tensor:
        """Image tokens [n, dim] of image features [n, width]."""
        self.bring("img_emb.")
        norm_in, first, act, last, norm_out = self.img_emb.proj
        return _norm_at(norm_out, linear_at(last, act(linear_at(first, _norm_at(norm_in, features)))))

    def embed_time(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Modulation of every step: [steps, layers, 6, dim] for the blocks, [steps, 2, dim] for the head."""
        return self._modulation(*self.time_vectors(timesteps))

    def time_vectors(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """See `SetUp.times`."""
        self.bring("time_")
        first, act, last = self.time_embedding
        exact = wide(timesteps).dtype
        hidden = linear_at(first, sinusoid(timesteps, self.config.freq_dim).to(exact), self.dtype)
        e = linear_at(last, act(hidden), self.dtype)
        act, project = self.time_projection
        return linear_at(project, act(e), self.dtype).unflatten(-1, (6, self.config.dim)), e

    def _modulation(self, blocks: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        learned = torch.stack([block.modulation[0] for block in self.blocks]).to(blocks)
        return learned + blocks[:, None], self.head.modulation.to(head) + head[:, None]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the tokens between blocks."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where steps run."""
        return self.patch_embedding.weight.device

    def _patch_weight(self, channels: slice) -> Tensor:
        return self.patch_embedding.weight[:, channels].flatten(1)

    def _constant_patches(self, y: Tensor) -> Tensor:
        columns = wide(to_patches(y.to(self.dtype)))
        weight = self._patch_weight(slice(self.config.out_dim, None)).to(columns)
        return F.linear(columns, weight, self.patch_embedding.bias.to(columns))


def is_set_up_only(name: str) -> bool:
    """Whether the parameter of that name is needed for conditions only, and may stay on the host while streaming."""
    return name.startswith(SET_UP_ONLY) or any(part in name for part in SET_UP_ONLY_IN_BLOCKS)


def to_patches(latents: Tensor) -> Tensor:
    """[channels, frames, rows, columns] -> [tokens, channels * 4], channel slowest."""
    channels = len(latents)
    split = latents.unflatten(2, (-1, PATCH)).unflatten(4, (-1, PATCH))
    return split.permute(1, 2, 4, 0, 3, 5).reshape(-1, channels * PATCH * PATCH)


def from_patches(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[tokens, 4 * channels] with the channel fastest -> [channels, frames, rows, columns]."""
    split = tokens.view(*grid, PATCH, PATCH, -1)
    return split.permute(5, 0, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def frame_runs(start: int, stop: int, tokens_per_frame: int, frames: int) -> tuple[FrameRun, ...]:
    """The latent frames that rows `start` to `stop` of the sequence belong to, in order; rows of padding after the
    last of `frames` go with it."""
    last = frames - 1
    runs = []
    for frame in range(min(start // tokens_per_frame, last), min((stop - 1) // tokens_per_frame, last) + 1):
        end = stop if frame == last else min(stop, (frame + 1) * tokens_per_frame)
        runs.append(FrameRun(frame=frame, start=max(start, frame * tokens_per_frame) - start, stop=end - start))
    return tuple(runs)


def runs_after(runs: tuple[FrameRun, ...], first: int) -> tuple[FrameRun, ...]:
    """`runs` in the numbering of a rank without its tokens before `first`."""
    if not first:
        return runs
    return tuple(
        FrameRun(frame=run.frame, start=max(run.start - first, 0), stop=run.stop - first)
        for run in runs
        if run.stop > first
    )


def _norm_at(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    weight, bias = norm.weight.to(x.device, x.dtype), norm.bias.to(x.device, x.dtype)
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
