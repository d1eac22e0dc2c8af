"""The parts of one transformer block. Tokens are [tokens, width]; norms and gates compute in float32 or better.

Parameter names are those of the published checkpoint. Every layer that weights are multiplied in is called as a module,
so that another one with the same call may take its place. `kernels` are the fused ones in use, the same in all parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.generators.flashtalk.attention import attend_few_keys
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.kernels.attend_two import ATTEND_TWO
from engine.generators.flashtalk.kernels.linear_gelu import LINEAR_GELU
from engine.generators.flashtalk.kernels.norm_rotary import NORM_ROTARY
from engine.generators.flashtalk.kernels.registry import EAGER
from engine.generators.flashtalk.kernels.rms_norm import RMS_NORM
from engine.generators.flashtalk.packed_linears import PackedLinears, pack_linears
from engine.generators.flashtalk.quantization.linear import QuantizedLinear, fused_for, scheme_of
from engine.generators.flashtalk.quantization.tokens import QuantizedTokens
from engine.parallel.group import Attention, SequenceGroup


@dataclass(frozen=True, kw_only=True)
class KeyValue:
    """Keys and values of a cross-attention, made once and read at every step.

    `k`, `v`: [keys, heads, head_dim], for audio [latent frames, keys, heads, head_dim]. `bias` [keys] is added to
    the logits.
    """

    k: Tensor
    v: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class FrameRun:
    """Tokens `start` to `stop` of a rank (its own numbering) that belong to latent frame `frame`."""

    frame: int
    start: int
    stop: int


def wide(x: Tensor) -> Tensor:
    """In float32, or float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def linear_at(layer: nn.Linear, x: Tensor, rounded: torch.dtype | None = None) -> Tensor:
    """`layer` applied where and in the precision that `x` is: its weights may rest in a mapped file on the host, in
    that file's precision. With `rounded` they are brought to that one first."""

    def here(parameter: Tensor) -> Tensor:
        return parameter.to(x.device, rounded or x.dtype).to(x.dtype)

    return F.linear(x, here(layer.weight), None if layer.bias is None else here(layer.bias))


class RmsNorm(nn.Module):
    """Root-mean-square norm over the full width, normalised in float32, rounded, then weighted."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.kernels = EAGER

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.kernels[RMS_NORM](x, self.weight.to(x.device, x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Attention of all tokens of a chunk to one another, with rotary positions; the group knows where they are."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = (RmsNorm(dim, config.eps) for _ in range(2))
        self.kernels = EAGER
        self._heads = (config.num_heads, config.head_dim)
        self._packed: PackedLinears | None = None

    def pack(self) -> None:
        """Queries, keys and values by one matrix product from now on, where their layers are plain ones."""
        self._packed = pack_linears(self.q, self.k, self.v)

    @property
    def readers(self) -> tuple[nn.Module, ...]:
        """The layers that read its tokens."""
        return self.q, self.k, self.v

    def forward(
        self,
        x: Tensor | QuantizedTokens,
        table: Tensor,
        group: SequenceGroup,
        attention: Attention,
        first: int = 0,
    ) -> Tensor:
        """`x` [its tokens, dim] and the rows of the rotary `table` for them -> [its tokens after `first`, dim].

        Tokens before `first`, which a group of one may name, are attended to and do not attend.
        """
        q, k, v = self._project(x, first)
        ready, heads = self.kernels[NORM_ROTARY], self._heads[0]
        q = ready(q, self.norm_q.weight, table[:, first:], heads, self.norm_q.eps)
        k = ready(k, self.norm_k.weight, table, heads, self.norm_k.eps)
        return self.o(group.attend(q, k, v.unflatten(-1, self._heads), attention).flatten(-2))

    def _project(self, x: Tensor | QuantizedTokens, first: int) -> tuple[Tensor, ...]:
        packed = self._packed
        if isinstance(self.q, QuantizedLinear) and scheme_of(self.readers) is not None:
            x = self.q.tokens_of(x)  # once for all of them
        if packed is None or not packed.holds(self.q, self.k, self.v):
            return self.q(x[first:]), self.k(x), self.v(x)
        return packed(x) if not first else (self.q(x[first:]), *packed(x, after=1))


class CrossAttention(nn.Module):
    """Attention to the text and, separately, to the portrait's image tokens: one query, two softmaxes, their sum."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.q, self.o = (nn.Linear(dim, dim) for _ in range(2))
        self.k, self.v, self.k_img, self.v_img = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k, self.norm_k_img = (RmsNorm(dim, config.eps) for _ in range(3))
        self.kernels = EAGER
        self._heads = (config.num_heads, config.head_dim)

    def forward(self, x: Tensor | QuantizedTokens, text: KeyValue, image: KeyValue) -> Tensor:
        """`x` [tokens, dim] -> [tokens, dim]."""
        q = self.norm_q(self.q(x)).unflatten(-1, self._heads)
        seen = self.kernels[ATTEND_TWO](q, text.k, text.v, text.bias, image.k, image.v)
        return self.o(seen.flatten(-2))

    def text_keys(self, text: Tensor, bias: Tensor | None = None) -> KeyValue:
        """From text tokens [n, dim]; constant within a stream."""
        k = self.norm_k(linear_at(self.k, text)).unflatten(-1, self._heads)
        return KeyValue(k=k, v=linear_at(self.v, text).unflatten(-1, self._heads), bias=bias)

    def image_keys(self, image: Tensor) -> KeyValue:
        """From image tokens [n, dim]; constant within a stream."""
        k = self.norm_k_img(linear_at(self.k_img, image)).unflatten(-1, self._heads)
        return KeyValue(k=k, v=linear_at(self.v_img, image).unflatten(-1, self._heads))


class AudioCrossAttention(nn.Module):
    """Attention of each latent frame's tokens to that frame's audio tokens; no norms, no positions."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(config.output_dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self._heads = (config.num_heads, config.head_dim)

    def forward(self, x: Tensor | QuantizedTokens, audio: KeyValue, runs: tuple[FrameRun, ...]) -> Tensor:
        """`x` [its tokens, dim] -> the same; `runs` say which tokens belong to which latent frame."""
        q = self.q_linear(x).unflatten(-1, self._heads)
        lengths = {run.stop - run.start for run in runs}
        if len(lengths) == 1:
            frames = slice(runs[0].frame, runs[-1].frame + 1)
            seen = _attend_batch(q.unflatten(0, (len(runs), lengths.pop())), audio.k[frames], audio.v[frames])
            return self.proj(seen.flatten(0, 1).flatten(-2))
        parts = [attend_few_keys(q[run.start : run.stop], audio.k[run.frame], audio.v[run.frame]) for run in runs]
        return self.proj(torch.cat(parts).flatten(-2))

    def audio_keys(self, tokens: Tensor) -> KeyValue:
        """From audio tokens [latent frames, keys, output_dim]; constant within a chunk."""
        k, v = self.kv_linear(tokens).chunk(2, dim=-1)
        return KeyValue(k=k.unflatten(-1, self._heads), v=v.unflatten(-1, self._heads))


class FeedForward(nn.Sequential):
    """Two linear layers and the tanh form of GELU between them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )
        self.kernels = EAGER

    def forward(self, input: Tensor | QuantizedTokens) -> Tensor:
        """`input` [tokens, dim] -> [tokens, dim]."""
        first, act, last = self
        if type(first) is nn.Linear and LINEAR_GELU in self.kernels:
            return last(self.kernels[LINEAR_GELU](input, first.weight, first.bias))
        gelu = fused_for((last,), self.kernels, "gelu")
        return last(act(first(input)) if gelu is None else gelu(first(input))[0])


def _attend_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention within each of n frames: q [n, tokens, heads, head_dim], k and v [n, keys, heads, head_dim]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)
